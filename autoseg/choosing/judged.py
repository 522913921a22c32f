"""What a choice rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from autoseg.choosing.decision import Decision
from autoseg.choosing.members import Member


@dataclass(frozen=True)
class Judged:
    """The compared candidates and what decided between them.

    Attributes:
        candidates: name -> members.
        cases, patients: compared cases, and whose they are.
        classes: that a reference shows.
        dice: candidate -> (cases, classes).
        weights: of the bootstrap, (samples, cases).
        decision: by the rule.
    """

    candidates: Mapping[str, tuple[Member, ...]]
    cases: tuple[str, ...]
    patients: tuple[str, ...]
    classes: tuple[str, ...]
    dice: Mapping[str, np.ndarray]
    weights: np.ndarray
    decision: Decision
