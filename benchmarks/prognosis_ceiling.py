"""How close the models come to the ceiling of generated cohorts, what they make of noise, and whether the shortcut is caught.

    python benchmarks/prognosis_ceiling.py FOLDER [--cohorts 10] [--without-signal 20] [--patients 1000] [--centres 5] [--json FILE]

Every cohort is a table only (`autoseg_convert phantom --table-only`). The ceiling is the true predictor of what is observed, on the same
held-out patients and pairs. Ends with 1 where a figure misses its limit.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from autoseg import files
from autoseg.importers.cohort.write import write_cohort
from prognosis.cohort import load_cohort
from prognosis.declaration import read_declaration
from prognosis.features.table import FeatureTable
from prognosis.models.registry import MODELS
from prognosis.validation.ceiling import read_truth
from prognosis.validation.evaluation import Evaluation
from prognosis.validation.metrics import headline
from prognosis.validation.nested import evaluate

GAP, CHANCE = 0.03, 0.02
TARGETS = ("rfs", "hpv")


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path)
    options.add_argument("--cohorts", type=int, default=10)
    options.add_argument("--without-signal", type=int, default=20)
    options.add_argument("--patients", type=int, default=1000)
    options.add_argument("--centres", type=int, default=5)
    options.add_argument("--json", type=Path)
    chosen = options.parse_args()
    print("cohort target  ridge  ceiling  gap     volume clinical | random folds, across centres: ridge  centre only (low)")
    with_signal = [row for seed in range(chosen.cohorts) for row in run(chosen, seed, signal=True)]
    without = [row for seed in range(chosen.without_signal) for row in run(chosen, seed, signal=False)]
    verdicts = [*gaps(with_signal), *chance(without), *shortcut(with_signal)]
    for words, met in verdicts:
        print(f"{'met   ' if met else 'MISSED'} {words}")
    if chosen.json:
        files.write_json(chosen.json, {"with_signal": with_signal, "without_signal": without, "verdicts": verdicts})
    return 0 if all(met for _, met in verdicts) else 1


def run(chosen: argparse.Namespace, seed: int, signal: bool) -> list[dict[str, Any]]:
    """A row for each target of one cohort; without signal only the headline model by centre."""
    folder = chosen.folder / f"{'signal' if signal else 'noise'}-{seed:02d}"
    if not folder.exists():
        write_cohort(folder, patients=chosen.patients, centres=chosen.centres, seed=1000 + seed, table_only=True, signal=signal)
    declaration = read_declaration(None)
    features = FeatureTable.read(folder / "features.csv")
    rows = []
    for target in TARGETS:
        started = time.monotonic()
        cohort = load_cohort(folder / "cases.csv", features, target, declaration)
        truth = read_truth(folder / "truth.csv", cohort)
        if signal:
            evaluation = evaluate(cohort, seed, truth, features.segmentation_saw_centre)
        else:
            models = {name: MODELS[name] for name in ("null", "ridge")}
            evaluation = evaluate(cohort, seed, truth, features.segmentation_saw_centre, models=models, rungs=("centre",))
        rows.append(row_of(folder.name, target, evaluation) | {"seconds": time.monotonic() - started})
        print(line(rows[-1]))
    return rows


def row_of(name: str, target: str, evaluation: Evaluation) -> dict[str, Any]:
    """The figures of one evaluation."""
    metric = headline(evaluation.cohort.target.kind)
    centre, random = evaluation.rungs["centre"], evaluation.rungs.get("random")
    row = {"cohort": name, "target": target, "patients": len(evaluation.cohort.patients)}
    row |= {model: told[metric]["value"] for model, told in centre["models"].items()}
    row["ceiling"] = centre["ceiling"]["observed"][metric]["value"]
    row["gap"] = row["ceiling"] - row["ridge"]
    if random is not None:
        across = f"{metric}_across_centres"
        row["across"] = {model: told[across] for model, told in random["models"].items()}
        row["random_gap"] = random["ceiling"]["observed"][metric]["value"] - random["models"]["ridge"][metric]["value"]
    return row


def line(row: dict[str, Any]) -> str:
    """A row as text."""
    told = f"{row['cohort']:9s} {row['target']:4s} {row['ridge']:6.3f} {row['ceiling']:7.3f} {row['gap']:+7.3f}"
    if "across" not in row:
        return told
    across = row["across"]
    low = across["centre"]["low"]
    control = f"{across['ridge']['value']:.3f}  {across['centre']['value']:.3f} ({low:.3f})"
    return f"{told} {row['volume']:7.3f} {row['clinical']:7.3f}  | {control:>40s}   [{row['seconds']:.0f} s]"


def gaps(rows: list[dict[str, Any]]) -> list[tuple[str, bool]]:
    """Whether the models come close to the ceiling: the mean of the paired gaps."""
    told = []
    for target in TARGETS:
        found = [row["gap"] for row in rows if row["target"] == target]
        if found:
            mean = statistics.mean(found)
            told.append((f"{target}: mean gap to the observed ceiling {mean:+.4f} over {len(found)} cohorts (limit {GAP})", mean <= GAP))
    return told


def chance(rows: list[dict[str, Any]]) -> list[tuple[str, bool]]:
    """Whether cohorts without signal give a coin's figures."""
    told = []
    for target in TARGETS:
        found = [row["ridge"] for row in rows if row["target"] == target]
        if found:
            mean = statistics.mean(found)
            told.append(
                (f"{target}: mean without signal {mean:.4f} over {len(found)} cohorts (0.50 +- {CHANCE})", abs(mean - 0.5) <= CHANCE)
            )
    return told


def shortcut(rows: list[dict[str, Any]]) -> list[tuple[str, bool]]:
    """Whether the centre-only control is caught on the random rung, where HPV's prevalence differs between centres."""
    controls = [row["across"]["centre"] for row in rows if row["target"] == "hpv"]
    caught = sum(control["low"] is not None and control["low"] > 0.5 for control in controls)
    words = f"hpv: the centre alone is above 0.5 across centres on random folds in {caught} of {len(controls)} cohorts"
    return [(words, caught == len(controls))] if controls else []


if __name__ == "__main__":
    sys.exit(main())
