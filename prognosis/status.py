"""How far a patient's features carry a prediction: told beside every result, so that an empty mask never becomes an average risk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from prognosis.features.feature import EMPTY_MASK, NO_CT, NO_PET, NO_PRIMARY, PET_NOT_SUV

if TYPE_CHECKING:
    from prognosis.features.table import FeatureTable

Status = Literal["ok", "degraded", "not_predicted"]

DEGRADING = frozenset({NO_PRIMARY, PET_NOT_SUV, NO_PET, NO_CT})
"""Flags of features that a patient of the usual kind has. A neck without nodes is usual, so that flag is not among them."""


def status_of(features: FeatureTable | None, patients: Sequence[str]) -> dict[str, Status]:
    """Patient -> "not_predicted" without any feature, "degraded" without some that a patient should have, else "ok".

    Args:
        features: None where images play no part: all are "ok".
    """
    if features is None:
        return dict.fromkeys(patients, "ok")
    frame = features.frame
    measured = set(frame.index[np.isfinite(frame.to_numpy(dtype=np.float64)).any(axis=1)])
    return {patient: _status(patient in measured, set(features.flags.get(patient, ()))) for patient in patients}


def _status(measured: bool, flags: set[str]) -> Status:
    if not measured or EMPTY_MASK in flags:
        return "not_predicted"
    return "degraded" if flags & DEGRADING else "ok"
