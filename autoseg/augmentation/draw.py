"""What augmentation draws for one training sample."""

from __future__ import annotations

from dataclasses import dataclass

from autoseg.augmentation.blur import BlurParameters
from autoseg.augmentation.components import ComponentParameters
from autoseg.augmentation.gamma import GammaParameters
from autoseg.augmentation.intensity import BrightnessParameters, ContrastParameters
from autoseg.augmentation.low_resolution import LowResolutionParameters
from autoseg.augmentation.mirror import MirrorParameters
from autoseg.augmentation.morphology import MorphologyParameters
from autoseg.augmentation.noise import NoiseParameters
from autoseg.augmentation.spatial import SpatialParameters


@dataclass(frozen=True)
class Draw:
    """What was drawn for one sample, before any voxel is read: `read_size` voxels around the patch's centre are all that `apply` needs."""

    read_size: tuple[int, ...]
    spatial: SpatialParameters | None = None
    noise: NoiseParameters | None = None
    blur: BlurParameters | None = None
    brightness: BrightnessParameters | None = None
    contrast: ContrastParameters | None = None
    low_resolution: LowResolutionParameters | None = None
    inverted_gamma: GammaParameters | None = None
    gamma: GammaParameters | None = None
    mirror: MirrorParameters | None = None
    morphology: MorphologyParameters | None = None
    components: ComponentParameters | None = None
