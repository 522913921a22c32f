"""The raw header of NIfTI-1 and NIfTI-2, in both byte orders.

Source: Cox et al., "A (sort of) new image data format standard: NIfTI-1", 2004; the header files nifti1.h and nifti2.h of the NIfTI group.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg.errors import ImageError
from autoseg.images.geometry import REPAIRABLE_SKEW, Geometry, skew
from autoseg.images.headers import RawHeader, check_sizes, check_spacing, voxel_bytes
from autoseg.images.payload import GZIP_MAGIC, Payload, first_bytes

DTYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_NO_PLAIN_NUMBERS = {1: "bits", 32: "complex", 128: "RGB", 1536: "128-bit float", 1792: "complex", 2048: "complex", 2304: "RGBA"}
_MM_PER_UNIT = {1: 1000.0, 3: 0.001}
_RAS_TO_LPS = np.array([[-1.0], [-1.0], [1.0]])


@dataclass(frozen=True)
class NiftiFields:
    """The fields of a NIfTI header that decide what its voxels are and where they lie; names as in the standard.

    Attributes:
        version: 1 or 2.
        order: "<" or ">", the byte order of header and voxels.
        quatern: (b, c, d).
        srow: 3x4, RAS.
        unit: mm in one unit of length.
    """

    version: int
    order: str
    dim: tuple[int, ...]
    datatype: int
    pixdim: tuple[float, ...]
    vox_offset: float
    scl_slope: float
    scl_inter: float
    qform_code: int
    sform_code: int
    quatern: tuple[float, float, float]
    qoffset: tuple[float, float, float]
    srow: np.ndarray
    unit: float


def read_nifti_header(path: Path, where: str) -> RawHeader:
    """The checked header of a .nii or .nii.gz file.

    Raises:
        ImageError: it is no NIfTI, or a field cannot be.
    """
    head = first_bytes(path, 544, where)
    fields = parse(head, where)
    compressed, named_gz = _is_gzip(path), path.name.lower().endswith(".gz")
    notes: tuple[str, ...] = ()
    if compressed and not named_gz:
        raise ImageError(f"{where}: the file is compressed but not named so. Rename it to {path.name}.gz.")
    if named_gz and not compressed:
        notes = (f"{where}: the file is named .gz but is not compressed",)
    ndim = fields.dim[0]
    sizes = check_sizes(fields.dim[1 : ndim + 1], where)
    check_spacing(fields.pixdim[1 : 1 + min(len(sizes), 3)], where, "pixdim")
    dtype = _dtype(fields, where)
    size, slice_size = voxel_bytes(sizes, dtype)
    slope, intercept = _scaling(fields)
    if fields.qform_code <= 0 and fields.sform_code <= 0:
        notes = (
            *notes,
            f"{where}: the header has neither qform nor sform: the position and orientation in the patient are unknown, LPS is assumed",
        )
    return RawHeader(
        payload=Payload(path, 0, _voxel_offset(fields, where), compressed, size, slice_size),
        dtype=dtype,
        sizes=sizes,
        itk_reader="NiftiImageIO" if fields.version == 1 else None,
        slope=slope,
        intercept=intercept,
        notes=notes,
        own_geometry=lambda: own_geometry(fields, sizes),
        explain=lambda geometry: explain(fields, geometry, where),
    )


def parse(head: bytes, where: str) -> NiftiFields:
    """The fields of a header's bytes (348 or 540 are needed).

    Raises:
        ImageError: these are not the bytes of a NIfTI header.
    """
    version, order = next(
        (
            (version, order)
            for version, size in ((1, 348), (2, 540))
            for order in "<>"
            if len(head) >= size and struct.unpack_from(order + "i", head)[0] == size
        ),
        (0, ""),
    )
    magic = head[344:347] if version == 1 else head[4:7]
    if not version or magic not in (b"n+1", b"n+2"):
        seen = "the header of an .hdr/.img pair" if magic in (b"ni1", b"ni2") else f"{head[:12]!r}"
        raise ImageError(f"{where}: is no single-file NIfTI image: it begins with {seen}. Export it again as .nii.gz.")
    if version == 1:
        dims, codes, pixdim = struct.unpack_from(order + "8h", head, 40), struct.unpack_from(order + "2h", head, 252), (76, "8f")
        offset, scaling = struct.unpack_from(order + "f", head, 108)[0], struct.unpack_from(order + "2f", head, 112)
        form, datatype, unit = struct.unpack_from(order + "18f", head, 256), struct.unpack_from(order + "h", head, 70)[0], head[123]
    else:
        dims, codes, pixdim = struct.unpack_from(order + "8q", head, 16), struct.unpack_from(order + "2i", head, 344), (104, "8d")
        offset, scaling = struct.unpack_from(order + "q", head, 168)[0], struct.unpack_from(order + "2d", head, 176)
        form, datatype = struct.unpack_from(order + "18d", head, 352), struct.unpack_from(order + "h", head, 12)[0]
        unit = struct.unpack_from(order + "i", head, 500)[0]
    if not 1 <= dims[0] <= 7:
        raise ImageError(f"{where}: the header says that the image has {dims[0]} axes; 1 to 7 are possible. Export the file again.")
    return NiftiFields(
        version,
        order,
        dims,
        datatype,
        struct.unpack_from(order + pixdim[1], head, pixdim[0]),
        offset,
        *scaling,
        *codes,
        form[:3],
        form[3:6],
        np.reshape(form[6:], (3, 4)),
        _MM_PER_UNIT.get(unit & 7, 1.0),
    )


def sform_affine(fields: NiftiFields) -> np.ndarray:
    """3x4 matrix of the sform, mm, LPS: takes (x, y, z, 1) in voxels to the patient."""
    return fields.srow * _RAS_TO_LPS * fields.unit


def qform_affine(fields: NiftiFields) -> np.ndarray:
    """3x4 matrix of the qform, mm, LPS; nan where its quaternion is no rotation."""
    b, c, d = fields.quatern
    norm = b * b + c * c + d * d
    if not norm <= 1.0 + 1e-5:
        return np.full((3, 4), math.nan)
    a = math.sqrt(max(0.0, 1.0 - norm))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    rotation[:, 2] *= -1.0 if fields.pixdim[0] < 0 else 1.0
    affine = np.column_stack([rotation * np.array(fields.pixdim[1:4]), fields.qoffset])
    return affine * _RAS_TO_LPS * fields.unit


def own_geometry(fields: NiftiFields, sizes: tuple[int, ...]) -> Geometry | None:
    """The grid of the sform (else of the qform); None where both are too skewed to be repaired or no grid at all.

    For headers that ITK does not read: NIfTI-2, and NIfTI-1 with a small skew.
    """
    affines = [sform_affine(fields)] if fields.sform_code > 0 else []
    affines += [qform_affine(fields)] if fields.qform_code > 0 else []
    for affine in affines:
        lengths = np.linalg.norm(affine[:, :3], axis=0)
        if not np.isfinite(affine).all() or not (lengths > 0).all():
            continue
        direction = (affine[:, :3] / lengths).ravel()
        if skew(direction) <= REPAIRABLE_SKEW:
            return _grid(sizes, lengths, affine[:, 3], direction)
    if not affines:
        spacing = np.abs(fields.pixdim[1:4]) * fields.unit
        return _grid(sizes, np.where(spacing > 0, spacing, 1.0), np.zeros(3), np.eye(3).ravel())
    return None


def explain(fields: NiftiFields, geometry: Geometry, where: str) -> tuple[str, ...]:
    """Notes where qform, sform and pixdim do not say the same, stating which was used for `geometry`."""
    if geometry.dimension == 2:
        return ()
    used = np.column_stack([geometry.matrix, geometry.origin])
    forms = {}
    if fields.qform_code > 0:
        forms["qform"] = qform_affine(fields)
    if fields.sform_code > 0:
        forms["sform"] = sform_affine(fields)
    size = np.array([*geometry.shape[::-1], 1.0])
    distance = {name: float(np.abs((affine - used) * size).max()) for name, affine in forms.items()}
    distance = {name: value if math.isfinite(value) else math.inf for name, value in distance.items()}
    notes = []
    if len(forms) == 2 and max(distance.values()) > 0.01 * min(geometry.spacing):
        nearest = min(distance, key=lambda name: distance[name])
        other = "sform" if nearest == "qform" else "qform"
        notes.append(f"{where}: qform and sform differ by up to {distance[other]:.3g} mm; the {nearest} was used, as ITK does")
    elif list(forms) == ["sform"] and distance["sform"] > 0.01 * min(geometry.spacing):
        lengths = ", ".join(f"{value:.6g}" for value in np.linalg.norm(forms["sform"][:, :3], axis=0)[::-1])
        spacing = ", ".join(f"{value:.6g}" for value in geometry.spacing)
        notes.append(f"{where}: the sform's voxels measure ({lengths}) mm but pixdim says ({spacing}); pixdim was used, as ITK does")
    return tuple(notes)


def _grid(sizes: tuple[int, ...], spacing: np.ndarray, origin: np.ndarray, direction: tuple[float, ...] | np.ndarray) -> Geometry:
    x, y, z = (*sizes[:3], 1)[:3]
    spacing_z = spacing[2] if len(sizes) > 2 else spacing[:2].max()
    return Geometry((z, y, x), (spacing_z, spacing[1], spacing[0]), tuple(origin), tuple(direction), min(len(sizes), 3))


def _is_gzip(path: Path) -> bool:
    with open(path, "rb") as stream:
        return stream.read(2) == GZIP_MAGIC


def _dtype(fields: NiftiFields, where: str) -> np.dtype:
    if fields.datatype in DTYPES:
        return np.dtype(fields.order + DTYPES[fields.datatype])
    kind = _NO_PLAIN_NUMBERS.get(fields.datatype, "unknown")
    raise ImageError(
        f"{where}: its voxels are of type {kind} (code {fields.datatype}); expected is one plain number a voxel. Convert it first."
    )


def _voxel_offset(fields: NiftiFields, where: str) -> int:
    smallest = 348 if fields.version == 1 else 540
    if not (math.isfinite(fields.vox_offset) and fields.vox_offset >= smallest and fields.vox_offset == int(fields.vox_offset)):
        raise ImageError(
            f"{where}: vox_offset in the header is {fields.vox_offset:g}; expected is a whole number from {smallest} on. Export it again."
        )
    return int(fields.vox_offset)


def _scaling(fields: NiftiFields) -> tuple[float, float]:
    # The standard switches scaling off with a slope of 0; ITK then still adds the intercept, and reads NaN (which nibabel writes) as 0.
    slope = fields.scl_slope if math.isfinite(fields.scl_slope) and abs(fields.scl_slope) >= np.finfo(np.float32).tiny else 0.0
    intercept = fields.scl_inter if math.isfinite(fields.scl_inter) else 0.0
    return slope or 1.0, intercept
