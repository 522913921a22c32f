"""Intervals: patients drawn again within their centre, predictions as they are; what a report says of them."""

from __future__ import annotations

from autoseg.evaluation.bootstrap import LEVEL, RESAMPLES, interval, resample_weights

__all__ = ["LABEL", "LEVEL", "RESAMPLES", "interval", "resample_weights"]

LABEL = (
    "95 % percentile interval of 1000 bootstrap samples of patients within their centre, predictions fixed: "
    "it leaves out how much the model itself would change with other training patients"
)
