"""From how far the centres lie apart to how hard a training sample is changed.

A network meets at a new hospital what none of its own hospitals showed. Each rule asks of one measure how far from the hospitals seen a
further one may lie (`Spread.reach`: two standard deviations between centres), and widens one transform until a training case can be changed
into such a one. A range is only ever widened from nnU-Net's published one, up to a cap; centres alike within noise change nothing.

The probability grows with the range, up to `MOST_OFTEN`, so that as many samples as before fall into the published range.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from planners.centres import Comparison, Spread
from planners.plan import Augmentation, Blur, Brightness, Contrast, Gamma, LowResolution, Noise, Range, Spatial

MOST_OFTEN = 0.5
"""No probability is raised above this: the sample as it was scanned stays the usual one."""

ZOOM_CAP = 0.25
"""A quarter of the resolution: from eight neighbouring voxels in each direction two are left."""

FACTOR_CAP = (0.5, 2.0)
GAMMA_CAP = (0.4, 2.5)
SCALING_CAP = (0.5, 2.0)

NOISE_CAP = 0.5
"""Of the standard deviation that normalisation brings to 1: more would hide what a reader sees too."""

BLUR_CAP = 2.5
"""Voxels."""


def widened(
    augmentation: Augmentation, comparison: Comparison, spacing: Sequence[float], transpose: Sequence[int]
) -> tuple[Augmentation, dict[str, str]]:
    """The augmentation with wider ranges where the centres call for them, and a reason for each, keyed as in the augmentation.

    Args:
        augmentation: with the published ranges; a transform that is None stays away.
        comparison: of the centres; for a 2-D configuration `centres.in_plane`.
        spacing: of the configuration's grid, mm, network order, 2 or 3 entries.
        transpose: network axis -> array axis.
    """
    changes: dict[str, Any] = {}
    reasons: dict[str, str] = {}

    def note(name: str, found: tuple[Any, str] | None) -> None:
        if found is not None:
            changes[name], reasons[name] = found

    axes = tuple(transpose)[3 - len(spacing) :]
    channels = range(len(comparison.channels))

    def each(kind: str) -> list[Spread | None]:
        return [comparison.find(kind, channel) for channel in channels]

    names = comparison.channels
    low = augmentation.low_resolution
    if low:
        kept = axes[1:] if low.skip_first_axis else axes
        seen = resolution(comparison, kept, spacing[len(spacing) - len(kept) :])
        note("low_resolution", low_resolution(low, seen))
    if augmentation.noise:
        note("noise", noise(augmentation.noise, each("noise"), names))
    if augmentation.blur:
        note("blur", blur(augmentation.blur, each("blur"), names, spacing))
    if augmentation.brightness:
        note("brightness", brightness(augmentation.brightness, each("magnitude"), names))
    if augmentation.contrast:
        note("contrast", contrast(augmentation.contrast, each("contrast"), names))
    if augmentation.gamma:
        note("gamma", gamma(augmentation.gamma, each("tone"), names))
    if augmentation.spatial:
        note("spatial", scaling(augmentation.spatial, comparison.find("labelled_size")))
    return augmentation.model_copy(update=changes), {_key(name): why for name, why in reasons.items()}


def _key(name: str) -> str:
    return {"low_resolution": "low_resolution.zoom", "spatial": "spatial.scaling"}.get(name, name)


def resolution(comparison: Comparison, axes: Sequence[int], spacing: Sequence[float]) -> Spread | None:
    """How wide the voxels of the centres are once they lie on the network's grid: the mean over these axes of log(mm).

    Resampling onto the grid takes away what is finer than the grid, so that no voxel counts as smaller than the grid's.

    Args:
        axes: array axes.
        spacing: of the grid along them, mm.
    """
    spreads = [comparison.find(f"spacing.{'zyx'[axis]}") for axis in axes]
    if not spreads or any(spread is None for spread in spreads):
        return None
    along = [(spread, math.log(mm)) for spread, mm in zip(spreads, spacing, strict=True) if spread is not None]
    values = {
        centre: tuple(
            math.fsum(max(spread.values[centre][case], grid) for spread, grid in along) / len(along)
            for case in range(len(along[0][0].values[centre]))
        )
        for centre in along[0][0].values
    }
    return Spread("spacing.x", None, values)


def low_resolution(published: LowResolution, spread: Spread | None) -> tuple[LowResolution, str] | None:
    """The finest centre's cases are coarsened down to what a further centre may have."""
    if spread is None or spread.between == 0:
        return None
    coarsest = spread.overall + spread.reach
    wanted = math.exp(min(spread.centres.values()) - coarsest)
    zoom = max(ZOOM_CAP, _down(wanted))
    if zoom >= published.zoom[0]:
        return None
    probability = _raised(published.probability, math.log(zoom) / math.log(published.zoom[0]))
    why = (
        f"zoom {_range((zoom, published.zoom[1]))}{_capped(wanted < ZOOM_CAP)} (published {_range(published.zoom)}): from centre "
        f"{_told(spread, spread.highest, ' mm')} to centre {_told(spread, spread.lowest, ' mm')} (mean over axes, on the network's grid), "
        f"a further one within {math.exp(coarsest):.3g} mm; probability {probability:g}"
    )
    return published.model_copy(update={"zoom": (zoom, published.zoom[1]), "probability": probability}), why


