"""A case's channels, from files, arrays or SimpleITK images, checked for what prediction needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autoseg.dataset.case import Case
from autoseg.errors import ImageError
from autoseg.images import Geometry, Image, check_same_grid, from_sitk, read_channels, read_image
from planners.plan import Plan

if TYPE_CHECKING:
    import SimpleITK

    ImageLike = str | Path | Image | SimpleITK.Image


@dataclass(frozen=True)
class CaseImages:
    """All channels of a case on one grid, finite.

    Attributes:
        images: one a channel, in the plan's order.
        notes: what was found or replaced.
        is_blank: every channel is one constant value: there is nothing to see.
    """

    images: tuple[Image, ...]
    notes: tuple[str, ...]
    is_blank: bool


def read_case_images(case: Case, plan: Plan, *, replace_nonfinite: bool = False) -> CaseImages:
    """The channels of a case, read from its files.

    Args:
        replace_nonfinite: put the channel's smallest finite value where a voxel is NaN or infinite, and note how many; otherwise such a
            voxel is an error.

    Raises:
        ImageError: a file is missing, broken or not finite, or the number of channels is not the plan's.
        GeometryError: the channels do not share a grid.
    """
    images = read_channels(case.sources, case=case.name, allow_nonfinite=replace_nonfinite)
    return check_channels(images, plan, case.name, replace_nonfinite=replace_nonfinite)


def take_images(
    images: Any, plan: Plan, *, spacing: Sequence[float] | None = None, case: str = "image", replace_nonfinite: bool = False
) -> list[Image]:
    """Images from what a caller holds in memory or names by path, not yet checked.

    Args:
        images: a float array (channels, z, y, x), or (z, y, x) for one channel, with `spacing`; or one image, or a sequence with one image
            a channel, each a path, a SimpleITK image or an `Image`.
        spacing: mm, (z, y, x), for arrays only.
        replace_nonfinite: as in `read_case_images`, for what is read from files here.

    Raises:
        ImageError: no image at all; an array without spacing, or of another number of axes; a file that is broken or not finite.
    """
    if isinstance(images, np.ndarray | list | tuple) and len(images) == 0:
        raise _other_number(case, plan, 0)
    if isinstance(images, np.ndarray):
        return _from_array(images, spacing, case)
    if spacing is not None:
        raise ImageError(f"case {case}: spacing goes with an array; files and SimpleITK images have their own")
    several = list(images) if isinstance(images, list | tuple) else [images]
    if len(several) == 1 and isinstance(several[0], str | Path) and len(plan.channels) > 1:
        return read_channels(
            [(Path(several[0]), index) for index in range(len(plan.channels))], case=case, allow_nonfinite=replace_nonfinite
        )
    return [_as_image(one, case, replace_nonfinite) for one in several]


def check_channels(images: Sequence[Image], plan: Plan, case: str, *, replace_nonfinite: bool = False) -> CaseImages:
    """The images as a case that can be predicted; raises as `read_case_images`."""
    if len(images) != len(plan.channels):
        raise _other_number(case, plan, len(images))
    notes = []
    for image, channel in zip(images[1:], plan.channels[1:], strict=True):
        names = (plan.channels[0], channel)
        note = check_same_grid(images[0].geometry, image.geometry, tolerance=plan.geometry_tolerance, case=case, names=names)
        notes += [note] if note else []
    finite = []
    for image, channel in zip(images, plan.channels, strict=True):
        image, note = _finite(image, channel, case, replace_nonfinite)
        notes += [*image.notes, *note]
        finite.append(image)
    is_blank = all(_is_constant(image.array) for image in finite)
    if is_blank:
        notes.append("every channel holds one constant value: there is nothing to segment, the mask is empty")
    return CaseImages(tuple(finite), tuple(dict.fromkeys(notes)), is_blank)


def _other_number(case: str, plan: Plan, found: int) -> ImageError:
    return ImageError(f"case {case}: the model needs {len(plan.channels)} channels ({', '.join(plan.channels)}), found {found}")


def _from_array(array: np.ndarray, spacing: Sequence[float] | None, case: str) -> list[Image]:
    if array.ndim == 3:
        array = array[None]
    if array.ndim != 4:
        raise ImageError(f"case {case}: an array must be (channels, z, y, x) or (z, y, x), found the shape {array.shape}")
    if spacing is None or len(spacing) != 3 or not all(0 < value < float("inf") for value in spacing):
        raise ImageError(f"case {case}: an array needs its spacing: three positive numbers, mm, (z, y, x); found {spacing}")
    z, y, x = (float(value) for value in spacing)
    geometry = Geometry(tuple(array.shape[1:]), (z, y, x))
    return [Image(channel, geometry) for channel in array]


def _as_image(value: ImageLike, case: str, replace_nonfinite: bool) -> Image:
    if isinstance(value, Image):
        return value
    if isinstance(value, str | Path):
        return read_image(value, case=case, allow_nonfinite=replace_nonfinite)
    return from_sitk(value)


def _finite(image: Image, channel: str, case: str, replace_nonfinite: bool) -> tuple[Image, list[str]]:
    array = image.array
    if not np.issubdtype(array.dtype, np.floating):
        return image, []
    good = np.isfinite(array)
    bad = int(good.size - np.count_nonzero(good))
    if not bad:
        return image, []
    if not replace_nonfinite:
        raise ImageError(
            f"case {case}: channel {channel} ({image.path or 'array'}) has {bad} voxels that are NaN or infinite. Mend the image, or allow "
            "them to be replaced by the channel's smallest value with --replace-nonfinite"
        )
    filler = array[good].min() if bad < array.size else array.dtype.type(0)
    return replace(image, array=np.where(good, array, filler)), [f"channel {channel}: {bad} NaN or infinite voxels replaced by {filler:g}"]


def _is_constant(array: np.ndarray) -> bool:
    return bool(array.min() == array.max())
