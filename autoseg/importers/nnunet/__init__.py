"""Models that nnU-Net v2 trained, made into native model folders: the same network, weights, grid and scale of intensities."""

from autoseg.importers.nnunet.importing import ImportedModel, import_nnunet_model

__all__ = ["ImportedModel", "import_nnunet_model"]
