"""One fold, what folds know of a case, and what folds and schemes may be called."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from autoseg.dataset.case import Case, bad_name

ALL = "all"
DEFAULT_COUNT = 5
BUILT_IN = re.compile(r"(cv|grouped)(\d*)|loco")
"""The schemes that are worked out; no file may be called like one."""

Presence = Mapping[str, Collection[int]]
"""Case -> the foreground labels in its mask."""


@dataclass(frozen=True)
class Fold:
    """Case names, sorted."""

    training: tuple[str, ...]
    validation: tuple[str, ...]


@dataclass(frozen=True)
class Member:
    """What the folds know of a case: whose it is, where it is from, and which foreground labels its mask holds (None: not known)."""

    patient: str
    centre: str = ""
    labels: tuple[int, ...] | None = None


def member_of(case: Case, presence: Presence | None, otherwise: tuple[int, ...] | None) -> Member:
    """What folds know of a case.

    Args:
        presence: case -> the foreground labels in its mask.
        otherwise: the labels where `presence` does not tell.
    """
    labels = presence.get(case.name) if presence else None
    return Member(case.patient, case.centre, otherwise if labels is None else tuple(sorted(int(label) for label in labels)))


def unusable_name(name: str) -> str | None:
    """Why no fold can be called that; None when one can."""
    return "is the name of the fold of all cases" if name == ALL else bad_name(name)


def is_grouped(scheme: str) -> bool:
    """Whether a scheme makes folds of several whole centres."""
    match = BUILT_IN.fullmatch(scheme)
    return match is not None and match[1] == "grouped"
