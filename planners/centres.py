"""How far the centres of a dataset lie apart, measure by measure: what is between centres, and what is between the cases of one.

Each measure is one number a case, the logarithm where ratios count. It is taken as overall + the centre's part + the case's own; the parts'
standard deviations, `between` and `within`, are estimated by the analysis of variance. They answer what augmentation asks: how far from a
centre that was seen may the next one lie?
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from planners.fingerprint import CaseFingerprint, Fingerprint
from planners.intensity import LEVELS, IntensitySketch
from planners.normalisation import Scale, scale_of
from planners.plan import Normalisation

SIGNIFICANCE = 0.01
"""Centres count as alike unless equal ones would differ so much (F test) in fewer than this share of datasets."""

PRIOR_CASES = 1.0
"""A centre's mean is drawn to the overall one as if at least so many further cases of it lay there: two cases count for two thirds."""

REACH = 2.0
"""A centre that was not seen lies within so many standard deviations of the overall mean, with a chance of about 95 %."""

TAIL = 2.576
"""The 0.5 and 99.5 percentiles of an even image lie so many standard deviations of its noise apart from it: not counted as its range."""

CONTRAST_FLOOR = 0.1
"""A smaller distance of the medians, after normalisation, counts as this one: near 0 its logarithm would outweigh all else."""

NOISE_FLOOR = 1e-3
"""Noise below this, after normalisation, is no noise to a network; it also keeps logarithms finite."""


@dataclass(frozen=True)
class Kind:
    """What a measure is. `unit`: of `Spread.told`; `ratio`: the values are logarithms."""

    title: str
    unit: str
    ratio: bool


KINDS: dict[str, Kind] = {
    "spacing.z": Kind("spacing along z", "mm", True),
    "spacing.y": Kind("spacing along y", "mm", True),
    "spacing.x": Kind("spacing along x", "mm", True),
    "field_of_view.z": Kind("field of view along z", "mm", True),
    "field_of_view.y": Kind("field of view along y", "mm", True),
    "field_of_view.x": Kind("field of view along x", "mm", True),
    "labelled_size": Kind("size of what is labelled", "mm, cube root of the volume", True),
    "noise": Kind("noise", "after normalisation", True),
    "blur": Kind("blur", "mm", True),
    "location": Kind("labelled intensity: median", "after normalisation", False),
    "scale": Kind("labelled intensity: spread", "after normalisation", True),
    "contrast": Kind("labelled median from the body's", "after normalisation", True),
    "magnitude": Kind("labelled intensity: magnitude", "after normalisation", True),
    "tone": Kind("labelled median in the range", "as the exponent of a power law", True),
}


@dataclass(frozen=True)
class Spread:
    """One measure over the centres.

    Attributes:
        kind: a key of `KINDS`.
        channel: its index, None for what concerns all.
        values: centre -> one value a case; logarithms where the kind is a ratio.
    """

    kind: str
    channel: int | None
    values: Mapping[str, tuple[float, ...]]

    @cached_property
    def counts(self) -> dict[str, int]:
        """Cases of each centre."""
        return {centre: len(values) for centre, values in self.values.items()}

    @cached_property
    def means(self) -> dict[str, float]:
        """Mean of each centre's cases."""
        return {centre: math.fsum(values) / len(values) for centre, values in self.values.items()}

    @cached_property
    def within(self) -> float:
        """Standard deviation of the cases of one centre, pooled."""
        return math.sqrt(self._within_square())

    @cached_property
    def chance(self) -> float:
        """How likely equal centres would lie so far apart or farther (F test; 1 where they lie on one point)."""
        between, within = self._between_square(), self._within_square()
        if between <= 1e-18 * max(1.0, *(abs(mean) for mean in self.means.values())) ** 2:
            return 1.0
        if within == 0:
            return 0.0
        from scipy.special import fdtrc  # type: ignore[import-untyped]

        return float(fdtrc(len(self.values) - 1, self._freedom, between / within))

    @cached_property
    def between(self) -> float:
        """Standard deviation of the centres' parts; 0 where the centres are alike within noise.

        Source: the estimator from mean squares of an unbalanced one-way analysis of variance (Searle, "Linear Models", 1971).
        """
        if self.chance >= SIGNIFICANCE:
            return 0.0
        counts = self.counts.values()
        total = sum(counts)
        weight = (total - sum(n * n for n in counts) / total) / (len(counts) - 1)
        return math.sqrt(max(0.0, self._between_square() - self._within_square()) / weight)

    @cached_property
    def overall(self) -> float:
        """The mean of the centres, each weighted by how well it is known."""
        if self.between == 0:
            return _mean([value for values in self.values.values() for value in values])
        weights = {centre: 1 / (self.between**2 + self.within**2 / n) for centre, n in self.counts.items()}
        return math.fsum(weights[centre] * mean for centre, mean in self.means.items()) / math.fsum(weights.values())

    @cached_property
    def centres(self) -> dict[str, float]:
        """Each centre's value, drawn towards the overall mean by n / (n + max((within / between)^2, `PRIOR_CASES`)), n being its cases."""
        if self.between == 0:
            return dict.fromkeys(self.values, self.overall)
        prior = max((self.within / self.between) ** 2, PRIOR_CASES)
        return {c: self.overall + n / (n + prior) * (self.means[c] - self.overall) for c, n in self.counts.items()}

    @property
    def reach(self) -> float:
        """How far from the overall mean a centre may lie that was not seen."""
        return REACH * self.between

    @property
    def lowest(self) -> str:
        """The centre with the smallest value, as `centres` has it; of equal ones the one whose own cases have the smallest mean."""
        return min(self.means, key=self._rank)

    @property
    def highest(self) -> str:
        """The centre with the largest value."""
        return max(self.means, key=self._rank)

    def told(self, value: float) -> float:
        """A value in the kind's unit."""
        return math.exp(value) if KINDS[self.kind].ratio else value

    def _rank(self, centre: str) -> tuple[float, float, str]:
        return self.centres[centre], self.means[centre], centre

    @property
    def _freedom(self) -> int:
        return sum(self.counts.values()) - len(self.values)

    def _within_square(self) -> float:
        means = self.means
        squares = math.fsum((value - means[centre]) ** 2 for centre, values in self.values.items() for value in values)
        # Equal logarithms may differ in their last bit, and their mean does.
        size = max(1.0, *(abs(mean) for mean in self.means.values()))
        return 0.0 if squares <= 1e-24 * size**2 else squares / self._freedom

    def _between_square(self) -> float:
        grand = _mean([value for values in self.values.values() for value in values])
        return math.fsum(n * (self.means[centre] - grand) ** 2 for centre, n in self.counts.items()) / (len(self.values) - 1)


