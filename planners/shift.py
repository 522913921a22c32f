"""What of a case lies outside what the training cases showed, measure by measure.

Each measure is one number a case, the logarithm where ratios count. What the training cases span is widened by a margin of the measure's
own, and to where one further case of the same kind would lie all but surely (`planners.span`): few or varied cases allow much, many alike
ones little. Nothing is judged that was not measured in training.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from planners.fingerprint import CaseFingerprint, Fingerprint
from planners.intensity import LEVELS, IntensitySketch
from planners.normalisation import PET_NAMES
from planners.span import Finding, Kind, Span

FEWEST = 5
"""From fewer training cases than these only spacing, orientation and empty channels are judged."""

OTHER_UNIT = 50.0
"""A mean so many times that of the training cases, or so many times less, is no patient's doing: the unit is another."""


SPACING = Kind("spacing", "mm", True, math.log(1.25), extrapolated=False)
FIELD_OF_VIEW = Kind("field of view", "mm", True, math.log(1.25))
EXTENT = Kind("extent without the empty margin", "mm", True, math.log(1.25))
NOISE = Kind("noise", "of the contrast", True, math.log(1.5))
BLUR = Kind("blur", "mm", True, math.log(1.5))
REGISTRATION = Kind("shift of PET against CT", "mm", False, 10.0)
OVERLAP = Kind("overlap of the bodies in CT and PET", "Dice", False, 0.1)

KINDS = {
    "spacing": SPACING,
    "field_of_view": FIELD_OF_VIEW,
    "extent": EXTENT,
    "noise": NOISE,
    "blur": BLUR,
    "registration": REGISTRATION,
    "overlap": OVERLAP,
}

INTENSITY_RATIO = math.log(1.5)
"""By this factor the mean and the contrast of a channel without negative values are widened."""

INTENSITY_SHARE = 0.25
"""By this share of the training cases' median contrast the intensities of a channel with negative values, such as CT, are widened."""

LEAST_NOISE = 1e-4
"""Less noise than this share of the contrast counts as so much."""


@dataclass(frozen=True)
class Intensity:
    """Mean, contrast (standard deviation without the noise) and floor (2 % quantile) of one channel inside the body."""

    mean: float
    contrast: float
    floor: float

    @staticmethod
    def of(case: CaseFingerprint, channel: int) -> Intensity | None:
        """None for a channel without voxels or without contrast."""
        body = case.body[channel]
        if body is None or is_constant(body) or body.std <= 0:
            return None
        measured = case.measured(channel)
        noise = measured.noise if measured and measured.noise else 0.0
        # Noise is a measure of its own, and must not count as contrast too.
        contrast = math.sqrt(max(body.std**2 - noise**2, (body.std / 4) ** 2))
        return Intensity(body.mean, contrast, body.quantiles[LEVELS.index(0.02)])


class Channel:
    """The training cases' intensities of one channel."""

    def __init__(self, name: str, values: Sequence[Intensity]):
        self.name = name
        self.positive = all(value.mean > 0 and value.floor >= 0 for value in values)
        unit = "" if name.lower() not in ("ct", *PET_NAMES) else "HU" if name.lower() == "ct" else "SUV"
        contrast = float(np.median([value.contrast for value in values]))
        linear = INTENSITY_SHARE * contrast
        ratio, margin = (True, INTENSITY_RATIO) if self.positive else (False, linear)
        kinds = {
            "mean": Kind("intensity, mean", unit, ratio, margin),
            "contrast": Kind("intensity, contrast", unit, True, INTENSITY_RATIO),
        }
        if not self.positive:
            kinds["floor"] = Kind("intensity, darkest 2 %", unit, False, linear)
        self.spans = {
            aspect: Span(kind, tuple(_scaled(getattr(value, aspect), kind) for value in values)) for aspect, kind in kinds.items()
        }

    def distance(self, intensity: Intensity) -> float:
        """How unlike these an intensity is: the mean square over the aspects."""
        far = [span.distance(_scaled(getattr(intensity, aspect), span.kind)) for aspect, span in self.spans.items()]
        return math.fsum(min(value, 100.0) ** 2 for value in far) / len(far)

    def finding(self, intensity: Intensity) -> Finding | None:
        """The aspect that is farthest outside, where one is."""
        values = {aspect: _scaled(getattr(intensity, aspect), span.kind) for aspect, span in self.spans.items()}
        worst = max(self.spans, key=lambda aspect: self.spans[aspect].outside(values[aspect]))
        if self.spans[worst].outside(values[worst]) <= 0:
            return None
        return self.spans[worst].finding("intensity", self.name, values[worst], self._hint(intensity), told=getattr(intensity, worst))

    def _hint(self, intensity: Intensity) -> str:
        if self.name.lower() == "ct":
            return "Is it in HU?"
        usual = self.spans["mean"].seen
        if not self.positive or intensity.mean <= 0 or self.name.lower() not in PET_NAMES:
            return ""
        times = intensity.mean / math.exp((usual[0] + usual[1]) / 2)
        if 1 / OTHER_UNIT < times < OTHER_UNIT:
            return ""
        return f"That is {times:.3g} times the training images': not in the same unit (SUV or Bq/ml?)"


