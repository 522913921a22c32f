"""Reading images and masks: one pass over the file, which finds what SimpleITK would let pass (see the tests for the list)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from autoseg.errors import GeometryError, ImageError
from autoseg.images.geometry import REPAIRABLE_SKEW, Geometry, nearest_orthonormal, skew
from autoseg.images.headers import RawHeader, spacing_notes
from autoseg.images.image import Header, Image
from autoseg.images.itk import grid, read_information
from autoseg.images.nifti import read_nifti_header
from autoseg.images.payload import check_length, read_payload
from autoseg.images.textheaders import read_meta_header, read_nrrd_header

NOTED_SKEW = 1e-4
"""What ITK itself accepts in NIfTI; within it the direction is taken as ITK gives it."""
LABEL_TOLERANCE = 1e-3

_FORMATS = {
    ".nii.gz": read_nifti_header,
    ".nii": read_nifti_header,
    ".nrrd": read_nrrd_header,
    ".mha": read_meta_header,
    ".mhd": read_meta_header,
}
READABLE_ENDINGS = tuple(_FORMATS)


@dataclass(frozen=True)
class _Opened:
    raw: RawHeader
    geometry: Geometry
    notes: tuple[str, ...]
    where: str

    @property
    def dtype(self) -> np.dtype:
        if not self.raw.is_scaled:
            return self.raw.dtype.newbyteorder("=")
        return np.dtype(np.float64 if self.raw.dtype.itemsize == 8 and self.raw.dtype.kind == "f" else np.float32)


def read_header(path: str | Path, *, case: str = "") -> Header:
    """What a file says about its image; the voxels are not read, and only an uncompressed file's length is checked.

    Raises:
        ImageError: the header is broken or of a kind that is not supported, or the file is too short for what it promises.
    """
    opened = _open(Path(path), case)
    check_length(opened.raw.payload, opened.where)
    return Header(Path(path), opened.geometry, opened.dtype.name, opened.raw.volumes, opened.notes)


def read_image(path: str | Path, *, case: str = "", component: int | None = None, allow_nonfinite: bool = False) -> Image:
    """An image with its grid, after the whole file was found sound.

    Args:
        path: .nii, .nii.gz, .nrrd, .mha or .mhd.
        case: the case's name, for messages.
        component: which volume of a 4-D file (from 0); None for files with one volume.
        allow_nonfinite: put the smallest finite value where a voxel is NaN or infinite, and count these in the notes, instead of raising.

    Raises:
        ImageError: the file is missing, cut short, damaged or not supported, has no usable grid, has several volumes, or is not finite.
        ResourceError: there is no memory for it.
    """
    return _read(Path(path), case, [component], allow_nonfinite)[0]


def read_channels(sources: Sequence[tuple[Path, int | None]], *, case: str = "", allow_nonfinite: bool = False) -> list[Image]:
    """The images of a case's channels; a 4-D file that holds several of them is read once.

    Args:
        sources: (file, component) of each channel, as `read_image` takes them.

    Raises:
        ImageError, ResourceError: as `read_image`.
    """
    found: dict[tuple[Path, int | None], Image] = {}
    for path in dict.fromkeys(path for path, _ in sources):
        components = list(dict.fromkeys(component for other, component in sources if other == path))
        for component, image in zip(components, _read(path, case, components, allow_nonfinite), strict=True):
            found[path, component] = image
    return [found[source] for source in sources]


def read_mask(path: str | Path, *, case: str = "") -> Image:
    """A mask: an image of labels in the smallest of uint8, uint16, uint32 that holds them.

    Floats within 1e-3 of a whole number are rounded.

    Raises:
        ImageError: as `read_image`; or a value is negative, no whole number, or above 4294967295.
        ResourceError: there is no memory for it.
    """
    image = read_image(path, case=case)
    where = _where(Path(path), case)
    array, notes = image.array, image.notes
    if array.dtype.kind == "f":
        whole = np.rint(array)
        far = np.abs(array - whole) > LABEL_TOLERANCE
        if far.any():
            raise ImageError(
                f"{where}: a mask must hold whole numbers, but {int(far.sum())} voxels do not, such as {float(array[far][0]):g}. It "
                "may have been interpolated while resampling: resample it with nearest neighbours, or check that it is the mask."
            )
        if not np.array_equal(whole, array):
            notes = (*notes, f"{where}: labels were rounded to whole numbers")
        array = whole
    smallest, largest = array.min(), array.max()
    if smallest < 0:
        raise ImageError(
            f"{where}: {int((array < 0).sum())} voxels have a negative label ({smallest:g}); labels start at 0. Relabel the mask."
        )
    if largest > np.iinfo(np.uint32).max:
        raise ImageError(f"{where}: the label {largest:g} is larger than any that can be handled. Check that this is a mask.")
    return replace(image, array=array.astype(np.min_scalar_type(int(largest)), copy=False), notes=notes)


def _read(path: Path, case: str, components: Sequence[int | None], allow_nonfinite: bool) -> list[Image]:
    """The volumes of a file, in one pass over it."""
    opened = _open(path, case)
    volumes = [_volume(opened, component) for component in components]
    first, last = min(volumes), max(volumes)
    count = opened.raw.payload.size // opened.raw.volumes
    stored, notes = read_payload(opened.raw.payload, first * count, (last + 1 - first) * count, opened.where)
    images = []
    for volume in volumes:
        start = (volume - first) * count
        array = _values(stored[start : start + count], opened)
        finite_notes = _make_finite(array, opened.where, allow_nonfinite)
        images.append(Image(array, opened.geometry, path, (*opened.notes, *notes, *finite_notes)))
    return images


def _where(path: Path, case: str) -> str:
    return f"case {case}: {path}" if case else str(path)


def _open(path: Path, case: str) -> _Opened:
    where = _where(path, case)
    ending = next((ending for ending in _FORMATS if path.name.endswith(ending)), None)
    if ending is None:
        lower = any(path.name.lower().endswith(ending) for ending in _FORMATS)
        remedy = "Rename it to lower case." if lower else "Convert it to .nii.gz."
        raise ImageError(f"{where}: the file's ending is none of {', '.join(_FORMATS)}. {remedy}")
    if not path.is_file():
        raise ImageError(f"{where}: {'is a folder, not a file' if path.is_dir() else 'there is no such file'}.")
    raw = _FORMATS[ending](path, where)
    geometry, notes = _geometry(path, raw, where)
    notes = (*raw.notes, *notes, *raw.explain(geometry), *spacing_notes(geometry.spacing, where))
    return _Opened(raw, geometry, notes, where)


def _geometry(path: Path, raw: RawHeader, where: str) -> tuple[Geometry, tuple[str, ...]]:
    geometry = _itk_geometry(path, raw, where) if raw.itk_reader else raw.own_geometry()
    if geometry is None:
        raise _no_grid(where, "neither its sform nor its qform is one")
    deviation = skew(geometry.direction)
    if deviation <= NOTED_SKEW:
        return geometry, ()
    if deviation > REPAIRABLE_SKEW:
        raise _no_grid(where, f"cosines between them of up to {deviation:.3g}")
    note = f"{where}: the axes are not quite at right angles (cosine {deviation:.2g}); the nearest right-angled grid was used"
    return replace(geometry, direction=nearest_orthonormal(geometry.direction)), (note,)


def _itk_geometry(path: Path, raw: RawHeader, where: str) -> Geometry | None:
    assert raw.itk_reader
    try:
        found = read_information(path, raw.itk_reader)
    except RuntimeError as error:
        own = raw.own_geometry()
        if own is None:
            raise _no_grid(where, str(error).strip().splitlines()[-1].partition(": ")[2]) from error
        return own
    if found.components != 1 or found.size != raw.sizes:
        raise ImageError(
            f"{where}: ITK reads {found.size} voxels of {found.components} numbers where the header says {raw.sizes}; "
            "expected is one plain number a voxel. Split it into single images."
        )
    try:
        return grid(found.size, found.spacing, found.origin, found.direction)
    except GeometryError as error:
        raise _no_grid(where, str(error)) from error


def _no_grid(where: str, reason: str) -> ImageError:
    return ImageError(
        f"{where}: has no grid with axes at right angles ({reason}). Resample it onto one (for instance with 3D Slicer's Resample "
        "Scalar Volume, or nibabel.processing.conform), masks with nearest neighbours, or mend the header."
    )


def _volume(opened: _Opened, component: int | None) -> int:
    volumes = opened.raw.volumes
    if component is None and volumes > 1:
        raise ImageError(
            f"{opened.where}: holds {volumes} volumes (4-D); expected is one. Split it into one file a channel, or name the "
            "channels in the dataset.json so that each takes one volume."
        )
    if not 0 <= (component or 0) < volumes:
        raise ImageError(f"{opened.where}: volume {component} was asked for, but the file holds {volumes}.")
    return component or 0


def _values(stored: np.ndarray, opened: _Opened) -> np.ndarray:
    raw = opened.raw
    array = stored.view(raw.dtype).reshape(opened.geometry.shape)
    if not raw.dtype.isnative:
        array = array.byteswap(inplace=True).view(opened.raw.dtype.newbyteorder("="))
    if not raw.is_scaled:
        return array
    scaled = np.empty(array.shape, opened.dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        for plane, target in zip(array, scaled, strict=True):  # slice by slice: no float64 copy of the whole image
            target[...] = plane.astype(scaled.dtype).astype(np.float64) * raw.slope + raw.intercept
    return scaled


def _make_finite(array: np.ndarray, where: str, allow_nonfinite: bool) -> tuple[str, ...]:
    if array.dtype.kind != "f":
        return ()
    with np.errstate(invalid="ignore"):
        if np.isfinite(array.min()) and np.isfinite(array.max()):  # both are NaN where any voxel is: cheaper than a mask
            return ()
    finite = np.isfinite(array)
    count = array.size - int(np.count_nonzero(finite))
    if count == array.size:
        raise ImageError(f"{where}: no voxel holds a finite number. Export the image again.")
    if not allow_nonfinite:
        raise ImageError(
            f"{where}: {count} of {array.size} voxels are NaN or infinite. Export the image again, or allow them to be replaced by "
            "the image's smallest value."
        )
    smallest = array[finite].min()
    array[~finite] = smallest
    return (f"{where}: {count} voxels that were NaN or infinite were replaced by the smallest value {smallest:g}",)