@dataclass(frozen=True)
class Comparison:
    """The centres of a dataset beside each other.

    Attributes:
        channels: their names.
        counts: centre -> its cases; cases without a centre stand under "".
        spreads: those measures that two centres or more tell; none where there is nothing to compare.
        why_not: why there is nothing; "" where there is.
    """

    channels: tuple[str, ...]
    counts: Mapping[str, int]
    spreads: tuple[Spread, ...]
    why_not: str = ""

    def find(self, kind: str, channel: int | None = None) -> Spread | None:
        """The spread of one measure; None where it could not be told."""
        return next((spread for spread in self.spreads if (spread.kind, spread.channel) == (kind, channel)), None)


def compare(fingerprint: Fingerprint, normalisation: Sequence[Normalisation]) -> Comparison:
    """The centres of a dataset beside each other, intensities and noise on the scale that the network sees.

    Args:
        fingerprint: of the training cases. Those without a centre are left out.
        normalisation: one a channel, as planned.
    """
    counts = _counts(fingerprint)
    if why_not := incomparable(fingerprint):
        return Comparison(fingerprint.channels, counts, (), why_not)
    found = [spread_of(fingerprint, kind, None, measure) for kind, measure in _of_cases().items()]
    for channel, scheme in enumerate(normalisation):
        axes = _measured_axes(fingerprint, channel)
        found += [spread_of(fingerprint, kind, channel, measure) for kind, measure in _of_channels(channel, scheme, axes).items()]
    return Comparison(fingerprint.channels, counts, tuple(spread for spread in found if spread is not None))


def in_plane(comparison: Comparison, fingerprint: Fingerprint, axes: Sequence[int]) -> Comparison:
    """The comparison for a network that sees slices: how sharp an image is counts along these array axes alone.

    Args:
        comparison: of the fingerprint.
    """
    if comparison.why_not:
        return comparison
    spreads = [spread for spread in comparison.spreads if spread.kind != "blur"]
    for channel in range(len(comparison.channels)):
        measured = tuple(axis for axis in _measured_axes(fingerprint, channel) if axis in axes)
        found = spread_of(fingerprint, "blur", channel, _blur_along(channel, measured))
        spreads += [found] if found else []
    return replace(comparison, spreads=tuple(spreads))


def incomparable(fingerprint: Fingerprint) -> str:
    """Why the centres of a dataset cannot be compared; "" where they can."""
    known = {centre: n for centre, n in _counts(fingerprint).items() if centre}
    if not known:
        return "no case has a centre (cases.csv)"
    if len(known) == 1:
        return f"all cases are of one centre, {next(iter(known))}"
    return "" if max(known.values()) > 1 else f"none of the {len(known)} centres has two cases that could be compared"


def _counts(fingerprint: Fingerprint) -> dict[str, int]:
    """Centre -> its cases, in alphabetical order; "" for cases without one."""
    counts: dict[str, int] = {}
    for case in fingerprint.cases:
        counts[case.centre] = counts.get(case.centre, 0) + 1
    return dict(sorted(counts.items()))


