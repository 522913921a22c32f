"""What is measured of one case beside its intensities: how noisy and how sharp a channel is, and how CT and PET lie on each other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class ChannelMeasures:
    """Noise and sharpness of one channel of one case, on its own grid.

    Attributes:
        noise: standard deviation of the noise in tissue, in the image's own units; None where the image is too small to tell.
        blur: standard deviation (mm) of the Gaussian that would have blurred ideal edges as much, array order (z, y, x); None along an
            axis of fewer than 3 voxels, and where there are no edges that stand out of the noise.
    """

    noise: float | None
    blur: tuple[float | None, float | None, float | None]

    def __post_init__(self) -> None:
        numbers = [value for value in (self.noise, *self.blur) if value is not None]
        if len(self.blur) != 3 or not all(math.isfinite(value) and value >= 0 for value in numbers):
            raise ValueError(f"noise and blur are finite and not negative, blur has 3 entries; found {self.noise} and {self.blur}")

    @staticmethod
    def from_dict(document: Any) -> ChannelMeasures | None:
        """The record from plain JSON values; None from None.

        Raises:
            ValueError: an unknown or missing key, or a value that does not fit.
        """
        if document is None:
            return None
        known = {field.name for field in fields(ChannelMeasures)}
        if not isinstance(document, Mapping) or set(document) != known:
            found = sorted(document) if isinstance(document, Mapping) else document
            raise ValueError(f"measures have the keys {sorted(known)}, found {found}")
        z, y, x = (_number(value) for value in document["blur"])
        return ChannelMeasures(_number(document["noise"]), (z, y, x))


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


@dataclass(frozen=True)
class Alignment:
    """How the body in PET lies on the body in CT.

    Attributes:
        shift: how far (mm) along array axes z, y and x the PET lies from where it would cover the CT best.
        overlap: Dice coefficient of both bodies as they lie.
    """

    shift: tuple[float, float, float]
    overlap: float

    def __post_init__(self) -> None:
        if len(self.shift) != 3 or not all(map(math.isfinite, self.shift)) or not 0 <= self.overlap <= 1:
            raise ValueError(f"a shift is three finite numbers and an overlap lies in 0 to 1; found {self.shift} and {self.overlap}")

    @staticmethod
    def from_dict(document: Any) -> Alignment | None:
        """The record from plain JSON values; None from None.

        Raises:
            ValueError: an unknown or missing key, or a value that does not fit.
        """
        if document is None:
            return None
        if not isinstance(document, Mapping) or set(document) != {"shift", "overlap"}:
            found = sorted(document) if isinstance(document, Mapping) else document
            raise ValueError(f"an alignment has the keys ['overlap', 'shift'], found {found}")
        z, y, x = (float(value) for value in document["shift"])
        return Alignment((z, y, x), float(document["overlap"]))
