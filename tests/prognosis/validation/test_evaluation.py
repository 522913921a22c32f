"""The whole evaluation of small cohorts: what it says first, what it leaves out, and that its figures are those of its predictions."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from cohorts import make_cohort

from autoseg.evaluation.ranking import auc, concordance
from prognosis.errors import FitError
from prognosis.models.registry import MODELS
from prognosis.validation import folds, selection
from prognosis.validation.ceiling import read_truth
from prognosis.validation.nested import evaluate, fit_final

FAST = {name: MODELS[name] for name in ("null", "volume", "centre", "ridge")}


@pytest.fixture(scope="module", autouse=True)
def quick_inner_loop():
    """Fewer penalties and inner folds: what the inner loop chooses is tested where it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "PENALTIES", (0.25, 4.0))
        patch.setattr(folds, "INNER", 3)
        yield


@pytest.fixture(scope="module")
def survival():
    cohort = make_cohort(n=90, centres=3, seed=1)
    return cohort, evaluate(cohort, segmentation_saw_centre=True, resamples=200)


@pytest.fixture(scope="module")
def shifted():
    """HPV-like: the centres' prevalences lie far apart and nothing else tells the outcome."""
    cohort = make_cohort("binary", n=150, centres=3, signal=0.0, prevalence_shift=1.6, seed=2)
    cohort.outcome.positive[:] &= np.random.default_rng(0).random(150) < 0.75
    return cohort, evaluate(cohort, models=FAST, resamples=200)


def rows_of(evaluation, **wanted):
    rows = csv.DictReader(io.StringIO(evaluation.predictions_csv()))
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def test_the_document_is_json_without_patients(survival):
    cohort, evaluation = survival
    text = json.dumps(evaluation.to_json(), allow_nan=False)
    assert json.loads(text)["schema"] == "autoseg-evaluation/1"
    assert "not a medical device" in text
    assert not any(patient in text for patient in cohort.patients)
    assert json.loads(text)["cohort"]["centres"]["H0"]["patients"] == 30


def test_a_note_that_names_patients_is_told_by_the_command_alone():
    cohort = make_cohort(n=60)
    cohort = replace(
        cohort, notes=("2 patients have every value of another one: P0003 and P0004. Keep one row", "a plain note: of 2 parts")
    )
    quick = {name: MODELS[name] for name in ("null", "ridge")}
    evaluation = evaluate(cohort, models=quick, rungs=("centre",), resamples=20, segmentation_saw_patient=True)
    assert evaluation.notes[:2] == cohort.notes
    assert evaluation.to_json()["notes"][:2] == ["2 patients have every value of another one", "a plain note: of 2 parts"]
    assert "segmentation_saw_patient: true" in evaluation.statement[0]
    assert evaluation.to_json()["segmentation_saw_patient"] is True


def test_the_first_line_says_what_stands_in_the_way(survival, shifted):
    assert "segmentation_saw_centre: true" in survival[1].statement[0]
    assert survival[1].to_json()["segmentation_saw_centre"] is True
    assert shifted[1].statement[0].startswith("HPV status: AUC")  # nothing stands in the way
    assert not any("segmentation_saw_centre" in line for line in shifted[1].statement)


def test_the_headline_is_that_of_the_predictions(survival):
    cohort, evaluation = survival
    rows = rows_of(evaluation, rung="centre", model="ridge")
    assert [row["patient"] for row in rows] == list(cohort.patients)
    assert all(row["fold"] == row["centre"] for row in rows)
    pairs = concordance(cohort.outcome.time_days, cohort.outcome.event, [float(row["risk"]) for row in rows], cohort.centre)
    told = evaluation.rungs["centre"]["models"]["ridge"]["c_index"]
    assert told["value"] == pytest.approx(pairs.index)
    assert told["pairs"] == pairs.comparable
    assert told["low"] < told["value"] < told["high"]
    assert sum(fold["pairs"] for fold in evaluation.rungs["centre"]["models"]["ridge"]["by_fold"]) == pairs.comparable
    assert all(0 <= float(row["probability"]) <= 1 for row in rows)


def test_controls_stand_beside_it(survival):
    _, evaluation = survival
    models = evaluation.rungs["centre"]["models"]
    assert set(models) == {"null", "volume", "clinical", "ridge"}
    assert set(evaluation.rungs["random"]["models"]) == set(models) | {"centre"}
    assert models["null"]["c_index"] == {"value": 0.5, "low": 0.5, "high": 0.5, "pairs": models["ridge"]["c_index"]["pairs"]}
    difference = evaluation.rungs["centre"]["differences"]["ridge_minus_volume"]
    assert difference["value"] == pytest.approx(models["ridge"]["c_index"]["value"] - models["volume"]["c_index"]["value"])
    assert difference["low"] < difference["value"] < difference["high"]


def test_the_shortcut_through_the_centre_is_caught_on_the_random_rung(shifted):
    _, evaluation = shifted
    control = evaluation.rungs["random"]["models"]["centre"]
    assert control["auc_across_centres"]["low"] > 0.6
    assert control["auc"]["value"] == 0.5
    assert any("a shortcut is caught" in line for line in evaluation.statement)


def test_thresholds_are_those_of_inner_folds(shifted):
    cohort, evaluation = shifted
    rows = rows_of(evaluation, rung="centre", model="ridge")
    fits = evaluation.fits["centre"].fits["ridge"]
    assert {row["threshold"] for row in rows} == {repr(fit.selection.threshold) for fit in fits}
    called = np.array([float(row["probability"]) >= float(row["threshold"]) for row in rows])
    positive = cohort.outcome.positive
    expected = (called[positive].mean() + (~called[~positive]).mean()) / 2
    assert evaluation.rungs["centre"]["models"]["ridge"]["balanced_accuracy"]["value"] == pytest.approx(expected)


