"""Training cases that lie outside all the others, each judged as if it were new."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from planners.fingerprint import Fingerprint
from planners.shift import FEWEST, KINDS, Channel, Seen, Told
from planners.span import TAIL, Finding, Span


def outliers(fingerprint: Fingerprint, *, as_stored: bool = False) -> dict[str, tuple[Finding, ...]]:
    """Case -> what of it is outside all the other cases, as `shift.Seen` judges it; cases without a finding are left out.

    Only cases that may be outside in some measure are judged in full, so that thousands of cases take seconds.

    Args:
        fingerprint: of the training cases.
        as_stored: images are not brought into one orientation.
    """
    told = [Told.of(case) for case in fingerprint.cases]
    if len(told) <= FEWEST:
        return {}
    found = {}
    for place in sorted(set(_suspects(fingerprint.channels, told, as_stored))):
        others = told[:place] + told[place + 1 :]
        found[fingerprint.cases[place].case] = Seen(fingerprint.channels, others, as_stored=as_stored).findings(told[place])
    return {case: findings for case, findings in found.items() if findings}


def _suspects(channels: Sequence[str], told: Sequence[Told], as_stored: bool) -> Iterator[int]:
    """The places of all cases with a finding, and of few others."""
    orientations = Counter(case.orientation for case in told)
    constants = Counter(channel for case in told for channel in case.constants)
    for place, case in enumerate(told):
        if (as_stored and orientations[case.orientation] == 1) or any(constants[channel] == 1 for channel in case.constants):
            yield place
    for key in dict.fromkeys(key for case in told for key in case.numbers):
        places = [place for place, case in enumerate(told) if key in case.numbers]
        values = [told[place].numbers[key] for place in places]
        if len(values) - 1 < (1 if key[0].startswith("spacing") else FEWEST):
            continue
        for index in _in_tails(values):
            others = Span(KINDS[key[0].split(".")[0]], (*values[:index], *values[index + 1 :]))
            if others.outside(values[index]) > 0:
                yield places[index]
    for channel, name in enumerate(channels):
        measured = [(place, value) for place, case in enumerate(told) if (value := case.intensities[channel])]
        if len(measured) - 1 < FEWEST:
            continue
        columns = ([getattr(value, aspect) for _, value in measured] for aspect in ("mean", "contrast", "floor"))
        for index in sorted({index for column in columns for index in _in_tails(column)}):
            place, value = measured[index]
            if Channel(name, [other for _, other in (*measured[:index], *measured[index + 1 :])]).finding(value):
                yield place


def _in_tails(values: Sequence[float]) -> list[int]:
    """The indices of the values that are not amid the others, as `Span.outside` has it: those alone can lie outside."""
    ordered = np.sort(values)
    below = np.searchsorted(ordered, values, side="right") - 1
    above = len(values) - np.searchsorted(ordered, values, side="left") - 1
    return np.flatnonzero(np.minimum(below, above) <= 1 + TAIL * (len(values) - 1)).tolist()
