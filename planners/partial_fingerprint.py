"""What another program left of the training cases of a model: less than a fingerprint, and judged by no more than it tells."""

from __future__ import annotations

import json
import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from planners.fingerprint import CaseFingerprint, FingerprintInvalid
from planners.intensity import IntensityStatistics
from planners.normalisation import pet_channel
from planners.shift import Seen, Told, is_constant
from planners.span import Finding

SCHEMA = "autoseg-partial-fingerprint/1"

COVERED = 0.5
"""A case's values must reach into this share of the window that nearly all labelled voxels of the training cases lie in."""

LONGEST = 1 << 31
"""Voxels along an axis: what says more is no shape."""

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class PartialFingerprint:
    """What is known of training cases that were not measured here.

    Attributes:
        source: which files told it, for people.
        channels: their names.
        spacings: mm, (z, y, x), one a case; empty where not known.
        shapes_after_crop: voxels of the non-zero part, of the same cases.
        foreground: the pooled labelled voxels, one entry a channel; None where not known.
    """

    source: str
    channels: tuple[str, ...]
    spacings: tuple[Triple, ...] = ()
    shapes_after_crop: tuple[tuple[int, int, int], ...] = ()
    foreground: tuple[IntensityStatistics | None, ...] = ()

    def __post_init__(self) -> None:
        if len(self.spacings) != len(self.shapes_after_crop) or len(self.foreground) not in (0, len(self.channels)):
            raise FingerprintInvalid(
                f"{len(self.spacings)} spacings, {len(self.shapes_after_crop)} shapes, and intensities of {len(self.foreground)} of "
                f"{len(self.channels)} channels do not go together"
            )
        if not all(math.isfinite(step) and step > 0 for spacing in self.spacings for step in spacing):
            raise FingerprintInvalid("a spacing must be positive")
        if not all(1 <= size <= LONGEST for shape in self.shapes_after_crop for size in shape):
            raise FingerprintInvalid(f"a shape must be 1 to {LONGEST} voxels along each axis")

    def to_json(self) -> str:
        """The document; ends in a newline."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1, allow_nan=False) + "\n"

    @staticmethod
    def from_json(text: str, source: str = "partial fingerprint") -> PartialFingerprint:
        """The partial fingerprint in a JSON text.

        Raises:
            FingerprintInvalid: not JSON, another schema, an unknown or missing key, or a wrong value.
        """
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise FingerprintInvalid(f"{source}: not valid JSON: {error}") from None
        known = {"schema", *(field.name for field in fields(PartialFingerprint))}
        if not isinstance(document, dict) or document.get("schema") != SCHEMA or set(document) != known:
            raise FingerprintInvalid(f"{source}: is no document of schema {SCHEMA!r}, which this release reads")
        try:
            return PartialFingerprint(
                source=str(document["source"]),
                channels=tuple(map(str, document["channels"])),
                spacings=tuple(_three(row, float) for row in document["spacings"]),
                shapes_after_crop=tuple(_three(row, int) for row in document["shapes_after_crop"]),
                foreground=tuple(None if one is None else statistics_from(one) for one in document["foreground"]),
            )
        except (TypeError, ValueError, OverflowError) as error:
            raise FingerprintInvalid(f"{source}: {error}") from None


def statistics_from(document: Mapping[str, Any]) -> IntensityStatistics:
    """The statistics in plain JSON values; FingerprintInvalid where they are none."""
    names = [field.name for field in fields(IntensityStatistics)]
    if not isinstance(document, Mapping) or set(document) != set(names):
        raise FingerprintInvalid(f"intensities have the keys {', '.join(names)}")
    values = {name: float(document[name]) for name in names}
    if not all(map(math.isfinite, values.values())):
        raise FingerprintInvalid("intensities hold finite numbers only")
    return IntensityStatistics(**values)


class SeenInPart:
    """What training has seen, as far as a partial fingerprint and the plan tell.

    Args:
        channels: their names.
        known: of the training cases.
        windows: channel -> where nearly all labelled voxels of the training cases lie, of channels in absolute units such as CT: what the
            plan clips at.
        as_stored: images are not brought into one orientation.
    """

    def __init__(
        self,
        channels: Sequence[str],
        known: PartialFingerprint,
        windows: Mapping[int, tuple[float, float]],
        *,
        as_stored: bool = False,
    ):
        self.channels, self.windows, self.as_stored = tuple(channels), dict(windows), as_stored
        rows = tuple(zip(known.spacings, known.shapes_after_crop, strict=True))
        # The spacing across images of one slice is no fact: nnU-Net makes one up.
        flat = {axis for axis in range(3) if rows and all(shape[axis] == 1 for _, shape in rows)}
        self.seen = Seen(channels, [self._told(spacing, shape, flat) for spacing, shape in rows])
        self.foreground = {c: one for c, one in enumerate(known.foreground) if one is not None and one.minimum < one.maximum}

    @property
    def judged(self) -> tuple[str, ...]:
        """What of a case is judged, for people."""
        known = [name for name in ("spacing", "extent") if self._spans(name)]
        missing = [f"missing {_names(self.channels, found)}"] if (found := {*self.foreground, *self.windows}) else []
        return (*known, *missing, *([f"unit of {_names(self.channels, self.windows)}"] if self.windows else []))

    @property
    def unjudged(self) -> tuple[str, ...]:
        """What a fingerprint would tell besides, for people."""
        unknown = [name for name in ("spacing", "extent") if not self._spans(name)]
        rest = {*range(len(self.channels))} - {*self.foreground, *self.windows}
        missing = [f"missing {_names(self.channels, rest)}"] if rest else []
        orientation = ["orientation"] if self.as_stored else []
        both = pet_channel(self.channels) is not None and "ct" in map(str.lower, self.channels)
        return (*unknown, *missing, "intensities", "noise", "sharpness", *orientation, *(["place of PET on CT"] if both else []))

    def _spans(self, measure: str) -> bool:
        return any(key.startswith(measure) for key, _ in self.seen.spans)

    def judge(self, case: CaseFingerprint) -> tuple[Finding, ...]:
        """What of a case is outside; () where nothing is."""
        whole = Told.of(case)
        told = self._told(case.spacing, case.shape_after_crop)
        constants = {channel: value for channel, value in whole.constants.items() if self._is_missing(channel, value)}
        found = self.seen.findings(replace(told, constants=constants))
        return found if constants else (*found, *self._outside_windows(case))

    def _told(self, spacing: Sequence[float], shape: Sequence[int], flat: Container[int] = ()) -> Told:
        numbers: dict[tuple[str, int | None], float] = {}
        for axis, letter in enumerate("zyx"):
            if axis not in flat:
                numbers[f"spacing.{letter}", None] = math.log(spacing[axis])
                numbers[f"extent.{letter}", None] = math.log(spacing[axis] * shape[axis])
        return Told(numbers, (None,) * len(self.channels), {}, "")

    def _is_missing(self, channel: int, value: float) -> bool:
        """Whether no training case can have had this value everywhere, but for half a percent of all labelled voxels."""
        known = self.foreground.get(channel)
        return channel in self.windows or (known is not None and not known.percentile_00_5 <= value <= known.percentile_99_5)

    def _outside_windows(self, case: CaseFingerprint) -> list[Finding]:
        found = []
        for channel, window in self.windows.items():
            own = _covered(case, channel, window)
            if own >= COVERED:
                continue
            name = self.channels[channel]
            values = case.body[channel]
            told = "" if values is None else f"{values.minimum:.4g} to {values.maximum:.4g}"
            others = [c for c in range(len(self.channels)) if c != channel and _covered(case, c, window) >= COVERED]
            unit = "HU" if name.lower() == "ct" else "the training images' unit"
            hint = f"Is it in {unit}?" if not others else f"Those of {_names(self.channels, others)} do: are channels swapped?"
            text = (
                f"values of {name}: {told} reach into {100 * own:.0f} % of {window[0]:.4g} to {window[1]:.4g}, where nearly all labelled "
                f"voxels of the training images lie; at least {100 * COVERED:.0f} % would be accepted. {hint}"
            )
            found.append(Finding("window", name, own, (COVERED, 1.0), text))
        return found


def _covered(case: CaseFingerprint, channel: int, window: tuple[float, float]) -> float:
    """The share of a window that the values of a channel reach into, from the smallest to the largest."""
    values = case.body[channel]
    if values is None or is_constant(values) or window[1] <= window[0]:
        return 0.0
    return max(0.0, min(values.maximum, window[1]) - max(values.minimum, window[0])) / (window[1] - window[0])


def _names(channels: Sequence[str], chosen: Iterable[int]) -> str:
    return " or ".join(channels[channel] for channel in sorted(chosen))


def _three(values: Sequence[Any], kind: type) -> Any:
    if len(values) != 3:
        raise FingerprintInvalid(f"three entries expected, found {list(values)}")
    return tuple(kind(value) for value in values)
