"""What an evaluation found: by case, by centre and overall; as a table, JSON, CSV and in nnU-Net's summary.json shape."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg.evaluation.lesions import aggregated_f1
from autoseg.evaluation.overlap import aggregated_dice
from autoseg.evaluation.scores import METRICS, SCORE_COLUMNS, Label, Scores, Settings

SCHEMA = "autoseg-evaluation/1"
OVERALL = "all"


@dataclass(frozen=True)
class CaseScores:
    """One case: its name, its centre ("" where unknown), its scores by label name."""

    case: str
    centre: str
    scores: Mapping[str, Scores]


@dataclass(frozen=True)
class Mean:
    """A metric over cases.

    Attributes:
        mean: over the cases where the metric is finite; nan where there is none.
        count: how many those are.
        undefined: cases left out because both masks are empty.
        infinite: cases left out because one mask is empty and the metric a distance.
    """

    mean: float
    count: int
    undefined: int
    infinite: int

    @staticmethod
    def of(values: Sequence[float]) -> Mean:
        finite = [value for value in values if math.isfinite(value)]
        mean = math.fsum(finite) / len(finite) if finite else math.nan
        return Mean(mean, len(finite), sum(map(math.isnan, values)), sum(map(math.isinf, values)))


@dataclass(frozen=True)
class Summary:
    """One label over some cases: a `Mean` by metric name, and Dice and lesion-wise F1 of all cases taken as one."""

    cases: int
    means: Mapping[str, Mean]
    dice_aggregated: float
    lesion_f1_aggregated: float

    @staticmethod
    def of(scores: Sequence[Scores]) -> Summary:
        return Summary(
            cases=len(scores),
            means={name: Mean.of([getattr(score, name) for score in scores]) for name in METRICS},
            dice_aggregated=aggregated_dice([score.voxels for score in scores], [score.voxel_ml for score in scores]),
            lesion_f1_aggregated=aggregated_f1(score.lesions for score in scores),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: None for nan."""
        return _without_nan(
            {
                "cases": self.cases,
                **{name: vars(mean) for name, mean in self.means.items()},
                "dice_aggregated": self.dice_aggregated,
                "lesion_f1_aggregated": self.lesion_f1_aggregated,
            }
        )