Measure = Callable[[CaseFingerprint], float | None]


def spread_of(fingerprint: Fingerprint, kind: str, channel: int | None, measure: Measure) -> Spread | None:
    """One measure of each case by centre; None where fewer than two centres tell it, or none of them by two cases."""
    values: dict[str, list[float]] = {}
    for case in fingerprint.cases:
        value = measure(case) if case.centre else None
        if value is not None:
            values.setdefault(case.centre, []).append(value)
    if len(values) < 2 or max(map(len, values.values())) < 2:
        return None
    return Spread(kind, channel, {centre: tuple(values[centre]) for centre in sorted(values)})


def _of_cases() -> dict[str, Measure]:
    def along(name: str, axis: int) -> Measure:
        return lambda case: math.log(getattr(case, name)[axis])

    found = {f"{name}.{letter}": along(name, axis) for name in ("spacing", "field_of_view") for axis, letter in enumerate("zyx")}
    return {**found, "labelled_size": _labelled_size}


def _labelled_size(case: CaseFingerprint) -> float | None:
    volume = sum(case.label_voxels.values()) * math.prod(case.spacing)
    return math.log(volume) / 3 if volume > 0 else None


def _of_channels(channel: int, scheme: Normalisation, axes: tuple[int, ...]) -> dict[str, Measure]:
    def scaled(measure: Callable[[CaseFingerprint, Scale], float | None]) -> Measure:
        def told(case: CaseFingerprint) -> float | None:
            scale = scale_of(scheme, case, channel)
            return None if scale is None else measure(case, scale)

        return told

    def labelled(measure: Callable[[float, float], float]) -> Measure:
        def told(case: CaseFingerprint, scale: Scale) -> float | None:
            sketch, found = case.foreground[channel], case.measured(channel)
            noise = found.noise / scale.factor if found and found.noise else 0.0
            return None if sketch is None else measure(*_median_and_spread(sketch, scale, noise))

        return scaled(told)

    def noise(case: CaseFingerprint, scale: Scale) -> float | None:
        found = case.measured(channel)
        return None if found is None or found.noise is None else math.log(max(found.noise / scale.factor, NOISE_FLOOR))

    def contrast(case: CaseFingerprint, scale: Scale) -> float | None:
        inside, labels = case.body[channel], case.foreground[channel]
        if inside is None or labels is None:
            return None
        return math.log(max(abs(scale.apply(_quantile(labels, 0.5)) - scale.apply(_quantile(inside, 0.5))), CONTRAST_FLOOR))

    def tone(case: CaseFingerprint, scale: Scale) -> float | None:
        inside, labels, found = case.body[channel], case.foreground[channel], case.measured(channel)
        if inside is None or labels is None:
            return None
        margin = TAIL * found.noise if found and found.noise else 0.0
        low, high = (scale.apply(_quantile(inside, level) + side * margin) for level, side in ((0.005, 1), (0.995, -1)))
        if high <= low:
            return None
        place = (scale.apply(_quantile(labels, 0.5)) - low) / (high - low)
        return math.log(-math.log(min(max(place, 0.02), 0.98)))

    return {
        "noise": scaled(noise),
        "blur": _blur_along(channel, axes),
        "location": labelled(lambda median, spread: median),
        "scale": labelled(lambda median, spread: math.log(max(spread, NOISE_FLOOR))),
        "contrast": scaled(contrast),
        "magnitude": labelled(lambda median, spread: math.log(max(math.hypot(median, spread), NOISE_FLOOR))),
        "tone": scaled(tone),
    }


def _blur_along(channel: int, axes: Sequence[int]) -> Measure:
    def blur(case: CaseFingerprint) -> float | None:
        found = case.measured(channel)
        widths = [found.blur[axis] for axis in axes] if found else []
        return _mean([math.log(width) for width in widths if width]) if widths and all(widths) else None

    return blur


def _median_and_spread(sketch: IntensitySketch, scale: Scale, noise: float) -> tuple[float, float]:
    """Median and standard deviation (a normal one with these quartiles) on the network's scale, the latter without the noise.

    Noise is a measure of its own, and must not count as contrast too. What it leaves is taken as a quarter of the whole at least.
    """
    low, middle, high = (scale.apply(_quantile(sketch, level)) for level in (0.25, 0.5, 0.75))
    whole = (high - low) / 1.349
    return middle, math.sqrt(max(whole**2 - noise**2, (whole / 4) ** 2))


def _quantile(sketch: IntensitySketch, level: float) -> float:
    return sketch.quantiles[LEVELS.index(level)]


def _measured_axes(fingerprint: Fingerprint, channel: int) -> tuple[int, ...]:
    """The axes along which most cases tell a blur: its mean must be over the same axes for all."""
    found = [measures for case in fingerprint.cases if (measures := case.measured(channel))]
    return tuple(axis for axis in range(3) if sum(m.blur[axis] is not None for m in found) > len(found) / 2)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