def noise(published: Noise, spreads: Sequence[Spread | None], names: Sequence[str]) -> tuple[Noise, str] | None:
    """So much noise is added to the cleanest centre's cases that they are as noisy as a further centre's may be (squares add up)."""

    def range_of(spread: Spread) -> tuple[Range, bool]:
        noisiest, cleanest = math.exp(spread.overall + spread.reach), math.exp(min(spread.centres.values()))
        wanted = math.sqrt(max(0.0, noisiest**2 - cleanest**2))
        return (published.std[0], min(NOISE_CAP, max(published.std[1], _up(wanted)))), wanted > NOISE_CAP

    return _each(published, published.std, spreads, names, range_of, lambda found: found[1] / published.std[1], "std")


def blur(published: Blur, spreads: Sequence[Spread | None], names: Sequence[str], spacing: Sequence[float]) -> tuple[Blur, str] | None:
    """The sharpest centre's cases are blurred as far as a further centre's may be (squares add up), in voxels of the network's grid."""
    voxel = math.exp(math.fsum(map(math.log, spacing)) / len(spacing))

    def range_of(spread: Spread) -> tuple[Range, bool]:
        softest, sharpest = math.exp(spread.overall + spread.reach), math.exp(min(spread.centres.values()))
        wanted = math.sqrt(max(0.0, softest**2 - sharpest**2)) / voxel
        return (published.sigma[0], min(BLUR_CAP, max(published.sigma[1], _up(wanted)))), wanted > BLUR_CAP

    return _each(published, published.sigma, spreads, names, range_of, lambda found: found[1] / published.sigma[1], "sigma")


def brightness(published: Brightness, spreads: Sequence[Spread | None], names: Sequence[str]) -> tuple[Brightness, str] | None:
    """A factor multiplies the size of the labelled intensities, sqrt(median^2 + spread^2), by itself."""
    return _factors(published, published.factor, FACTOR_CAP, spreads, names, "factor")


def contrast(published: Contrast, spreads: Sequence[Spread | None], names: Sequence[str]) -> tuple[Contrast, str] | None:
    """A factor on the distance to the patch's mean multiplies, nearly, how far what is labelled stands out from the body by itself."""
    return _factors(published, published.factor, FACTOR_CAP, spreads, names, "factor")


def gamma(published: Gamma, spreads: Sequence[Spread | None], names: Sequence[str]) -> tuple[Gamma, str] | None:
    """A power law moves the labelled median inside the image's range from m to m^g: g is a ratio of log m."""
    found = _factors(published, published.gamma, GAMMA_CAP, spreads, names, "gamma")
    if found is None:
        return None
    changed, why = found
    inverted = _raised(published.inverted_probability, changed.probability / published.probability) if published.probability else 0.0
    return changed.model_copy(update={"inverted_probability": inverted}), f"{why}, inverted {inverted:g}"


