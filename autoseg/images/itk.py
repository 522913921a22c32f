"""The border to SimpleITK: it decides what a header's geometry means, and notebooks hand its images over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from autoseg.errors import ImageError
from autoseg.images.geometry import IDENTITY_DIRECTION, Geometry
from autoseg.images.image import Image

if TYPE_CHECKING:
    import SimpleITK

_NUMPY_NAMES = {
    "8-bit unsigned integer": "uint8",
    "8-bit signed integer": "int8",
    "16-bit unsigned integer": "uint16",
    "16-bit signed integer": "int16",
    "32-bit unsigned integer": "uint32",
    "32-bit signed integer": "int32",
    "64-bit unsigned integer": "uint64",
    "64-bit signed integer": "int64",
    "32-bit float": "float32",
    "64-bit float": "float64",
}


@dataclass(frozen=True)
class Information:
    """What SimpleITK reads from a file's header.

    Attributes:
        size, spacing, origin: ITK's order, as many as the file has axes.
        direction: square matrix, row by row.
        dtype: numpy name of one voxel, or SimpleITK's words where it is no plain number.
        components: numbers in a voxel.
    """

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]
    dtype: str
    components: int


def read_information(path: Path, reader_name: str) -> Information:
    """What SimpleITK says about a file without reading its voxels.

    Args:
        reader_name: ITK's class for the format, such as NiftiImageIO.

    Raises:
        RuntimeError: ITK cannot read the header.
    """
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO(reader_name)
    reader.SetFileName(str(path))
    shown = SimpleITK.ProcessObject.GetGlobalWarningDisplay()
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)  # what ITK would print on stderr stands in the notes
    try:
        reader.ReadImageInformation()
    finally:
        SimpleITK.ProcessObject.SetGlobalWarningDisplay(shown)
    kind = SimpleITK.GetPixelIDValueAsString(reader.GetPixelID())
    return Information(
        tuple(reader.GetSize()),
        tuple(reader.GetSpacing()),
        tuple(reader.GetOrigin()),
        tuple(reader.GetDirection()),
        _NUMPY_NAMES.get(kind, kind),
        reader.GetNumberOfComponents(),
    )


def grid(size: Sequence[int], spacing: Sequence[float], origin: Sequence[float], direction: Sequence[float]) -> Geometry:
    """The `Geometry` of ITK's numbers for an image of two or more axes; axes beyond the third are left out."""
    dimension = min(len(size), 3)
    matrix = np.reshape(direction, (len(size), len(size)))[:dimension, :dimension]
    full = np.reshape(IDENTITY_DIRECTION, (3, 3)).copy()
    full[:dimension, :dimension] = matrix
    z_size, z_spacing, z_origin = (size[2], spacing[2], origin[2]) if dimension == 3 else (1, max(spacing[:2]), 0.0)
    return Geometry(
        (z_size, size[1], size[0]),
        (z_spacing, spacing[1], spacing[0]),
        (origin[0], origin[1], z_origin),
        tuple(full.ravel().tolist()),
        dimension,
    )


def from_sitk(image: SimpleITK.Image) -> Image:
    """A SimpleITK image (2-D or 3-D, one number a voxel) as an `Image`; the voxels are copied.

    Raises:
        ImageError: it has other axes, or several numbers a voxel.
    """
    import SimpleITK

    if image.GetDimension() not in (2, 3) or image.GetNumberOfComponentsPerPixel() != 1 or "complex" in image.GetPixelIDTypeAsString():
        raise ImageError(
            f"a SimpleITK image of {image.GetDimension()} axes with voxels of type {image.GetPixelIDTypeAsString()} was given; "
            "expected are 2 or 3 axes and one real number a voxel. Hand over one channel at a time."
        )
    geometry = grid(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    return Image(SimpleITK.GetArrayFromImage(image).reshape(geometry.shape), geometry)


def to_sitk(array: np.ndarray, geometry: Geometry) -> SimpleITK.Image:
    """A SimpleITK image of an array (z, y, x) on a grid; 2-D where `geometry.dimension` is 2. The voxels are copied."""
    import SimpleITK

    assert array.shape == geometry.shape, f"array {array.shape} on a grid of {geometry.shape}"
    flat = geometry.dimension == 2
    image = SimpleITK.GetImageFromArray(array[0] if flat else array)
    count = 2 if flat else 3
    image.SetSpacing(geometry.spacing[::-1][:count])
    image.SetOrigin(geometry.origin[:count])
    image.SetDirection(np.reshape(geometry.direction, (3, 3))[:count, :count].ravel().tolist())
    return image
