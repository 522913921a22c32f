"""Held-out patients teach nothing: with their predictors and outcomes replaced by garbage, every fitted number stays the same bit by bit.

The same check finds leaks that are put in on purpose: a scaler fitted on all rows, an encoder that sees them, an inner loop that does.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
from cohorts import make_cohort

from prognosis.models import pipeline
from prognosis.models.encode import Encoder
from prognosis.models.registry import MODELS, RUNGS
from prognosis.validation import rung as rungs
from prognosis.validation.folds import Fold, outer_folds
from prognosis.validation.part import Part
from prognosis.validation.rung import run_rung
from prognosis.validation.selection import select


def poisoned(part: Part, rows: np.ndarray, seed: int = 1) -> Part:
    """Some patients' every value and outcome replaced by garbage; who and where they are stays, for that is what folds are made of."""
    random = np.random.default_rng(seed)
    frame = part.frame.copy()
    for column, kind in part.kinds.items():
        if column not in part.groups:
            continue
        garbage = random.choice([np.nan, np.inf, -1e12, 1e12], len(rows)) if kind == "numeric" else "garbage"
        frame.iloc[rows, frame.columns.get_loc(column)] = garbage
    if part.kind == "binary":
        positive = part.outcome.positive.copy()
        positive[rows] = ~positive[rows]
        return replace(part, frame=frame, outcome=replace(part.outcome, positive=positive))
    time, event = part.outcome.time_days.copy(), part.outcome.event.copy()
    time[rows], event[rows] = random.uniform(0.1, 1e6, len(rows)), ~event[rows]
    return replace(part, frame=frame, outcome=replace(part.outcome, time_days=time, event=event))


def learned(part: Part, fold: Fold, rung: str, names) -> str:
    """Every fitted number of some models on one fold; JSON writes floats so that equal text means equal bits."""
    run = run_rung(rung, part, (fold,), {name: MODELS[name] for name in names}, seed=0, horizon_days=600.0)
    assert run.problems == {}
    return json.dumps({name: fits[0].state() for name, fits in run.fits.items()}, sort_keys=True)


def changes(part: Part, fold: Fold, rung: str, names, prepare=lambda part: part) -> bool:
    """Whether poisoning the held-out patients changes anything that is learned; `prepare` runs on all rows first."""
    return learned(prepare(part), fold, rung, names) != learned(prepare(poisoned(part, fold.test)), fold, rung, names)


def small(kind: str) -> Part:
    return Part.of(make_cohort(kind, n=60, centres=4))


@pytest.mark.parametrize("kind", ["survival", "binary"])
@pytest.mark.parametrize("rung", RUNGS)
def test_held_out_patients_teach_no_model_of_the_registry_anything(kind, rung):
    part = small(kind)
    names = [name for name, model in MODELS.items() if rung in model.rungs]
    assert names == [name for name in ("null", "volume", "clinical", "centre", "ridge") if (rung, name) != ("centre", "centre")]
    folds = outer_folds(rung, part.centre, part.happened, 0)
    assert not changes(part, folds[0], rung, names)


def test_the_poison_is_felt_by_those_who_train_on_it():
    part = small("survival")
    fold = outer_folds("centre", part.centre, part.happened, 0)[0]
    assert learned(part, fold, "centre", ["volume"]) != learned(poisoned(part, fold.train[:3]), fold, "centre", ["volume"])


def test_a_scaler_fitted_on_all_rows_is_found():
    def scaled(part: Part) -> Part:
        values = part.frame["texture"].where(np.isfinite(part.frame["texture"]))
        return replace(part, frame=part.frame.assign(texture=(values - values.mean()) / values.std()))

    part = small("survival")
    fold = outer_folds("centre", part.centre, part.happened, 0)[0]
    assert changes(part, fold, "centre", ["ridge"], prepare=scaled)


def test_an_encoder_that_sees_all_rows_is_found(monkeypatch):
    part = small("binary")
    fold = outer_folds("centre", part.centre, part.happened, 0)[0]

    def learned_with_leak(whole: Part) -> str:
        class Leaky(Encoder):
            @staticmethod
            def fit(frame, kinds, columns):
                return Encoder.fit(whole.frame, kinds, columns)

        with monkeypatch.context() as patch:
            patch.setattr(pipeline, "Encoder", Leaky)
            return learned(whole, fold, "centre", ["clinical"])

    assert learned_with_leak(part) != learned_with_leak(poisoned(part, fold.test))


def test_an_inner_loop_that_sees_all_rows_is_found(monkeypatch):
    part = small("binary")
    fold = outer_folds("centre", part.centre, part.happened, 0)[0]

    def learned_with_leak(whole: Part) -> str:
        with monkeypatch.context() as patch:
            patch.setattr(rungs, "select", lambda train, columns, rung, seed: select(whole, columns, rung, seed))
            return learned(whole, fold, "centre", ["null"])

    assert learned_with_leak(part) != learned_with_leak(poisoned(part, fold.test))
