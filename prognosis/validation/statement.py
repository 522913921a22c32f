"""What may be said of an evaluation, in sentences: first what stands in the way of a conclusion, then the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prognosis.features.masks import SAW_PATIENT
from prognosis.models.registry import HEADLINE
from prognosis.targets import Target
from prognosis.validation.bootstrap import LABEL
from prognosis.validation.leaks import ENOUGH_EVENTS
from prognosis.validation.metrics import headline

TOO_FEW = "too few events to conclude"
SAW_CENTRE = (
    "segmentation_saw_centre: true (the networks that drew the masks were trained on images and masks, never outcomes, of the hospitals "
    "that are held out here, or nobody can tell that they were not; use --folds loco or grouped, and no initial weights that do not tell "
    "what they saw, for a claim about another hospital)"
)
CONTROLS = {"volume": "tumour volumes alone", "clinical": "clinical columns alone", "null": "the same for everybody"}


def statement(
    target: Target,
    total_events: int,
    patients: int,
    rungs: Mapping[str, Mapping[str, Any]],
    segmentation_saw_centre: bool | None,
    segmentation_saw_patient: bool | None = None,
) -> tuple[str, ...]:
    """The sentences, most important first.

    Args:
        total_events: events, or patients of the rarer class.
        rungs: as in the evaluation's JSON.
    """
    main = "centre" if "centre" in rungs else "random"
    caveats = [*_too_few(target, total_events, patients, rungs[main]["folds"])]
    if segmentation_saw_centre:
        caveats.append(SAW_CENTRE)
    if segmentation_saw_patient:
        caveats.append(SAW_PATIENT)
    lines = ["; ".join(caveats)] if caveats else []
    lines += _figures(target, main, rungs[main], concludes=total_events >= ENOUGH_EVENTS)
    if main == "random":
        lines.append("fewer than two centres are known: nothing can be said about another hospital")
    elif "random" in rungs:
        lines += _shortcut(target, rungs["random"])
    if segmentation_saw_centre is False:
        lines.append("segmentation_saw_centre: false (no network had seen the hospital whose masks it drew)")
    return (*lines, f"intervals: {LABEL}")


def number(metric: Mapping[str, Any] | None) -> str:
    """A metric in words: "0.65 (0.61 to 0.69)", or "not defined"."""
    if metric is None or metric["value"] is None:
        return "not defined"
    if metric["low"] is None:
        return f"{metric['value']:.2f} (no interval)"
    return f"{metric['value']:.2f} ({metric['low']:.2f} to {metric['high']:.2f})"


def _too_few(target: Target, total: int, patients: int, folds: Sequence[Mapping[str, Any]]) -> list[str]:
    what = "events" if target.kind == "survival" else "patients of the rarer class"
    if total < ENOUGH_EVENTS:
        return [f"{TOO_FEW}: {total} {what} among {patients} patients"]
    few = [fold for fold in folds if not fold["claim"]]
    if not few:
        return []
    named = ", ".join(f"{fold['name']} ({fold['why']})" for fold in few)
    return [f"{TOO_FEW} about {'any fold by itself' if len(few) == len(folds) else 'these folds'}: {named}"]


def _figures(target: Target, main: str, rung: Mapping[str, Any], concludes: bool) -> list[str]:
    name = headline(target.kind)
    word = {"c_index": "C-index", "auc": "AUC"}[name]
    where = "each hospital held out in turn, patients compared within it" if main == "centre" else "random folds, compared within centres"
    models = rung["models"]
    beside = "; ".join(f"{words} {number(models[key][name])}" for key, words in CONTROLS.items() if key in models)
    lines = [f"{target.title}: {word} {number(models[HEADLINE][name])} ({where}); {beside}"]
    if "balanced_accuracy" in models[HEADLINE]:
        lines.append(f"balanced accuracy at thresholds from inner folds: {number(models[HEADLINE]['balanced_accuracy'])}")
    for key, metric in rung["differences"].items():
        lines.append(f"{key.replace('_', ' ')}: {number(metric)}" + (_verdict(key, metric) if concludes else ""))
    for key, metrics in rung.get("ceiling", {}).items():
        lines.append(f"ceiling, the true predictor of {key} covariates on the same pairs: {number(metrics[name])}")
    return lines


def _verdict(key: str, metric: Mapping[str, Any]) -> str:
    if "ceiling" in key or metric["low"] is None:
        return ""
    if metric["low"] > 0:
        return ": better"
    return ": worse" if metric["high"] < 0 else ": no difference is shown"


def _shortcut(target: Target, rung: Mapping[str, Any]) -> list[str]:
    name = f"{headline(target.kind)}_across_centres"
    models = rung["models"]
    if "centre" not in models or models["centre"][name]["value"] is None:
        return []
    control, model = models["centre"][name], models[HEADLINE][name]
    caught = control["low"] is not None and control["low"] > 0.5
    lead = "a shortcut is caught" if caught else "no centre shortcut is shown"
    return [
        f"random folds, patients of different centres compared too: {number(model)}; the centre alone reaches {number(control)} there "
        f"({lead}), and 0.50 by construction within a centre"
    ]