def test_few_events_are_shown_and_said_first():
    cohort = make_cohort("binary", n=30, centres=2)
    cohort.outcome.positive[:] = np.arange(30) % 6 == 0  # 5 patients, all in the centre H0
    evaluation = evaluate(cohort, models=FAST, resamples=50)
    assert evaluation.statement[0].startswith("too few events to conclude: 5 patients of the rarer class among 30")
    first, second = evaluation.rungs["centre"]["folds"]
    assert not first["claim"]
    assert first["why"].startswith("not fitted: all 15 training patients are negative")
    assert second["why"] == "one class among 15 patients"
    assert evaluation.rungs["centre"]["models"]["ridge"]["auc"]["value"] is None
    json.dumps(evaluation.to_json(), allow_nan=False)


def test_folds_with_few_events_are_named_and_make_no_claim():
    cohort = make_cohort(n=60, centres=2)
    cohort.outcome.event[np.array(cohort.centre) == "H1"] = np.arange(30) < 4
    evaluation = evaluate(cohort, models=FAST, rungs=("centre",), resamples=50)
    assert evaluation.statement[0] == "too few events to conclude about these folds: H1 (4 events, 10 are needed)"
    claims = {fold["name"]: fold["claim"] for fold in evaluation.rungs["centre"]["folds"]}
    assert claims == {"H0": True, "H1": False}


def test_one_centre_says_nothing_about_another():
    cohort = replace(make_cohort(n=50), centre=("",) * 50)
    evaluation = evaluate(cohort, models=FAST, resamples=50)
    assert list(evaluation.rungs) == ["random"]
    assert evaluation.not_evaluated == {
        "rung centre": "fewer than two centres are known",
        "centre": "fewer than two centres are known",
    }
    assert "fewer than two centres are known: nothing can be said about another hospital" in evaluation.statement


def test_patients_without_a_centre_are_told():
    cohort = make_cohort(n=60, centres=3)
    cohort = replace(cohort, centre=("", *cohort.centre[1:]))
    evaluation = evaluate(cohort, models=FAST, resamples=20)
    assert any(note.startswith("1 patients without a centre") for note in evaluation.notes)
    assert len(rows_of(evaluation, rung="centre", model="ridge")) == 59
    assert len(rows_of(evaluation, rung="random", model="ridge")) == 60


def test_a_cohort_without_images_has_no_volume_model():
    cohort = make_cohort(n=60)
    cohort = replace(
        cohort,
        predictors=cohort.predictors[["age", "stage"]],
        groups={"age": "clinical", "stage": "clinical"},
        kinds={"age": "numeric", "stage": "categorical"},
    )
    evaluation = evaluate(cohort, rungs=("centre",), resamples=20)
    assert evaluation.not_evaluated == {"volume": "the cohort has no such column", "clinical": "it has the same columns as ridge"}
    assert set(evaluation.rungs["centre"]["models"]) == {"null", "ridge"}


@pytest.mark.parametrize(
    ("kind", "events", "message"), [("survival", 1, "1 patient.s. with the event"), ("binary", 29, "1 .* rarer class")]
)
def test_one_event_is_an_error(kind, events, message):
    cohort = make_cohort(kind, n=30)
    (cohort.outcome.event if kind == "survival" else cohort.outcome.positive)[:] = np.arange(30) < events
    with pytest.raises(FitError, match=message):
        evaluate(cohort)


def test_the_ceiling_is_that_of_the_truth_on_the_same_pairs(tmp_path):
    cohort = make_cohort("binary", n=60)
    truth = np.random.default_rng(0).normal(size=60)
    lines = ["patient,hpv_logit,hpv_logit_observed,hpv_logit_within,hpv_logit_observed_within"]
    lines += [f"{patient},{2 * x},{x + 1},{-x},{x}" for patient, x in zip(reversed(cohort.patients), reversed(truth), strict=True)]
    (tmp_path / "truth.csv").write_text("\n".join(lines) + "\n")
    evaluation = evaluate(cohort, truth=read_truth(tmp_path / "truth.csv", cohort), models=FAST, rungs=("centre",), resamples=20)
    rung = evaluation.rungs["centre"]
    expected = auc(cohort.outcome.positive, truth, cohort.centre)
    assert rung["ceiling"]["observed"]["auc"]["value"] == pytest.approx(expected.index)
    assert rung["ceiling"]["all"]["auc"]["value"] == pytest.approx(1 - expected.index)
    assert rung["ceiling"]["observed"]["auc"]["pairs"] == rung["models"]["ridge"]["auc"]["pairs"]
    assert "observed_ceiling_minus_ridge" in rung["differences"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["patient,log_hazard,log_hazard_observed", "P0000,1,2"], "has no row for P0001"),
        (
            ["patient,log_hazard", *(f"P{k:04d},1" for k in range(20))],
            "P0000: the column log_hazard_observed must hold a number, found None",
        ),
        (["name,log_hazard"], "is no truth.csv"),
    ],
)
def test_a_truth_of_other_patients_is_refused(tmp_path, lines, message):
    (tmp_path / "truth.csv").write_text("\n".join([*lines, "P0000,x"]) if "name" in lines[0] else "\n".join(lines) + "\n")
    with pytest.raises(FitError, match=message):
        read_truth(tmp_path / "truth.csv", make_cohort(n=20))


def test_the_final_model_is_fitted_on_everybody(survival):
    cohort, _ = survival
    final = fit_final(cohort)
    assert final.fitted.model.last == cohort.outcome.time_days.max()
    assert final.cut == pytest.approx(np.median(final.fitted.risk(cohort.predictors)))
