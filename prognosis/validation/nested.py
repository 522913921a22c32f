"""The whole evaluation of a cohort: rungs, models beside controls, differences, ceiling, and what may be said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from prognosis.errors import FitError
from prognosis.models.registry import CENTRE_COLUMN, HEADLINE, MODELS, RUNGS, Model
from prognosis.validation.bootstrap import RESAMPLES, resample_weights
from prognosis.validation.ceiling import Truth
from prognosis.validation.evaluation import Evaluation
from prognosis.validation.folds import Fold, outer_folds
from prognosis.validation.leaks import ENOUGH_EVENTS, refuse_leaks
from prognosis.validation.metrics import (
    all_metrics,
    difference,
    headline,
    none_if_nan,
    ranked,
    ranking,
    taus_of,
    within_groups,
)
from prognosis.validation.part import Part, events
from prognosis.validation.rung import FoldFit, Rung, fit_fold, run_rung
from prognosis.validation.statement import statement

if TYPE_CHECKING:
    from prognosis.cohort import Cohort

LEAST_EVENTS = 2
"""One to fit on and one to test on; below that there is nothing to show."""

ADVISED_EVENTS_A_COLUMN = 10

COMPARED = ("volume", "clinical")
"""The models that the headline model is compared with."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Matrices of a few hundred rows: a second thread of the linear algebra costs more than it gains, up to twenty times as much."""
    import scipy.linalg  # noqa: F401  # its library must be loaded to be limited
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield


@one_thread()
def evaluate(
    cohort: Cohort,
    seed: int = 0,
    truth: Mapping[str, Truth] | None = None,
    segmentation_saw_centre: bool | None = None,
    segmentation_saw_patient: bool | None = None,
    models: Mapping[str, Model] = MODELS,
    rungs: Sequence[str] = RUNGS,
    resamples: int = RESAMPLES,
) -> Evaluation:
    """How good the models are for a cohort: nested cross-validation with whole patients, by centre and at random.

    Args:
        truth: of a generated cohort, for the ceiling; see `read_truth`.
        segmentation_saw_centre: whether the networks behind the masks had seen the held-out centres; None where no masks were used.
        segmentation_saw_patient: whether they had learned from masks by networks that had seen the patients; None where not known.
        models: to fit; the headline model and "null" among them.
        rungs: to climb.
        resamples: of the bootstrap.

    Raises:
        FitError: fewer than two events or two patients of a class, or a single column that repeats the outcome.
    """
    part = Part.of(cohort)
    total = events(part.happened, part.kind)
    require_events(cohort, total)
    notes = [*cohort.notes, *refuse_leaks(part, seed), *_sparse(part, total)]
    usable, not_evaluated = _usable(part, models)
    weights = resample_weights(cohort.centre, resamples, seed)
    fits: dict[str, Rung] = {}
    results: dict[str, dict[str, Any]] = {}
    for name in rungs:
        folds = outer_folds(name, cohort.centre, part.happened, seed)
        if not folds:
            not_evaluated[f"rung {name}"] = "fewer than two centres are known"
            continue
        chosen = {key: model for key, model in usable.items() if name in model.rungs}
        fits[name] = run_rung(name, part, folds, chosen, seed, cohort.target.horizon_days)
        results[name] = summarise(part, fits[name], weights, cohort.target.horizon_days, truth)
    homeless = sum(centre == "" for centre in cohort.centre)
    if homeless and "centre" in results:
        notes.append(f"{homeless} patients without a centre are in no fold that holds out centres: theirs may be the one held out")
    said = statement(cohort.target, total, len(part), results, segmentation_saw_centre, segmentation_saw_patient)
    return Evaluation(cohort, seed, segmentation_saw_centre, segmentation_saw_patient, said, tuple(notes), results, not_evaluated, fits)


@one_thread()
def fit_final(cohort: Cohort, seed: int = 0, model: Model = MODELS[HEADLINE]) -> FoldFit:
    """The model that goes into use, fitted on every patient; its penalty and threshold come from inner folds as in the evaluation.

    Raises:
        FitError: as `evaluate`, or no convergence.
    """
    part = Part.of(cohort)
    require_events(cohort, events(part.happened, part.kind))
    return fit_fold(part, model.columns(part.groups), "centre", (seed, len(part)))


def require_events(cohort: Cohort, total: int) -> None:
    """Raises FitError where there are fewer than two events, or two patients of a class."""
    if total >= LEAST_EVENTS:
        return
    what = "patient(s) with the event" if cohort.target.kind == "survival" else "patient(s) of the rarer class"
    raise FitError(
        f"target {cohort.target.name}: {total} {what} among {len(cohort.patients)}: at least {LEAST_EVENTS} are needed, one to fit on and "
        f"one to test on, and {ENOUGH_EVENTS} a fold to conclude. Check the column {cohort.target.event!r}, or add patients"
    )


