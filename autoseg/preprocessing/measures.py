"""How noisy and how sharp an image is, from its voxels alone: what tells scanners and protocols apart.

Both come from differences of near voxels on the image's own grid. Of a large image some planes along axis 0 are measured, evenly spread,
each with its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from planners.measures import ChannelMeasures

MEASURED = 1 << 22
"""About so many voxels are measured of an image that has more."""

MAD_TO_STD = 1.482602218505602
"""The standard deviation of a normal distribution over the median of its absolute values."""

FEWEST = 32
"""From fewer differences nothing is concluded."""

EDGES_ABOVE_NOISE = 0.1
"""Edges must raise the mean squared difference at the longest lag by this share of the noise's own, or their width is not told."""

LAGS = (1, 2, 3, 4)
"""Voxels between those that are compared along an axis."""

WIDTHS = np.geomspace(0.1, 6.0, 247)
"""Blurs that are tried, in voxels, in steps of 1.7 %: below, an edge is ideal; beyond, neighbours differ in ever the same proportion."""


def measure(image: np.ndarray, spacing: Sequence[float], inside: np.ndarray | None = None) -> ChannelMeasures:
    """Noise and blur of one channel.

    Args:
        image: real numbers (z, y, x), finite; any strides.
        spacing: mm, (z, y, x).
        inside: bool (z, y, x), the non-zero region as `crop.nonzero_mask` has it; None where that is everything.

    Source: noise after Immerkaer, "Fast noise variance estimation", Computer Vision and Image Understanding 1996, with the median in place
    of the mean; blur from the variogram of an edge with a Gaussian profile.
    """
    level = _noise(image, inside)
    widths = [_blur(image, inside, axis) for axis in range(3)]
    z, y, x = (None if width is None else width * float(mm) for width, mm in zip(widths, spacing, strict=True))
    return ChannelMeasures(level, (z, y, x))