def scaling(published: Spatial, spread: Spread | None) -> tuple[Spatial, str] | None:
    """What is labelled is made as large or small as at a further centre."""
    if spread is None or spread.between == 0:
        return None
    found, capped = _symmetric(published.scaling, SCALING_CAP, spread)
    if found == published.scaling:
        return None
    probability = _raised(published.scaling_probability, _log_width(found) / _log_width(published.scaling))
    why = (
        f"scaling {_range(found)}{_capped(capped)} (published {_range(published.scaling)}): what is labelled is large by centre: "
        f"{_told(spread, spread.lowest, ' mm')}, {_told(spread, spread.highest, ' mm')}; probability {probability:g}"
    )
    return published.model_copy(update={"scaling": found, "scaling_probability": probability}), why


def _factors(
    published: Any, common: Range, cap: Range, spreads: Sequence[Spread | None], names: Sequence[str], field: str
) -> tuple[Any, str] | None:
    def share(found: Range) -> float:
        return _log_width(found) / _log_width(common)

    return _each(published, common, spreads, names, lambda spread: _symmetric(common, cap, spread), share, field)


def _each(
    published: Any,
    common: Range,
    spreads: Sequence[Spread | None],
    names: Sequence[str],
    range_of: Callable[[Spread], tuple[Range, bool]],
    share: Callable[[Range], float],
    field: str,
) -> tuple[Any, str] | None:
    """A transform with a range for each channel; None where none is wider than the published one."""
    ranges, told = [], []
    for name, spread in zip(names, spreads, strict=True):
        found, capped = (common, False) if spread is None or spread.between == 0 else range_of(spread)
        ranges.append(found)
        if spread is not None and found != common:
            told.append(f"{name} {field} {_range(found)}{_capped(capped)}: {_told(spread, spread.lowest)}, {_told(spread, spread.highest)}")
    if not told:
        return None
    probability = _raised(published.probability, max(map(share, ranges)))
    why = f"{'; '.join(told)} (published {_range(common)}); probability {probability:g}"
    return published.model_copy(update={"channels": tuple(ranges), "probability": probability}), why


def _symmetric(published: Range, cap: Range, spread: Spread) -> tuple[Range, bool]:
    """The published range widened to exp(-reach) and exp(reach), and whether the cap stopped it."""
    low, high = math.exp(-spread.reach), math.exp(spread.reach)
    return (min(published[0], max(cap[0], _down(low))), max(published[1], min(cap[1], _up(high)))), low < cap[0] or high > cap[1]


def _raised(probability: float, share: float) -> float:
    """The probability times how many times as wide the range is, at most `MOST_OFTEN`; never lowered."""
    return max(probability, min(MOST_OFTEN, round(probability * share, 2)))


def _log_width(bounds: Range) -> float:
    return math.log(bounds[1] / bounds[0])


def _down(value: float) -> float:
    """Two decimals, downwards; what is a hair below a step stays on it."""
    return math.floor(value * 100 + 1e-9) / 100


def _up(value: float) -> float:
    return math.ceil(value * 100 - 1e-9) / 100


def _range(bounds: Range) -> str:
    return f"{bounds[0]:g}-{bounds[1]:g}"


def _capped(stopped: bool) -> str:
    return ", the cap" if stopped else ""


def _told(spread: Spread, centre: str, unit: str = "") -> str:
    """A centre's value as the rules take it, drawn to the overall one; and the mean of its own cases where that differs in three digits."""
    taken, own = (f"{spread.told(values[centre]):.3g}{unit}" for values in (spread.centres, spread.means))
    return f"{centre} at {taken}" + (f" (mean of its {spread.counts[centre]} cases {own})" if own != taken else "")
