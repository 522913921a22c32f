"""The values of one channel: a sketch of one case, and the mixture of many cases in which every case weighs the same."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

_TAIL = (0, 1, 2, 5, 10, 15, 20, 30, 40, 50, 60, 80, 100, 125, 150, 200, 250, 300, 400, 500)
_MIDDLE = tuple(range(600, 9500, 100))
LEVELS: tuple[float, ...] = tuple(level / 10000 for level in (*_TAIL, *_MIDDLE, *(10000 - level for level in reversed(_TAIL))))
"""The quantile levels of a sketch: 0 and 1, and denser towards the tails; 0.005 and 0.995 are among them."""


@dataclass(frozen=True)
class IntensitySketch:
    """The values of one channel of one case, reduced. `quantiles` stand at `LEVELS`."""

    count: int
    mean: float
    std: float
    minimum: float
    maximum: float
    quantiles: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.count < 1 or len(self.quantiles) != len(LEVELS):
            raise ValueError(f"a sketch needs at least one value and {len(LEVELS)} quantiles, found {self.count} and {len(self.quantiles)}")
        if not all(math.isfinite(value) for value in (self.mean, self.std, self.minimum, self.maximum, *self.quantiles)):
            raise ValueError("a sketch holds finite numbers only")
        if any(a > b for a, b in zip(self.quantiles, self.quantiles[1:], strict=False)):
            raise ValueError("the quantiles of a sketch ascend")


@dataclass(frozen=True)
class IntensityStatistics:
    """One channel over many cases, every case weighing the same."""

    mean: float
    median: float
    std: float
    minimum: float
    maximum: float
    percentile_00_5: float
    percentile_99_5: float


def sketch(values: npt.ArrayLike) -> IntensitySketch:
    """The sketch of some values, exact at each level (linear between order statistics, as numpy.quantile).

    Args:
        values: numbers of any shape, at least one.

    Raises:
        ValueError: no values, or a value that is not finite.
    """
    flat = np.sort(np.asarray(values).ravel())
    if flat.size == 0:
        raise ValueError("no values to sketch: a channel without voxels has no sketch (None)")
    if flat.dtype.kind not in "biuf":
        raise ValueError(f"values must be real numbers, found {flat.dtype}")
    # Sorting moves NaN and +inf to the end and -inf to the start.
    if not (np.isfinite(flat[0]) and np.isfinite(flat[-1])):
        raise ValueError("values must be finite, found NaN or infinity")
    position = np.asarray(LEVELS) * (flat.size - 1)
    below = np.floor(position).astype(np.int64)
    above = np.minimum(below + 1, flat.size - 1)
    low, high = flat[below].astype(np.float64), flat[above].astype(np.float64)
    quantiles = np.maximum.accumulate(low + (high - low) * (position - below))
    mean = float(flat.mean(dtype=np.float64))
    # numpy keeps the precision of float32 values unless told; the variance of CT at -1000 HU would lose digits.
    std = float(flat.std(dtype=np.float64))
    return IntensitySketch(flat.size, mean, std, float(flat[0]), float(flat[-1]), tuple(quantiles.tolist()))


def pool(sketches: Iterable[IntensitySketch | None]) -> IntensityStatistics | None:
    """The statistics of the mixture in which every case weighs the same; None where there is no sketch at all.

    Quantiles come from inverting the average of the cases' distribution functions, each linear between its sketched quantiles. The
    result does not depend on the order. Cases without values (None) contribute nothing.
    """
    present = sorted((s for s in sketches if s is not None), key=lambda s: (s.quantiles, s.count, s.mean, s.std))
    if not present:
        return None
    mean = math.fsum(s.mean for s in present) / len(present)
    variance = math.fsum(s.std**2 + (s.mean - mean) ** 2 for s in present) / len(present)
    low, middle, high = mixture_quantiles(present, (0.005, 0.5, 0.995))
    return IntensityStatistics(
        mean=mean,
        median=middle,
        std=math.sqrt(variance),
        minimum=min(s.minimum for s in present),
        maximum=max(s.maximum for s in present),
        percentile_00_5=low,
        percentile_99_5=high,
    )


def mixture_quantiles(sketches: Sequence[IntensitySketch], levels: Sequence[float]) -> tuple[float, ...]:
    """The quantiles of the equal mixture of several sketches: the smallest value at which the averaged distribution reaches each level."""
    table = np.array([s.quantiles for s in sketches])
    knots = np.unique(table)
    return tuple(_invert(table, knots, level) for level in levels)


def _invert(table: npt.NDArray[np.float64], knots: npt.NDArray[np.float64], level: float) -> float:
    """Where the averaged distribution reaches `level`: it is linear between `knots`, the values at which some case bends or jumps.

    Args:
        table: one case's quantiles a row.
        knots: all values of the table, ascending.
    """
    low, high = 0, len(knots) - 1
    while low < high:
        middle = (low + high) // 2
        if _mean_cdf(table, knots[middle], side="right") >= level:
            high = middle
        else:
            low = middle + 1
    value = float(knots[high])
    if high == 0:
        return value
    below = float(knots[high - 1])
    start, end = _mean_cdf(table, below, side="right"), _mean_cdf(table, value, side="left")
    # The level lies inside the jump at this knot, or on the slope before it.
    return value if end <= max(level, start) else min(below + (value - below) * (level - start) / (end - start), value)


def _mean_cdf(table: npt.NDArray[np.float64], value: float, side: Literal["left", "right"]) -> float:
    """The average over rows of the share of values below `value` ("left") or not above it ("right")."""
    levels = np.asarray(LEVELS)
    last = len(levels) - 1
    reached = (table < value if side == "left" else table <= value).sum(axis=1)
    index = np.clip(reached - 1, 0, last - 1)
    rows = np.arange(len(table))
    left, right = table[rows, index], table[rows, index + 1]
    width = np.where(right > left, right - left, 1.0)
    inside = levels[index] + (levels[index + 1] - levels[index]) * (value - left) / width
    share = np.where(reached == 0, 0.0, np.where(reached > last, 1.0, inside))
    return math.fsum(share) / len(table)