def summarise(
    part: Part, rung: Rung, weights: np.ndarray, horizon_days: float | None, truth: Mapping[str, Truth] | None = None
) -> dict[str, Any]:
    """A rung as JSON: folds, metrics by model, differences of the headline metric, ceiling.

    Args:
        weights: bootstrap weights, shape (B, n).
    """
    name = headline(part.kind)
    metrics = all_metrics(part, rung, horizon_days)
    ceiling = {key: ranked(part, rung, one.within, one.across, horizon_days) for key, one in (truth or {}).items()}
    differences = {
        f"{HEADLINE}_minus_{other}": difference(metrics[HEADLINE][name], metrics[other][name])
        for other in COMPARED
        if other in metrics and HEADLINE in metrics
    }
    if "observed" in ceiling and HEADLINE in metrics:
        differences[f"observed_ceiling_minus_{HEADLINE}"] = difference(ceiling["observed"][name], metrics[HEADLINE][name])
    return {
        "folds": _folds(part, rung, horizon_days),
        "models": {
            model: {key: metric.to_json(weights) for key, metric in found.items()} | {"by_fold": _by_fold(part, rung, model, weights)}
            for model, found in metrics.items()
        },
        "differences": {key: metric.to_json(weights) for key, metric in differences.items()},
        "ceiling": {key: {which: metric.to_json(weights) for which, metric in one.items()} for key, one in ceiling.items()},
    }


def _folds(part: Part, rung: Rung, horizon_days: float | None) -> list[dict[str, Any]]:
    taus = taus_of(part, rung, horizon_days) if part.kind == "survival" else [None] * len(rung.folds)
    told = []
    for fold, tau in zip(rung.folds, taus, strict=True):
        why = _why_no_claim(part, rung, fold)
        entry: dict[str, Any] = {
            "name": fold.name,
            "train": {"patients": len(fold.train), "events": int(part.happened[fold.train].sum())},
            "test": {"patients": len(fold.test), "events": int(part.happened[fold.test].sum())},
            "claim": not why,
            "why": why,
        }
        if tau is not None:
            entry["uno_tau_days"] = none_if_nan(float(tau))
        told.append(entry)
    return told


def _why_no_claim(part: Part, rung: Rung, fold: Fold) -> str:
    seen = events(part.happened[fold.test], part.kind)
    if fold.name in rung.problems:
        return f"not fitted: {rung.problems[fold.name]}"
    if part.kind == "binary" and seen == 0:
        return f"one class among {len(fold.test)} patients"
    if seen < ENOUGH_EVENTS:
        what = ("event" if seen == 1 else "events") if part.kind == "survival" else "of the rarer class"
        return f"{seen} {what}, {ENOUGH_EVENTS} are needed"
    return ""


def _by_fold(part: Part, rung: Rung, model: str, weights: np.ndarray) -> list[dict[str, Any]]:
    """The headline metric of each fold; a fold of few events is shown without an interval, for nothing is claimed of it."""
    told = []
    groups = within_groups(part, rung)
    for number, (fold, fit) in enumerate(zip(rung.folds, rung.fits[model], strict=True)):
        own = [group if rung.fold_of[row] == number else None for row, group in enumerate(groups)]
        found = ranking(part, rung.predictions[model].risk, own).to_json(weights)
        if _why_no_claim(part, rung, fold):
            found |= {"low": None, "high": None}
        entry = {"fold": fold.name, **found}
        if fit is not None:
            entry |= {"penalty": asdict(fit.selection.penalty), "threshold": fit.selection.threshold, "cut": fit.cut}
        told.append(entry)
    return told


def _usable(part: Part, models: Mapping[str, Model]) -> tuple[dict[str, Model], dict[str, str]]:
    """The models that have what they need, and why the others have not."""
    usable, lacking = {}, {}
    everything = set(models[HEADLINE].columns(part.groups))
    for name, model in models.items():
        columns = model.columns(part.groups)
        if name != "null" and not columns:
            lacking[name] = "the cohort has no such column"
        elif CENTRE_COLUMN in columns and len(set(part.centre) - {""}) < 2:
            lacking[name] = "fewer than two centres are known"
        elif name != HEADLINE and set(columns) == everything:
            lacking[name] = f"it has the same columns as {HEADLINE}"
        else:
            usable[name] = model
    return usable, lacking


def _sparse(part: Part, total: int) -> list[str]:
    columns = len(part.groups)
    if not columns or total >= ADVISED_EVENTS_A_COLUMN * columns:
        return []
    what = "events" if part.kind == "survival" else "patients of the rarer class"
    return [
        f"{total} {what} for {columns} predictors ({total / columns:.1f} each; {ADVISED_EVENTS_A_COLUMN} are advised): "
        "the ridge shrinks, and intervals leave out how unstable that makes the model"
    ]
