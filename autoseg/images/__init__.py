"""Images in files and memory: reading with the checks that libraries leave out, writing that never leaves a part, grids, orientation."""

from autoseg.images.geometry import Geometry, check_same_grid, corner_displacement
from autoseg.images.image import Header, Image
from autoseg.images.itk import from_sitk, to_sitk
from autoseg.images.orientation import Reorientation, orientation_code, reorientation_for, reorientation_to_canonical
from autoseg.images.read import READABLE_ENDINGS, read_channels, read_header, read_image, read_mask
from autoseg.images.write import WRITABLE_ENDINGS, write_image, write_mask

__all__ = [
    "READABLE_ENDINGS",
    "WRITABLE_ENDINGS",
    "Geometry",
    "Header",
    "Image",
    "Reorientation",
    "check_same_grid",
    "corner_displacement",
    "from_sitk",
    "orientation_code",
    "read_channels",
    "read_header",
    "read_image",
    "read_mask",
    "reorientation_for",
    "reorientation_to_canonical",
    "to_sitk",
    "write_image",
    "write_mask",
]