def _noise(image: np.ndarray, inside: np.ndarray | None) -> float | None:
    """Standard deviation of white noise: a second difference along every axis leaves of the image little but noise.

    Voxels above the mean of the region count, that is tissue and not air, if their neighbours are in the region too; those among nothing
    but equal values (padding) do not. Where all are equal the noise is 0. None where fewer than `FEWEST` voxels count.
    """
    axes = [axis for axis in range(3) if image.shape[axis] >= 3]
    if not axes or image.size == 0:
        return None
    threshold = _mean(image, inside)
    parts, flat = [], 0
    for block, region in _blocks(image, inside, 2 if 0 in axes else 0):
        centre = tuple(slice(1, -1) if axis in axes else slice(None) for axis in range(3))
        residual = block
        for axis in axes:
            residual = np.diff(residual, 2, axis=axis)
        counted = block[centre] > threshold
        if region is not None:
            for axis in axes:
                region = np.logical_and.reduce([_along(region, axis, slice(i, region.shape[axis] - 2 + i)) for i in range(3)])
            counted &= region
        values = np.abs(residual[counted])
        kept = values[values > 0]
        # An exact 0 is a flat surrounding, or coarse integers: told apart by how many there are.
        flat += values.size - kept.size
        parts.append(values if kept.size >= values.size // 2 else kept)
    found = np.concatenate(parts) if parts else np.empty(0)
    if found.size < FEWEST:
        return 0.0 if flat >= FEWEST or image.min() == image.max() else None
    return float(np.median(found)) * MAD_TO_STD / 6.0 ** (len(axes) / 2)


def _blur(image: np.ndarray, inside: np.ndarray | None, axis: int) -> float | None:
    """Standard deviation, in voxels along `axis`, of the Gaussian that blurred the image's edges; None where that cannot be told."""
    reach = LAGS[-1]
    if image.shape[axis] <= reach:
        return None
    sums, count = np.zeros(len(LAGS)), 0
    for block, region in _blocks(image, inside, reach if axis == 0 else 0):
        # Every stretch of 5 voxels tells of all lags, from both of its ends: the same places for each lag, and no end before the other.
        places = [_along(block, axis, _shifted(by, reach)) for by in range(reach + 1)]
        whole = None
        if region is not None:
            whole = np.logical_and.reduce([_along(region, axis, _shifted(by, reach)) for by in range(reach + 1)])
        count += places[0].size if whole is None else int(whole.sum())
        for place, lag in enumerate(LAGS):
            for step in (places[lag] - places[0], places[reach] - places[reach - lag]):
                sums[place] += float(np.square(step if whole is None else step[whole], dtype=np.float64).sum())
    return _edge_width(sums / (2 * count)) if count >= FEWEST else None


def _edge_width(squared: np.ndarray) -> float | None:
    """The blur (voxels) whose edges, together with white noise, explain mean squared differences at `LAGS` best.

    They are fitted by edges x `EDGES[width]` + noise, neither negative, errors relative to the values, for every width. Noise adds the same
    at every lag; edges add in proportion to the lag where they are ideal, and to its square where all is smooth.
    """
    if squared[0] <= 1e-12 * squared[-1]:
        return None
    squared = squared / squared[-1]
    profiles = EDGES / squared
    ones = 1 / squared
    pp, po, oo = (profiles**2).sum(1), profiles @ ones, float(ones @ ones)
    p1, o1 = profiles.sum(1), float(ones.sum())
    determinant = pp * oo - po**2
    edges, noise = (p1 * oo - o1 * po) / determinant, (o1 * pp - p1 * po) / determinant
    edges = np.where(noise < 0, p1 / pp, edges)
    noise = np.maximum(noise, 0)
    error = ((profiles * edges[:, None] + noise[:, None] * ones - 1) ** 2).sum(1)
    best = int(np.argmin(np.where(edges > 0, error, np.inf)))
    if not edges[best] * EDGES[best, -1] > EDGES_ABOVE_NOISE * noise[best]:
        return None
    return float(WIDTHS[best])


def _profiles() -> np.ndarray:
    """Mean squared difference at each lag of an edge with a Gaussian profile, a row a width, up to a factor.

    It is h erf(h / 2w) - 2w / sqrt(pi) (1 - exp(-h^2 / 4w^2)), the integral of the squared difference of two shifted profiles.
    """
    from math import erf, expm1, pi, sqrt

    return np.array([[h * erf(h / (2 * w)) + 2 * w / sqrt(pi) * expm1(-(h**2) / (4 * w**2)) for h in LAGS] for w in WIDTHS.tolist()])


EDGES = _profiles()


def _shifted(by: int, reach: int) -> slice:
    """All but the last `reach` places of an axis, moved on by some."""
    return slice(by, by - reach or None)


def _along(array: np.ndarray, axis: int, part: slice) -> np.ndarray:
    return array[tuple(part if other == axis else slice(None) for other in range(array.ndim))]


def _blocks(image: np.ndarray, inside: np.ndarray | None, reach: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Float32 slabs of `reach` + 1 planes of the image and of the region, evenly spread; the whole of it where that is little."""
    depth, plane = image.shape[0], max(1, int(np.prod(image.shape[1:])))
    count = max(1, MEASURED // plane)
    if count >= depth - reach:
        yield image.astype(np.float32, copy=False), inside
        return
    for start in np.unique(np.linspace(0, depth - 1 - reach, count).round().astype(int)).tolist():
        part = slice(start, start + reach + 1)
        yield np.ascontiguousarray(image[part], dtype=np.float32), None if inside is None else inside[part]


def _mean(image: np.ndarray, inside: np.ndarray | None) -> float:
    total, count = 0.0, 0
    for block, region in _blocks(image, inside, 0):
        values = block if region is None else block[region]
        total += float(values.sum(dtype=np.float64))
        count += values.size
    return total / count if count else 0.0
