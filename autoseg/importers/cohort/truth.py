"""What the phantom cohort's outcomes follow from, and how well the true predictors rank them: the ceiling of every model.

Beside the truth of all covariates stands what a table and image features can show: frailty and the unmeasured part of HPV at their mean,
volumes and texture as measured, and what is missing at its mean given the rest. For HPV both come with and without the centre's intercept,
which nobody knows at a new hospital.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from autoseg.evaluation.ranking import Pairs, auc, concordance
from autoseg.importers.cohort.patients import (
    ERRORS,
    FOLLOW_UP_DAYS,
    HPV_LOGIT,
    LOG_HAZARD,
    LOG_MTV_DEVIATION,
    MEAN_LOSS_DAYS,
    REFERENCE,
    WEIBULL_SCALE_DAYS,
    WEIBULL_SHAPE,
    Patients,
    hazard_terms,
    hpv_terms,
    simulate,
)

SCHEMA = "autoseg-truth/1"
HORIZON_DAYS = 730.0
POPULATION = 20_000
POPULATION_STREAM = 9
POPULATION_BLOCK = 1000
"""Pairs of the population are compared within blocks of so many patients. Every patient counts, and leaving out most pairs costs next to no
precision, which depends on the number of patients."""

HAZARDS = ("log_hazard", "log_hazard_observed")
LOGITS = ("hpv_logit", "hpv_logit_observed", "hpv_logit_within", "hpv_logit_observed_within")


def predictors(patients: Patients) -> dict[str, np.ndarray]:
    """The true predictors by name, arrays (n,): those of `HAZARDS` and `LOGITS`."""
    intercept = patients.hpv_intercept
    seen, doubt = _seen(patients)
    within = patients.signal * hpv_terms(seen)
    probability = _mean_probability(within + intercept.mean(), doubt)
    hpv = np.where(patients.missing["hpv"], probability, patients.hpv)
    reliability = LOG_MTV_DEVIATION**2 / (LOG_MTV_DEVIATION**2 + ERRORS["volume"] ** 2)
    log_mtv = REFERENCE["log_mtv"] + reliability * (np.log(patients.mtv_ml) + patients.errors["volume"] - REFERENCE["log_mtv"])
    return {
        "log_hazard": patients.log_hazard,
        "log_hazard_observed": patients.signal * hazard_terms(seen, log_mtv, hpv),
        "hpv_logit": patients.hpv_logit,
        "hpv_logit_observed": within + intercept,
        "hpv_logit_within": patients.hpv_logit - intercept,
        "hpv_logit_observed_within": within,
    }


def _seen(patients: Patients) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The covariates as a table and image features show them, and the variance of the logit of HPV that they leave."""
    reliability = 1 / (1 + ERRORS["texture"] ** 2)
    habits, m_stage = patients.missing["habits"], patients.missing["m_stage"]
    seen = {
        "age": patients.age,
        "node_count": patients.node_count,
        "texture": reliability * (patients.texture + patients.errors["texture"]),
        "tobacco": np.where(habits, REFERENCE["tobacco"], patients.tobacco),
        "alcohol": np.where(habits, REFERENCE["alcohol"], patients.alcohol),
        "m_stage": np.where(m_stage, REFERENCE["m_stage"], patients.m_stage),
    }
    unknown = sum(HPV_LOGIT[name] ** 2 * REFERENCE[name] * (1 - REFERENCE[name]) for name in ("tobacco", "alcohol"))
    return seen, HPV_LOGIT["unmeasured"] ** 2 + HPV_LOGIT["texture"] ** 2 * (1 - reliability) + habits * unknown


