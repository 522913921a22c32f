"""Intensities onto the scale that the network sees, one function a kind of `planners.plan.Normalisation`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

EPSILON = 1e-8
"""No deviation and no maximum below this divides."""


def normalise(image: np.ndarray, scheme: Any, mask: np.ndarray | None = None) -> np.ndarray:
    """One channel normalised, in place.

    Args:
        image: float32 (z, y, x), finite; overwritten.
        scheme: a `planners.plan.Normalisation`.
        mask: bool (z, y, x), the hole-filled non-zero region; None where that is everything. Only a masked z-score looks at it.

    Returns:
        `image`. A constant image becomes 0 where its own deviation would divide; the result is always finite.
    """
    SCHEMES[scheme.kind](image, scheme, mask)
    return image


def _ct(image: np.ndarray, scheme: Any, mask: np.ndarray | None) -> None:
    np.clip(image, np.float32(scheme.lower), np.float32(scheme.upper), out=image)
    image -= np.float32(scheme.mean)
    image /= np.float32(max(scheme.std, EPSILON))


def _zscore(image: np.ndarray, scheme: Any, mask: np.ndarray | None) -> None:
    if not scheme.masked or mask is None:
        mean, std = mean_and_std(image)
        image -= np.float32(mean)
        image /= np.float32(max(std, EPSILON))
        return
    values = image[mask]
    if values.size == 0:
        return
    mean, std = mean_and_std(values)
    image[mask] = (values - np.float32(mean)) / np.float32(max(std, EPSILON))


def _pet(image: np.ndarray, scheme: Any, mask: np.ndarray | None) -> None:
    thinned = image.ravel()[:: -(-image.size // QUANTILES_OF)]
    body = thinned[thinned > scheme.body * np.percentile(thinned, 99.5)]
    if body.size == 0:  # nothing has uptake
        body = thinned.copy()
    np.minimum(body, np.float32(np.percentile(body, scheme.clip)), out=body)
    np.minimum(image, body.max(), out=image)
    mean, std = mean_and_std(body)
    image -= np.float32(mean)
    image /= np.float32(max(std, EPSILON * max(1.0, abs(mean))))


def _none(image: np.ndarray, scheme: Any, mask: np.ndarray | None) -> None:
    return


def _rescale(image: np.ndarray, scheme: Any, mask: np.ndarray | None) -> None:
    image -= image.min()
    image /= max(image.max(), np.float32(EPSILON))


def _rgb(image: np.ndarray, scheme: Any, mask: np.ndarray | None) -> None:
    image /= np.float32(255)


SCHEMES: dict[str, Callable[[np.ndarray, Any, np.ndarray | None], None]] = {
    "ct": _ct,
    "zscore": _zscore,
    "pet": _pet,
    "none": _none,
    "rescale_0_1": _rescale,
    "rgb": _rgb,
}


def mean_and_std(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation (of the whole, not of a sample) in float64, without a float64 copy of the array.

    A constant array has a deviation of exactly 0.
    """
    low = values.min()
    if low == values.max():
        return float(low), 0.0
    rows = values.reshape(len(values), -1) if values.ndim > 1 else values.reshape(1, -1)
    pieces = [row[start : start + PIECE] for row in rows for start in range(0, len(row), PIECE)]
    mean = sum(float(piece.sum(dtype=np.float64)) for piece in pieces) / values.size
    squares = 0.0
    for piece in pieces:
        centred = piece.astype(np.float64)
        centred -= mean
        squares += float(np.dot(centred, centred))
    return mean, (squares / values.size) ** 0.5


PIECE = 1 << 20

QUANTILES_OF = 1 << 22
"""Of an image with more voxels every n-th tells the body's percentiles, mean and deviation."""
