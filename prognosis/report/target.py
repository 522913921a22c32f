"""What the report says of one target: what was asked, the cohort, the figures, what could not be concluded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from autoseg.report import html
from prognosis.models.registry import HEADLINE, MODELS
from prognosis.report.figures import Interval, calibration, forest, kaplan_meier, roc
from prognosis.report.held_out import FEWEST_A_GROUP, HeldOut, calibration_points, labels_by_fold, risk_groups
from prognosis.validation.statement import TOO_FEW, number

Document = Mapping[str, Any]

WORDS = {
    "c_index": "C-index",
    "c_index_at_horizon": "C to the horizon",
    "uno_c": "Uno's C",
    "auc": "AUC",
    "balanced_accuracy": "balanced accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "brier": "Brier score",
    "prediction_accuracy": "IPA",
}
RUNG_WORDS = {"centre": "each hospital held out in turn", "random": "random folds"}


def target_parts(evaluation: Document, folder: Path, *, with_patients: bool = False) -> Iterator[str]:
    """The HTML of one target.

    Args:
        evaluation: its evaluation.json.
        folder: where its predictions.csv lies.
        with_patients: also show a row a patient.
    """
    target, rungs = evaluation["target"], evaluation["rungs"]
    main = "centre" if "centre" in rungs else "random"
    metric = "c_index" if target["kind"] == "survival" else "auc"
    held_out = HeldOut.read(folder / "predictions.csv", main, HEADLINE)
    yield html.heading(f"{target['title']} ({target['name']})")
    said = [*evaluation["statement"]]
    yield html.first_lines(said, warning=_saw(evaluation) or said[0].startswith(TOO_FEW))
    yield html.heading("What was asked", 3)
    yield html.table(("", ""), _asked(target, evaluation["cohort"]))
    yield html.heading("Cohort flow", 3)
    yield html.table(("step", "patients left", "taken out", "why"), _flow(evaluation["cohort"]["flow"]), numbers=(1, 2))
    yield _centres(evaluation["cohort"]["centres"])
    yield html.heading(f"Model beside controls: {RUNG_WORDS[main]}", 3)
    yield _forest(rungs[main], metric)
    yield _models(rungs[main])
    yield _differences(rungs[main])
    yield html.heading("Fold by fold", 3)
    yield _folds(rungs[main], metric)
    yield from _curves(held_out, target)
    if main == "centre" and "random" in rungs:
        yield html.heading("What random folds would have said", 3)
        yield html.paragraph(
            "Patients of one hospital are in training and test alike, and patients of different hospitals are compared with each other: "
            "the figures that most papers report. The model that sees nothing but the hospital shows how much of them is a shortcut."
        )
        yield _across(rungs["random"], metric)
    yield html.heading("What could not be concluded", 3)
    yield html.listed(_open_questions(evaluation, main))
    if with_patients:
        yield html.heading("Patients (held-out predictions)", 3)
        yield _patients(held_out, target["kind"])


def _asked(target: Document, cohort: Document) -> Iterator[tuple[str, str]]:
    yield "kind", {"survival": "time to an event", "binary": "yes or no"}[target["kind"]]
    yield "event" if target["kind"] == "survival" else "label", f"column {target['event']!r}, {target['positive']} counts"
    if target["time"]:
        yield "time", f"column {target['time']!r}, in {target['unit']}, from {target['origin'] or 'an origin that was not declared'}"
    if target["competing"]:
        yield "competing events", f"{', '.join(target['competing'])}: such patients are censored at them"
    if target["horizon_days"]:
        yield "horizon", f"{target['horizon_days']:g} days"
    if target["excluded"]:
        yield "no predictors", f"{', '.join(target['excluded'])}: {target['why_excluded']}"
    predictors = ", ".join(f"{count} {group}" for group, count in cohort["predictors"].items())
    yield "predictors", predictors
    yield "patients", ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in cohort["status"].items())


def _flow(steps: Sequence[Document]) -> Iterator[tuple[object, ...]]:
    for step in steps:
        yield step["step"], step["patients"], step["removed"] or "", step["why"]


def _centres(centres: Mapping[str, Document]) -> str:
    (_, other), *_ = [tuple(entry) for entry in centres.values()]
    rows = [
        (name or "(not known)", entry["patients"], entry[other], f"{entry[other] / entry['patients']:.0%}")
        for name, entry in centres.items()
    ]
    return html.table(("hospital", "patients", other, "share"), rows, numbers=(1, 2, 3))


def _forest(rung: Document, metric: str) -> str:
    rows = []
    for name, metrics in rung["models"].items():
        told = metrics[metric]
        if told["value"] is not None:
            low, high = (float("nan") if told[side] is None else told[side] for side in ("low", "high"))
            rows.append(Interval(_title(name), told["value"], low, high, emphasis=name == HEADLINE))
    observed = rung["ceiling"].get("observed", {}).get(metric, {}).get("value")
    caption = "Only pairs of patients of one test fold and one hospital are counted. Lines are 95 % bootstrap intervals, predictions fixed."
    if observed is not None:
        caption += " Truth: the predictor that the cohort was generated from, with what a table and images can show, on the same pairs."
    return html.figure(forest(rows, metric=WORDS[metric], ceiling=observed), caption)


def _models(rung: Document) -> str:
    models = rung["models"]
    names = [name for name in WORDS if any(name in metrics for metrics in models.values())]
    rows = [(_title(name), *(_short(metrics.get(metric)) for metric in names)) for name, metrics in models.items()]
    for which, metrics in rung["ceiling"].items():
        rows.append((f"truth, {which} covariates", *(_short(metrics[metric]) if metric in metrics else "" for metric in names)))
    strong = [place for place, name in enumerate(models) if name == HEADLINE]
    return html.table(("model", *(WORDS[name] for name in names)), rows, numbers=range(1, len(names) + 1), strong=strong)


def _differences(rung: Document) -> str:
    rows = [(name.replace("_", " "), _short(metric)) for name, metric in rung["differences"].items()]
    return html.table(("difference on the same pairs", "value (95 % interval)"), rows, numbers=(1,)) if rows else ""


def _folds(rung: Document, metric: str) -> str:
    shown = [name for name in (HEADLINE, "volume", "clinical") if name in rung["models"]]
    by_model = {name: {entry["fold"]: entry for entry in rung["models"][name]["by_fold"]} for name in shown}
    rows = []
    for fold in rung["folds"]:
        values = [by_model[name][fold["name"]]["value"] for name in shown]
        cells = ["not defined" if value is None else f"{value:.2f}" for value in values]
        counts = [f"{fold[part]['patients']} ({fold[part]['events']})" for part in ("train", "test")]
        rows.append((fold["name"], *counts, *cells, fold["why"] or "yes"))
    header = ("held out", "training (events)", "test (events)", *(f"{WORDS[metric]}, {name}" for name in shown), "a claim?")
    return html.table(header, rows, numbers=range(1, 3 + len(shown)))


def _curves(held_out: HeldOut, target: Document) -> Iterator[str]:
    if target["kind"] == "survival":
        yield html.heading("Survival by risk group", 3)
        yield html.figure(
            kaplan_meier(risk_groups(held_out), horizon_days=target["horizon_days"], title=target["title"]),
            "Held-out patients, lower or higher than the median risk of their own fold's training patients: the cut was fixed before any "
            "of them was looked at. No p-value: groups of cross-validation are not independent. Numbers at risk below.",
        )
    if target["kind"] == "survival" and not target["horizon_days"]:
        return
    parts = []
    if target["kind"] == "binary":
        parts.append(html.figure(roc(labels_by_fold(held_out)), "By test fold: probabilities of different folds are not on one scale."))
    quantity = "probability" if target["kind"] == "binary" else f"risk at {target['horizon_days']:g} days"
    points = calibration_points(held_out, target["horizon_days"] if target["kind"] == "survival" else None)
    caption = f"Groups of at least {FEWEST_A_GROUP} held-out patients with similar predictions, by test fold."
    parts.append(html.figure(calibration(points, quantity=quantity), caption))
    yield html.heading("Calibration" if target["kind"] == "survival" else "Discrimination and calibration by fold", 3)
    yield html.side_by_side(parts)


def _across(rung: Document, metric: str) -> str:
    rows = []
    for name, metrics in rung["models"].items():
        rows.append((_title(name), _short(metrics[f"{metric}_across_centres"]), _short(metrics[metric])))
    for which, metrics in rung["ceiling"].items():
        rows.append((f"truth, {which} covariates", _short(metrics.get(f"{metric}_across_centres")), _short(metrics[metric])))
    header = ("model", f"{WORDS[metric]}, all pairs of a fold", f"{WORDS[metric]}, pairs within a hospital")
    strong = [place for place, name in enumerate(rung["models"]) if name == "centre"]
    return html.table(header, rows, numbers=(1, 2), strong=strong)


def _saw(evaluation: Document) -> bool:
    """Whether the networks behind the masks knew more of the held-out patients than of new ones."""
    return evaluation["segmentation_saw_centre"] is True or evaluation.get("segmentation_saw_patient") is True


def _open_questions(evaluation: Document, main: str) -> Iterator[str]:
    for fold in evaluation["rungs"][main]["folds"]:
        if not fold["claim"]:
            yield f"fold {fold['name']}: {fold['why']}"
    for name, why in evaluation["not_evaluated"].items():
        yield f"{name} was not evaluated: {why}"
    yield from evaluation["notes"]
    if main == "random":
        yield "Nothing is known about another hospital: no two hospitals are named in the table."
    elif evaluation["segmentation_saw_centre"]:
        yield "How well masks of a hospital that the segmentation networks never saw would serve: they saw these, or may have."
    if evaluation.get("segmentation_saw_patient"):
        yield "How well masks would serve of patients of whom no network had a trace: those of this cascade had one."
    yield f"How much the model itself would change with other training patients; every interval here is a {evaluation['interval']}."
    yield "Whether any of this holds for later patients: nothing here is prospective."


def _patients(held_out: HeldOut, kind: str) -> str:
    rows = []
    for row in range(len(held_out)):
        outcome = ("yes" if held_out.happened[row] else "no",) + ((f"{held_out.time_days[row]:.0f}",) if kind == "survival" else ())
        probability = f"{held_out.probability[row]:.3f}" if held_out.probability[row] == held_out.probability[row] else ""
        rows.append((held_out.patient[row], held_out.centre[row], held_out.fold[row], f"{held_out.risk[row]:.3f}", probability, *outcome))
    times = ("days",) if kind == "survival" else ()
    return html.table(("patient", "hospital", "fold", "risk", "probability", "happened", *times), rows, numbers=(3, 4))


def _short(metric: Document | None) -> str:
    """For a table's cell: a dash between bounds saves room, but beside a minus sign it could not be read."""
    text = number(metric)
    return text if "(-" in text or "to -" in text else text.replace(" to ", "–")


def _title(name: str) -> str:
    return MODELS[name].title if name in MODELS else name
