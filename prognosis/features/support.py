"""Whether a model may speak about a patient: what it was fitted on, against what the patient has.

What the fitted model must know for that is in its encoder: the training patients' range of each number, their levels, and which columns
were ever missing; and the model's longest follow-up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from autoseg.dataset.case import list_names
from prognosis.features.case import FEATURES
from prognosis.features.feature import EMPTY_MASK, NO_CT, NO_PET, NO_PRIMARY, PET_NOT_SUV
from prognosis.models.encode import Numeric, absent, numbers
from prognosis.status import Status

if TYPE_CHECKING:
    import pandas as pd

    from prognosis.models.pipeline import Fitted

FAR = 1.0
"""How far beyond the training patients' range, as a share of it, a number ends the prediction: a linear model goes on for ever."""

LARGEST_MISSING_SHARE = 0.5
"""With more of a model's columns missing than this, its risk would mostly be that of the average patient."""

_ENDING = {
    EMPTY_MASK: ("", "no tumour was found in the images, so no feature has a value"),
    PET_NOT_SUV: ("PET", "the PET image is not in SUV"),
    NO_PET: ("PET", "there is no PET image"),
    NO_CT: ("CT", "there is no CT image"),
}
"""Flag -> the channel whose features it takes away ("": all), and the reason in words."""


@dataclass(frozen=True)
class Judgement:
    """Whether a prediction is told, and what speaks against it.

    Attributes:
        status: "not_predicted": no risk is told; "degraded": it is told, with the reasons; "ok".
        reasons: in words, the gravest first.
    """

    status: Status
    reasons: tuple[str, ...] = ()


def judge(fitted: Fitted, frame: pd.DataFrame, flags: Sequence[Sequence[str]]) -> list[Judgement]:
    """A judgement a row.

    Not predicted: no tumour was found, or the PET is not in SUV (or an image is missing), and the model uses what that takes away; a number
    lies further beyond the training patients' range than that range is wide; or more than half of the model's columns have no value.
    Degraded: what else no training patient showed (a number out of range, an unknown level, a value missing that never was), or no primary
    tumour was found.

    Args:
        fitted: the model.
        frame: a row a patient with the model's columns, as for `Fitted.risk`.
        flags: of each row's images, those of `feature.FLAGS`.
    """
    outside = fitted.outside(frame)
    far = _far(fitted, frame)
    missing = _missing(fitted, frame)
    columns = fitted.encoder.columns
    judgements = []
    for row, raised in enumerate(flags):
        ending = [reason for flag, (channel, reason) in _ENDING.items() if flag in raised and _uses(columns, channel)]
        ending += far[row]
        if not ending and len(missing[row]) > LARGEST_MISSING_SHARE * len(columns):
            ending.append(f"{len(missing[row])} of the model's {len(columns)} columns have no value: {list_names(missing[row])}")
        if ending:
            judgements.append(Judgement("not_predicted", tuple(ending)))
            continue
        weak = ["no primary tumour was found"] if NO_PRIMARY in raised and _uses(columns, "") else []
        weak += outside[row]
        judgements.append(Judgement("degraded" if weak else "ok", tuple(weak)))
    return judgements


def _uses(columns: Sequence[str], channel: str) -> bool:
    return any(column in FEATURES and (not channel or FEATURES[column].channel == channel) for column in columns)


def _far(fitted: Fitted, frame: pd.DataFrame) -> list[list[str]]:
    found: list[list[str]] = [[] for _ in range(len(frame))]
    for part in fitted.encoder.parts:
        if not isinstance(part, Numeric):
            continue
        margin = FAR * (part.high - part.low)
        for row, value in enumerate(numbers(frame, part.name)):
            if value < part.low - margin or value > part.high + margin:
                found[row].append(f"{part.name} is {value:.4g}, far from the training patients' {part.low:.4g} to {part.high:.4g}")
    return found


def _missing(fitted: Fitted, frame: pd.DataFrame) -> list[list[str]]:
    columns = fitted.encoder.columns
    table = np.stack([absent(frame, column) for column in columns], axis=1) if columns else np.zeros((len(frame), 0), bool)
    return [[column for column, gone in zip(columns, row, strict=True) if gone] for row in table]