@dataclass(frozen=True)
class Evaluation:
    """Scores of a set of predictions.

    Attributes:
        labels: foreground labels, name -> value or values.
        settings: of the metrics.
        cases: scored cases.
        failures: case -> why it could not be scored (no prediction, broken file, other grid); among `cases` too where it counts as empty.
        extra_predictions: predictions without a reference.
        notes: what a reader should know.
    """

    labels: Mapping[str, Label]
    settings: Settings
    cases: tuple[CaseScores, ...]
    failures: Mapping[str, str]
    extra_predictions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def centres(self) -> tuple[str, ...]:
        """Names of the centres, sorted; empty where the cases have none."""
        return tuple(sorted({case.centre for case in self.cases if case.centre}))

    def summary(self, label: str, centre: str | None = None) -> Summary:
        """One label over all cases, or over those of a centre."""
        return Summary.of([case.scores[label] for case in self.cases if centre is None or case.centre == centre])

    @property
    def mean_dice(self) -> float:
        """Mean over labels of the mean Dice over cases; nan where no label has one."""
        return self.foreground_mean("dice")

    def foreground_mean(self, metric: str, centre: str | None = None) -> float:
        """Mean over labels of the mean over cases of a metric; labels without a finite value are left out."""
        return Mean.of([self.summary(label, centre).means[metric].mean for label in self.labels]).mean

    def to_dict(self) -> dict[str, Any]:
        """Everything, JSON-able; nan and inf are None (the field `empty` and the counts tell which)."""
        groups: dict[str, str | None] = {OVERALL: None, **{centre: centre for centre in self.centres}}
        return _without_nan(
            {
                "schema": SCHEMA,
                "settings": vars(self.settings),
                "labels": {name: list(value) if isinstance(value, tuple) else value for name, value in self.labels.items()},
                "cases_scored": len(self.cases),
                "cases_failed": len(self.failures),
                "summary": {
                    group: {
                        **{label: self.summary(label, centre).to_dict() for label in self.labels},
                        "mean": {metric: self.foreground_mean(metric, centre) for metric in METRICS},
                    }
                    for group, centre in groups.items()
                },
                "cases": [
                    {"case": case.case, "centre": case.centre, "labels": {name: s.to_dict() for name, s in case.scores.items()}}
                    for case in self.cases
                ],
                "failures": dict(self.failures),
                "extra_predictions": list(self.extra_predictions),
                "notes": list(self.notes),
            }
        )

    def to_json(self) -> str:
        """`to_dict` as strict JSON."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"

    def to_csv(self) -> str:
        """One row a case and label; nan and inf are empty fields; failed cases have a row with the reason."""
        columns = ["case", "centre", "label", *SCORE_COLUMNS, "failure"]
        text = io.StringIO()
        rows = csv.DictWriter(text, columns, lineterminator="\n")
        rows.writeheader()
        for case in self.cases:
            for label, scores in case.scores.items():
                values = {name: "" if value is None else value for name, value in _without_nan(scores.to_dict()).items()}
                rows.writerow({"case": case.case, "centre": case.centre, "label": label, **values})
        for name, reason in self.failures.items():
            rows.writerow({"case": name, "failure": reason})
        return text.getvalue()

    def to_nnunet_summary(self, files: Mapping[str, tuple[Path, Path]] | None = None, *, keep_nan: bool = False) -> dict[str, Any]:
        """The shape of nnU-Net's summary.json: metric_per_case, mean by label value, foreground_mean.

        Args:
            files: case -> (reference file, prediction file), for the two path entries of a case; without it the case's name stands there.
            keep_nan: nan as in nnU-Net's own files, which are no strict JSON; else None.
        """
        per_case = []
        for case in self.cases:
            reference, prediction = (files or {}).get(case.case, (case.case, case.case))
            metrics = {str(self.labels[label]): _nnunet_metrics(scores) for label, scores in case.scores.items()}
            per_case.append({"metrics": metrics, "prediction_file": str(prediction), "reference_file": str(reference)})
        keys = [str(value) for value in self.labels.values()]
        mean = {key: _mean_of([case["metrics"][key] for case in per_case]) for key in keys}
        document = {"foreground_mean": _mean_of(list(mean.values())), "mean": mean, "metric_per_case": per_case}
        return document if keep_nan else _without_nan(document)

    def table(self) -> str:
        """The result as text: a line a label and centre, then what failed and what was noted."""
        lines = [_HEADER.format(*_TITLES), *self._rows(None, OVERALL)]
        for centre in self.centres if len(self.centres) > 1 else ():
            lines += self._rows(centre, centre)
        lines += ["", *self._remarks()]
        return "\n".join(lines).rstrip()

    def _rows(self, centre: str | None, group: str) -> list[str]:
        rows = []
        for label in self.labels:
            summary = self.summary(label, centre)
            values = [_show(summary.means[name].mean, digits) for name, digits in _SHOWN]
            left_out = summary.means["dice"].undefined, summary.means["hd95_mm"].infinite
            rows.append(_HEADER.format(group[:16], label[:18], summary.cases, *values, *(count or "" for count in left_out)))
        if len(self.labels) > 1:
            values = [_show(self.foreground_mean(name, centre), digits) for name, digits in _SHOWN]
            rows.append(_HEADER.format(group[:16], "mean of labels", "", *values, "", ""))
        return rows

    def _remarks(self) -> list[str]:
        s = self.settings
        lines = [
            f"NSD: surface Dice at {s.tolerance_mm:g} mm. Lesion F1: IoU > {s.lesion_iou:g}, {s.connectivity}-connected. Means over cases.",
            "n/a: both masks empty, left out of every mean. One empty: one mask is empty; Dice, NSD and F1 are 0, HD95 is left out.",
        ]
        lines += [f"note: {note}" for note in self.notes]
        if self.extra_predictions:
            lines.append(f"note: predictions without a reference, not scored: {', '.join(self.extra_predictions)}")
        lines += [f"failed: {reason}" for reason in self.failures.values()]
        return lines


def _without_nan(value: Any) -> Any:
    """The same with None for nan and inf, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _nnunet_metrics(scores: Scores) -> dict[str, float]:
    voxels = scores.voxels
    return {
        "Dice": voxels.dice,
        "FN": voxels.fn,
        "FP": voxels.fp,
        "IoU": voxels.iou,
        "TN": voxels.tn,
        "TP": voxels.tp,
        "n_pred": voxels.prediction,
        "n_ref": voxels.reference,
    }


def _mean_of(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Key by key the mean of what is not nan."""
    return {key: Mean.of([item[key] for item in metrics]).mean for key in (metrics[0] if metrics else ())}


_SHOWN = (("dice", 3), ("surface_dice", 3), ("hd95_mm", 1), ("lesion_f1", 3))
_TITLES = ("centre", "label", "cases", "Dice", "NSD", "HD95 mm", "lesion F1", "n/a", "one empty")
_HEADER = "{:<16} {:<18} {:>5} {:>7} {:>7} {:>8} {:>10} {:>5} {:>10}"


def _show(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "n/a"
