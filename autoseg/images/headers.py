"""What every format's raw header is turned into before SimpleITK sees the file, with the checks that SimpleITK does not make."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from autoseg.errors import ImageError
from autoseg.images.geometry import Geometry
from autoseg.images.payload import Payload

LARGEST_SPACING = 100.0
SMALLEST_SPACING = 0.01


@dataclass(frozen=True)
class RawHeader:
    """A file's own header, checked.

    Attributes:
        payload: where the voxels are.
        dtype: of a stored voxel, with its byte order.
        sizes: voxels, (x, y), (x, y, z) or (x, y, z, volume).
        itk_reader: ITK's class that reads the grid from this file; None where ITK cannot.
        slope, intercept: value = stored * slope + intercept; (1, 0) where nothing is scaled.
        notes: what is odd and no error.
        own_geometry: the grid by our own reading of the header, for what ITK refuses; None where the header has no grid that can be used.
        explain: notes on how a grid, which ITK took from the header, relates to what else the header says.
    """

    payload: Payload
    dtype: np.dtype
    sizes: tuple[int, ...]
    itk_reader: str | None
    slope: float = 1.0
    intercept: float = 0.0
    notes: tuple[str, ...] = ()
    own_geometry: Callable[[], Geometry | None] = lambda: None
    explain: Callable[[Geometry], tuple[str, ...]] = lambda geometry: ()

    @property
    def volumes(self) -> int:
        """How many volumes a 4-D file holds; 1 otherwise."""
        return self.sizes[3] if len(self.sizes) > 3 else 1

    @property
    def is_scaled(self) -> bool:
        """Whether stored values are not the image's values."""
        return (self.slope, self.intercept) != (1.0, 0.0)


def check_sizes(sizes: Sequence[int], where: str) -> tuple[int, ...]:
    """The sizes (x, y, z, ...) without axes of size 1 beyond the third.

    Raises:
        ImageError: a size is not positive, or there are fewer than two or more than four axes left.
    """
    if any(size < 1 for size in sizes):
        raise ImageError(f"{where}: the header says {'x'.join(map(str, sizes))} voxels; every size must be at least 1. Export it again.")
    kept = list(sizes)
    while len(kept) > 3 and kept[-1] == 1:
        kept.pop()
    if not 2 <= len(kept) <= 4:
        raise ImageError(
            f"{where}: the image has {len(kept)} axes ({'x'.join(map(str, sizes))}); expected are 2 or 3 (or 4, the last "
            "one counting the channels). "
            "Split it into single images."
        )
    return tuple(kept)


def check_spacing(spacing: Sequence[float], where: str, field: str) -> None:
    """Returns when a header's spacings are positive and finite.

    Raises:
        ImageError: one is not; `field` names it.
    """
    if any(not (math.isfinite(value) and value > 0) for value in spacing):
        numbers = ", ".join(f"{value:g}" for value in spacing)
        raise ImageError(
            f"{where}: {field} in the header is ({numbers}); spacings must be positive numbers in mm. Write the true spacing into "
            "the header (for instance with SimpleITK's SetSpacing) or export the file again."
        )


def spacing_notes(spacing: Sequence[float], where: str) -> tuple[str, ...]:
    """A note where a spacing (mm) is so large or small that its unit may be wrong."""
    odd = [value for value in spacing if value > LARGEST_SPACING or value < SMALLEST_SPACING]
    if not odd:
        return ()
    return (f"{where}: a spacing of {odd[0]:g} mm is unusual (expected {SMALLEST_SPACING:g} to {LARGEST_SPACING:g}): is the unit wrong?",)


def voxel_bytes(sizes: Sequence[int], dtype: np.dtype) -> tuple[int, int]:
    """Bytes of the whole image and of one slice; Python's integers, so that no header can overflow them."""
    return math.prod(sizes) * dtype.itemsize, math.prod(sizes[:2]) * dtype.itemsize