def _scaled(value: float, kind: Kind) -> float:
    """A value on the kind's scale; where a logarithm would have none, far below everything."""
    if not kind.ratio:
        return value
    return math.log(value) if value > 0 else -100.0


def is_constant(sketch: IntensitySketch | None) -> bool:
    """Whether a channel holds one value, or none that is not 0."""
    return sketch is None or sketch.minimum == sketch.maximum


@dataclass(frozen=True)
class Told:
    """All that is judged of one case.

    Attributes:
        numbers: (measure, channel or None) -> the value on the measure's own scale, of what was measured.
        intensities: one entry a channel, None for one without contrast.
        constants: channel -> the value that it has everywhere.
        orientation: as stored.
    """

    numbers: Mapping[tuple[str, int | None], float]
    intensities: tuple[Intensity | None, ...]
    constants: Mapping[int, float]
    orientation: str

    @staticmethod
    def of(case: CaseFingerprint) -> Told:
        """What a case's fingerprint tells."""
        intensities = tuple(Intensity.of(case, channel) for channel in range(len(case.body)))
        constants = {c: sketch.minimum if sketch else 0.0 for c, sketch in enumerate(case.body) if is_constant(sketch)}
        return Told(_numbers(case, intensities), intensities, constants, case.orientation)


class Seen:
    """What training has seen.

    Args:
        channels: their names.
        cases: what each case of the training set told.
        as_stored: images are not brought into one orientation, so that theirs must be known too.
    """

    def __init__(self, channels: Sequence[str], cases: Sequence[Told], *, as_stored: bool = False):
        self.channels = tuple(channels)
        self.orientations = {case.orientation for case in cases} if as_stored else set()
        self.may_be_constant = {channel for case in cases for channel in case.constants}
        self.spans: dict[tuple[str, int | None], Span] = {}
        self.intensities: dict[int, Channel] = {}
        for key in dict.fromkeys(key for case in cases for key in case.numbers):
            values = tuple(case.numbers[key] for case in cases if key in case.numbers)
            if key[0].startswith("spacing") or len(values) >= FEWEST:
                self.spans[key] = Span(KINDS[key[0].split(".")[0]], values)
        for channel, name in enumerate(channels):
            found = [value for case in cases if (value := case.intensities[channel])]
            if len(found) >= FEWEST:
                self.intensities[channel] = Channel(name, found)

    @staticmethod
    def of(fingerprint: Fingerprint, *, as_stored: bool = False) -> Seen:
        """What the cases of a fingerprint showed."""
        return Seen(fingerprint.channels, [Told.of(case) for case in fingerprint.cases], as_stored=as_stored)

    def judge(self, case: CaseFingerprint) -> tuple[Finding, ...]:
        """What of a measured case is outside; see `findings`."""
        return self.findings(Told.of(case))

    def findings(self, case: Told) -> tuple[Finding, ...]:
        """What of a case is outside; () where nothing is.

        What follows from another finding is not told beside it: of an axis with another spacing neither blur nor field of view; of channels
        that are swapped nothing else; and where a channel is empty nothing of the others, whose body is found from all channels together.
        """
        found = [self._orientation(case), *self._outside(case.numbers, ("spacing",))]
        odd = {finding.measure[-1] for finding in found if finding and finding.measure.startswith("spacing")}
        numbers = {key: value for key, value in case.numbers.items() if not _along(key[0], odd)}
        found += self._outside(numbers, ("field_of_view", "extent"))
        constant = self._constant(case)
        found += constant
        if not constant:
            swapped = self._swapped(case)
            found += swapped.values()
            named = {channel for pair in swapped for channel in pair}
            for channel in range(len(self.channels)):
                if channel not in named:
                    found += [self._intensity(case, channel), *self._outside(numbers, ("noise", "blur"), channel)]
            if not named:
                found += self._outside(numbers, ("registration",)) or self._outside(numbers, ("overlap",))
        return tuple(finding for finding in found if finding)

    def _outside(self, numbers: Mapping[tuple[str, int | None], float], kinds: Sequence[str], channel: int | None = None) -> list[Finding]:
        found = []
        for key, value in numbers.items():
            span = self.spans.get(key)
            if span and key[0].split(".")[0] in kinds and key[1] == channel and span.outside(value) > 0:
                found.append(span.finding(key[0], "" if channel is None else self.channels[channel], value))
        return found

    def _orientation(self, case: Told) -> Finding | None:
        if not self.orientations or case.orientation in self.orientations:
            return None
        seen = ", ".join(sorted(self.orientations))
        return Finding("orientation", "", None, None, f"orientation: {case.orientation}; the training images have {seen}")

    def _constant(self, case: Told) -> list[Finding]:
        found = []
        for channel, value in case.constants.items():
            if channel not in self.may_be_constant:
                name = self.channels[channel]
                found.append(Finding("empty", name, value, None, f"channel {name} is {value:g} everywhere: is it missing?"))
        return found

    def _swapped(self, case: Told) -> dict[tuple[int, int], Finding]:
        """Pairs of channels of which each is more like the other's training images than like its own, and one is unlike its own."""
        intensities = {channel: value for channel in self.intensities if (value := case.intensities[channel])}
        found: dict[tuple[int, int], Finding] = {}
        for a, b in combinations(intensities, 2):
            own = [self.intensities[c].distance(intensities[c]) for c in (a, b)]
            other = [self.intensities[a].distance(intensities[b]), self.intensities[b].distance(intensities[a])]
            unlike = any(self.intensities[c].finding(intensities[c]) for c in (a, b))
            taken = {channel for pair in found for channel in pair}
            if unlike and other[1] < own[0] and other[0] < own[1] and not taken & {a, b}:
                names = (self.channels[a], self.channels[b])
                text = f"channels {names[0]} and {names[1]} look swapped: each is more like the other's training images than like its own"
                found[a, b] = Finding("swapped", "+".join(names), None, None, text)
        return found

    def _intensity(self, case: Told, channel: int) -> Finding | None:
        intensity = case.intensities[channel] if channel in self.intensities else None
        return self.intensities[channel].finding(intensity) if intensity else None


def _along(measure: str, axes: Container[str]) -> bool:
    """Whether a measure is in mm of one of these axes' spacing, so that it follows from it."""
    kind, _, axis = measure.partition(".")
    return kind in ("field_of_view", "extent", "blur") and axis in axes


def _numbers(case: CaseFingerprint, intensities: Sequence[Intensity | None]) -> dict[tuple[str, int | None], float]:
    found: dict[tuple[str, int | None], float] = {}
    for axis, letter in enumerate("zyx"):
        found[f"spacing.{letter}", None] = math.log(case.spacing[axis])
        found[f"field_of_view.{letter}", None] = math.log(case.field_of_view[axis])
    for channel, intensity in enumerate(intensities):
        measured = case.measured(channel)
        if measured is None or intensity is None:
            continue
        if measured.noise is not None:
            found["noise", channel] = math.log(max(measured.noise / intensity.contrast, LEAST_NOISE))
        for letter, width in zip("zyx", measured.blur, strict=True):
            if width:
                found[f"blur.{letter}", channel] = math.log(width)
    if case.alignment is not None:
        for letter, shift in zip("zyx", case.alignment.shift, strict=True):
            found[f"registration.{letter}", None] = shift
        found["overlap", None] = case.alignment.overlap
    return found
