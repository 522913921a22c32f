"""Losses of segmentation, as plan data: a per-voxel term plus an overlap term, alike for labels (softmax) and regions (sigmoid)."""

from autoseg.training.losses.segmentation import SegmentationLoss, level_weights, segmentation_loss, target_regions

__all__ = ["SegmentationLoss", "level_weights", "segmentation_loss", "target_regions"]
