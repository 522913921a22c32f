"""Writing masks and images: whole or not at all, read back before they count, and with nothing in the header but the grid."""

from __future__ import annotations

import math
import os
import struct
import zlib
from pathlib import Path

import numpy as np

from autoseg.errors import GeometryError, ImageError, ResourceError
from autoseg.files import replace_with
from autoseg.images.geometry import Geometry
from autoseg.images.itk import to_sitk
from autoseg.images.read import read_image

WRITABLE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")
_NIFTI_CODES = {"uint8": 2, "int16": 4, "int32": 8, "float32": 16, "float64": 64, "int8": 256, "uint16": 512, "uint32": 768}
_LARGEST_NIFTI_SIZE = 32767


def write_mask(path: str | Path, array: np.ndarray, geometry: Geometry) -> None:
    """Writes labels (z, y, x) on a grid: uint8, or uint16 where a label is 255 or more; .nii.gz, .nii, .nrrd or .mha.

    The file is written beside its place, read back and compared, and only then takes the old one's place. Its header holds the grid and
    nothing about the patient; the same mask gives the same bytes.

    Raises:
        ImageError: a value is no whole number from 0 to 65535, or the file's ending is another.
        GeometryError: array and grid differ in shape.
        ResourceError: the disk is full or failing; the old file is intact.
    """
    array = np.asarray(array)
    if array.dtype.kind == "f" and not np.array_equal(array, np.rint(array)):
        raise ImageError(f"{path}: a mask must hold whole numbers; found {array.dtype.name} values with fractions. Round them first.")
    smallest, largest = (int(array.min()), int(array.max())) if array.size else (0, 0)
    if smallest < 0 or largest > np.iinfo(np.uint16).max:
        raise ImageError(f"{path}: labels run from {smallest} to {largest}; expected are 0 to 65535. Relabel the mask.")
    _write(Path(path), array.astype(np.uint8 if largest < 255 else np.uint16, copy=False), geometry)


def write_image(path: str | Path, array: np.ndarray, geometry: Geometry) -> None:
    """Writes an image (z, y, x) on a grid as float32; otherwise as `write_mask`.

    Raises:
        ImageError: a value is not finite, or the file's ending is another.
        GeometryError: array and grid differ in shape.
        ResourceError: the disk is full or failing; the old file is intact.
    """
    array = np.asarray(array).astype(np.float32, copy=False)
    if not np.isfinite(array).all():
        raise ImageError(f"{path}: {int((~np.isfinite(array)).sum())} voxels are NaN or infinite; nothing was written.")
    _write(Path(path), array, geometry)


def _write(path: Path, array: np.ndarray, geometry: Geometry) -> None:
    if array.shape != geometry.shape:
        raise GeometryError(f"{path}: an array of shape {array.shape} does not fit a grid of shape {geometry.shape}.")
    if not path.name.endswith(WRITABLE_ENDINGS):
        raise ImageError(f"{path}: can be written with the endings {', '.join(WRITABLE_ENDINGS)} only.")

    def write(temporary: Path) -> None:
        if path.name.endswith((".nii", ".nii.gz")):
            _write_nifti(temporary, array, geometry)
        else:
            _write_itk(temporary, path, array, geometry)
        _verify(temporary, path, array, geometry)

    replace_with(path, write)


def _write_nifti(path: Path, array: np.ndarray, geometry: Geometry) -> None:
    deflater = zlib.compressobj(1, zlib.DEFLATED, 31) if path.name.endswith(".gz") else None
    with open(path, "xb", buffering=0) as stream:
        for piece in (
            nifti_header(array.dtype, geometry),
            *(np.ascontiguousarray(plane, array.dtype.newbyteorder("<")) for plane in array),
        ):
            _write_all(stream.fileno(), deflater.compress(piece) if deflater else piece)
        if deflater:
            _write_all(stream.fileno(), deflater.flush())


def _write_all(descriptor: int, data: bytes | np.ndarray) -> None:
    rest = memoryview(data).cast("B")
    while rest:
        rest = rest[os.write(descriptor, rest[: 1 << 30]) :]


def _write_itk(temporary: Path, path: Path, array: np.ndarray, geometry: Geometry) -> None:
    import SimpleITK

    try:
        SimpleITK.WriteImage(to_sitk(array, geometry), str(temporary), useCompression=True, compressionLevel=1)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ResourceError(f"{path}: the image could not be written: {reason}. Check the disk; the old file is intact.") from error


def _verify(temporary: Path, path: Path, array: np.ndarray, geometry: Geometry) -> None:
    try:
        written = read_image(temporary)
    except ImageError as error:
        raise ResourceError(
            f"{path}: what was written could not be read back ({error}). Check the disk; the old file is intact."
        ) from error
    if not np.array_equal(written.array, array):
        raise ResourceError(f"{path}: what was read back is not what was written. Check the disk; the old file is intact.")
    assert written.geometry.shape == geometry.shape


def nifti_header(dtype: np.dtype, geometry: Geometry) -> bytes:
    """The 352 bytes before the voxels of a NIfTI-1 file: the grid as qform and sform (scanner), mm, and every text field empty.

    Raises:
        ImageError: the format cannot hold so many voxels along an axis.
    """
    sizes = geometry.shape[::-1][: geometry.dimension]
    if max(sizes) > _LARGEST_NIFTI_SIZE:
        raise ImageError(
            f"NIfTI-1 holds at most {_LARGEST_NIFTI_SIZE} voxels along an axis, this grid has {max(sizes)}. Write .nrrd or .mha."
        )
    spacing = geometry.spacing[::-1][: geometry.dimension]
    to_ras = np.diag([-1.0, -1.0, 1.0])
    direction = to_ras @ np.reshape(geometry.direction, (3, 3))
    origin = to_ras @ np.asarray(geometry.origin)
    matrix = direction * (*spacing, 1.0)[:3]
    handedness = -1.0 if np.linalg.det(direction) < 0 else 1.0
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    header[38:39] = b"r"
    struct.pack_into("<8h", header, 40, len(sizes), *sizes, *[1] * (7 - len(sizes)))
    struct.pack_into("<hh", header, 70, _NIFTI_CODES[dtype.name], dtype.itemsize * 8)
    struct.pack_into("<8f", header, 76, handedness, *spacing, *[0.0] * (7 - len(spacing)))
    struct.pack_into("<fff", header, 108, 352.0, 1.0, 0.0)
    header[123] = 2  # millimetres
    struct.pack_into("<hh", header, 252, 1, 1)
    struct.pack_into("<6f", header, 256, *_quaternion(direction * (1.0, 1.0, handedness)), *origin)
    struct.pack_into("<12f", header, 280, *np.column_stack([matrix, origin]).ravel())
    header[344:348] = b"n+1\0"
    return bytes(header)


def _quaternion(rotation: np.ndarray) -> tuple[float, float, float]:
    """(b, c, d) of the unit quaternion with a >= 0 of a rotation matrix.

    Source: Bar-Itzhack, "New method for extracting the quaternion from a rotation matrix", J. Guidance 2000: the eigenvector of a symmetric
    matrix, which loses no digits for any angle.
    """
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = rotation
    matrix = np.array(
        [
            [xx - yy - zz, yx + xy, zx + xz, zy - yz],
            [yx + xy, yy - xx - zz, zy + yz, xz - zx],
            [zx + xz, zy + yz, zz - xx - yy, yx - xy],
            [zy - yz, xz - zx, yx - xy, xx + yy + zz],
        ]
    )
    b, c, d, a = np.linalg.eigh(matrix)[1][:, -1]
    sign = math.copysign(1.0, a)
    return sign * b, sign * c, sign * d
