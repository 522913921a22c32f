"""What the training cases span in one measure, and how far beside that a further case may lie."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

CHANCE = 1e-3
"""A further case like the training cases lies outside the prediction interval of one measure with this chance, were they normal."""

TAIL = 0.01
"""The training cases span what lies between this quantile and its counterpart: one odd case among hundreds is not what was seen."""


@dataclass(frozen=True)
class Kind:
    """What a measure is.

    Attributes:
        title, unit: for people.
        ratio: values are logarithms.
        margin: by so much the training cases' values are widened at least.
        extrapolated: also as far as one further such case may lie.
    """

    title: str
    unit: str
    ratio: bool
    margin: float
    extrapolated: bool = True

    def told(self, value: float) -> float:
        """A value in the unit."""
        return math.exp(value) if self.ratio else value


@dataclass(frozen=True)
class Finding:
    """One measure of a case that is outside.

    Attributes:
        measure: such as "spacing.z", "noise", "swapped".
        channel: its name, of several joined by "+"; "" for what concerns the case.
        value: the case's, in the unit of `text`; None where it is no number.
        range: what would have been accepted, low and high; None where there is none.
        text: all of it for people.
    """

    measure: str
    channel: str
    value: float | None
    range: tuple[float, float] | None
    text: str


@dataclass(frozen=True)
class Span:
    """The training cases' values of one measure, and what is accepted beside them; all on the measure's own scale."""

    kind: Kind
    values: tuple[float, ...]

    @cached_property
    def _array(self) -> npt.NDArray[np.float64]:
        return np.asarray(self.values, dtype=np.float64)

    @cached_property
    def seen(self) -> tuple[float, float]:
        """What the training cases span, but for the tails of many."""
        low = np.quantile(self._array, TAIL, method="lower")
        high = np.quantile(self._array, 1 - TAIL, method="higher")
        return float(low), float(high)

    @cached_property
    def accepted(self) -> tuple[float, float]:
        """What a further case may have.

        Source: the prediction interval of a normal sample, mean -+ t s sqrt(1 + 1 / n).
        """
        low, high = self.seen[0] - self.kind.margin, self.seen[1] + self.kind.margin
        if self.kind.extrapolated and len(self.values) > 1:
            from scipy.special import stdtrit  # type: ignore[import-untyped]

            n, mean = len(self.values), float(self._array.mean())
            half = float(stdtrit(n - 1, 1 - CHANCE / 2)) * float(self._array.std(ddof=1)) * math.sqrt(1 + 1 / n)
            low, high = min(low, mean - half), max(high, mean + half)
        return low, high

    def outside(self, value: float) -> float:
        """How far a value lies outside, in half widths of what is accepted; 0 or less where it does not."""
        below, above = int((self._array <= value).sum()), int((self._array >= value).sum())
        if min(below, above) > 1 + TAIL * len(self.values):
            return -1.0  # amid what was seen
        low, high = self.accepted
        return max(low - value, value - high) / max((high - low) / 2, 1e-12)

    def distance(self, value: float) -> float:
        """How far a value lies from the training cases' mean, in standard deviations or margins, whichever is larger."""
        return abs(value - float(self._array.mean())) / max(float(self._array.std()), self.kind.margin)

    def finding(self, measure: str, channel: str, value: float, hint: str = "", told: float | None = None) -> Finding:
        """The finding for a value outside; `told`: the value in its unit, where `value` is no logarithm of it."""
        in_unit = self.kind.told
        shown = in_unit(value) if told is None else told
        (low, high), seen = self.accepted, self.seen
        place = f" of {channel}" if channel else ""
        unit = f" {self.kind.unit}" if self.kind.unit else ""
        title = self.kind.title + (f" along {measure[-1]}" if measure[-2:] in (".z", ".y", ".x") else "")
        text = (
            f"{title}{place}: {shown:.4g}{unit}; the training images have {in_unit(seen[0]):.4g} to {in_unit(seen[1]):.4g}, "
            f"{in_unit(low):.4g} to {in_unit(high):.4g} would be accepted"
        )
        return Finding(measure, channel, shown, (in_unit(low), in_unit(high)), text + (f". {hint}" if hint else ""))
