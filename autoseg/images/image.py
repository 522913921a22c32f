"""What reading an image gives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg.images.geometry import Geometry


@dataclass(frozen=True, eq=False)
class Image:
    """One channel or one mask.

    Attributes:
        array: (z, y, x), in its stored dtype and native byte order (float32 or float64 where the header scales values).
        geometry: its grid.
        path: where it was read from; None for what came from memory.
        notes: what was odd in the file and is no error, in words for the user.
    """

    array: np.ndarray
    geometry: Geometry
    path: Path | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Header:
    """What a file says about its image, found without reading the voxels.

    Attributes:
        path: the file.
        geometry: its grid; that of one volume for a 4-D file.
        dtype: of the array that `read_image` gives, as a numpy name.
        components: volumes in the file; 1 but for a 4-D file.
        notes: what is odd in the header and is no error.
    """

    path: Path
    geometry: Geometry
    dtype: str
    components: int
    notes: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels, (z, y, x)."""
        return self.geometry.shape

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres, (z, y, x)."""
        return self.geometry.spacing