def _mean_probability(logit: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Mean of the logistic function under a normal distribution, by its probit approximation.

    Source: MacKay, "The evidence framework applied to classification networks", Neural Computation 1992.
    """
    from scipy.special import expit

    return expit(logit / np.sqrt(1 + np.pi * variance / 8))


def truth_columns(patients: Patients) -> dict[str, list[Any]]:
    """The columns of truth.csv: names, centre, predictors, and every patient's outcome, in the table or not."""
    return {
        "patient": patients.names,
        "centre": [patients.centres[index].name for index in patients.centre],
        **{name: values.tolist() for name, values in predictors(patients).items()},
        "time_days": patients.time_days.tolist(),
        "event": patients.event.astype(int).tolist(),
        "hpv": patients.hpv.astype(int).tolist(),
    }


def truth_document(patients: Patients, horizon_days: float = HORIZON_DAYS) -> dict[str, Any]:
    """truth.json: what generated the cohort, and the ceiling on its own rows and on 20 000 more patients of the same centres."""
    population = simulate(POPULATION, patients.centres, patients.seed, signal=patients.signal, stream=POPULATION_STREAM)
    return {
        "schema": SCHEMA,
        "seed": patients.seed,
        "signal": patients.signal,
        "patients": len(patients),
        "horizon_days": horizon_days,
        "coefficients": {
            "log_hazard": {name: patients.signal * value for name, value in LOG_HAZARD.items()},
            "hpv_logit": {name: patients.signal * value for name, value in HPV_LOGIT.items()},
            "hpv_intercept": {centre.name: centre.hpv_intercept for centre in patients.centres},
            "reference": dict(REFERENCE),
            "weibull": {"shape": WEIBULL_SHAPE, "scale_days": WEIBULL_SCALE_DAYS},
            "censoring": {"study_end_days": list(FOLLOW_UP_DAYS), "mean_loss_days": MEAN_LOSS_DAYS},
            "measurement_errors": dict(ERRORS),
        },
        "rows": ceiling(patients, horizon_days),
        "population": ceiling(population, horizon_days, complete=True, block=POPULATION_BLOCK),
    }


def ceiling(patients: Patients, horizon_days: float, *, complete: bool = False, block: int | None = None) -> dict[str, Any]:
    """How well the true predictors rank the recorded outcomes, over all pairs and over those within a centre.

    Args:
        horizon_days: the second C-index takes follow-up to end here.
        complete: count outcomes that the table leaves out too.
        block: compare only patients of the same block of so many; None: all with all.
    """
    truth = predictors(patients)
    followed, tested = (np.full(len(patients), True) if complete else ~patients.missing[group] for group in ("outcome", "hpv"))
    time, event = patients.time_days[followed], patients.event[followed]
    within_horizon = event & (time <= horizon_days)
    blocks = np.arange(len(patients)) // (block or max(len(patients), 1))
    groups = _Groups(blocks[followed].tolist(), patients.centre[followed].tolist())
    tested_groups = _Groups(blocks[tested].tolist(), patients.centre[tested].tolist())
    risks = {name: truth[name][followed] for name in HAZARDS}
    return {
        "patients": len(patients),
        "with_outcome": int(followed.sum()),
        "events": int(event.sum()),
        "events_within_horizon": int(within_horizon.sum()),
        "hpv_known": int(tested.sum()),
        "hpv_positive": int(patients.hpv[tested].sum()),
        "c_index": {name: _survival(time, event, risk, groups) for name, risk in risks.items()},
        "c_index_at_horizon": {
            name: _survival(np.minimum(time, horizon_days), within_horizon, risk, groups) for name, risk in risks.items()
        },
        "auc": {name: _binary(patients.hpv[tested], truth[name][tested], tested_groups) for name in LOGITS},
    }


@dataclass(frozen=True)
class _Groups:
    """Who is compared with whom: patients of a block, and of those the ones of a centre."""

    blocks: list[int]
    centres: list[int]

    @property
    def within_centre(self) -> list[tuple[int, int]]:
        return list(zip(self.blocks, self.centres, strict=True))


def _survival(time: np.ndarray, event: np.ndarray, risk: np.ndarray, groups: _Groups) -> dict[str, Any]:
    return _both(concordance(time, event, risk, groups.blocks), concordance(time, event, risk, groups.within_centre))


def _binary(label: np.ndarray, score: np.ndarray, groups: _Groups) -> dict[str, Any]:
    return _both(auc(label, score, groups.blocks), auc(label, score, groups.within_centre))


def _both(pooled: Pairs, within: Pairs) -> dict[str, Any]:
    return {
        name: {"value": None if math.isnan(pairs.index) else pairs.index, "pairs": pairs.comparable}
        for name, pairs in (("pooled", pooled), ("within_centre", within))
    }


_TITLES = {
    "log_hazard": "all covariates",
    "log_hazard_observed": "observed ones only",
    "hpv_logit": "all covariates",
    "hpv_logit_observed": "observed ones only",
    "hpv_logit_within": "all, without the centre's intercept",
    "hpv_logit_observed_within": "observed, without the centre's intercept",
}


def ceiling_text(document: Mapping[str, Any]) -> str:
    """The ceilings of a truth document as a table: each true predictor on these rows and on the population, pooled and within centre."""
    line = "{:<52} {:>13} {:>13}   {:>13} {:>13}"
    table = [
        line.format("", "these rows:", "", f"{POPULATION} more:", ""),
        line.format("what the truth itself reaches", "all pairs", "within centre", "all pairs", "within centre"),
    ]
    parts = [(document[rows], kind) for rows in ("rows", "population") for kind in ("pooled", "within_centre")]
    for measure, title in (
        ("c_index", "C-index"),
        ("c_index_at_horizon", f"C-index to day {document['horizon_days']:g}"),
        ("auc", "AUC of HPV"),
    ):
        for name in document["rows"][measure]:
            values = [part[measure][name][kind]["value"] for part, kind in parts]
            table.append(line.format(f"{title}: {_TITLES[name]}", *("n/a" if value is None else f"{value:.3f}" for value in values)))
    return "\n".join(table)
