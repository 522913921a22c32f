"""The whole way from a cohort's images and table to a report, by the installed commands.

    python benchmarks/demo.py FOLDER [--short]

A phantom cohort of three hospitals in HECKTOR's layout is imported and planned; a network for each held-out hospital is trained, all three
at once with one thread each; its masks are measured, relapse and HPV status predicted, for new patients too. Then the statistics alone on a
table of 1 000 patients, where they mean something. --short trains a few iterations only: it shows that the chain runs, and its scores mean
nothing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

CENTRES, TABLE_CENTRES, NEW_PATIENTS = 3, 5, 2


@dataclass(frozen=True)
class Size:
    """How much of everything: patients with images, epochs and iterations of an epoch, patients of the table."""

    patients: int
    epochs: int
    iterations: int
    table_patients: int


WHOLE = Size(patients=33, epochs=10, iterations=80, table_patients=1000)
SHORT = Size(patients=18, epochs=2, iterations=4, table_patients=200)


def main() -> int:
    """Runs the demo; the exit status."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path)
    options.add_argument("--short", action="store_true")
    chosen = options.parse_args()
    folder, size = chosen.folder.absolute(), SHORT if chosen.short else WHOLE
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    started = time.monotonic()
    report = images(folder, size)
    table_report = table(folder, size)
    if chosen.short:
        print("(a shortened demo: the networks have hardly been trained)")
    print(
        f"\nreport on {size.patients} patients with images: {report}"
        f"\nreport on {size.table_patients} patients of a table:  {table_report}"
        f"\nnew patients: {folder / 'predictions'}"
    )
    print(f"the whole way took {(time.monotonic() - started) / 60:.1f} minutes. For research use only; not a medical device.")
    return 0


def images(folder: Path, size: Size) -> Path:
    """The chain on images; its report."""
    source, dataset = folder / "source", folder / "dataset"
    run("autoseg_convert", "phantom", source, "--patients", size.patients, "--centres", CENTRES, "--new-patients", NEW_PATIENTS)
    run("autoseg_convert", "hecktor", source / "hecktor2025_training", dataset, "--new", source / "hecktor2025_new")
    run("autoseg_plan", "-d", dataset, "--preset", "laptop", "--folds", "loco")
    work = dataset / "autoseg-work" / "default"
    folds = json.loads((work / "folds.json").read_text())["folds"]
    extent = ("--epochs", size.epochs, "--iterations", size.iterations, "--set", "training.validation_iterations=2")
    run_together([("autoseg_train", fold, "-d", dataset, *extent, "--threads", 1, "--workers", 0) for fold in folds])
    run("autoseg_convert", "rule", dataset, next(work.glob("*/loco")))
    run("prognosis", "features", "-d", dataset)
    for target in ("rfs", "hpv"):
        run("prognosis", "fit", "-d", dataset, "--target", target, "--truth", source / "truth.csv")
    run("prognosis", "predict", "-d", dataset, "-i", dataset / "imagesTs", "-o", folder / "predictions")
    run("prognosis", "report", "-d", dataset)
    return work / "prognosis" / "report.html"


def table(folder: Path, size: Size) -> Path:
    """The statistics on a table; their report."""
    cohort = folder / "table"
    run("autoseg_convert", "phantom", cohort, "--table-only", "--patients", size.table_patients, "--centres", TABLE_CENTRES)
    for target in ("rfs", "hpv"):
        files = ("--features", cohort / "features.csv", "--truth", cohort / "truth.csv")
        run("prognosis", "fit", "-d", cohort, "--target", target, *files)
    run("prognosis", "report", "-d", cohort)
    return cohort / "autoseg-work" / "default" / "prognosis" / "report.html"


def run(*command: object) -> None:
    """Runs an installed command; ends the demo where it fails."""
    run_together([command])


def run_together(commands: Sequence[Iterable[object]]) -> None:
    """Runs installed commands side by side; ends the demo where one fails."""
    running = []
    for command in commands:
        name, *words = map(str, command)
        print("\n$", name, *words, flush=True)
        running.append((name, subprocess.Popen([Path(sysconfig.get_path("scripts")) / name, *words])))
    failed = [f"{name} ended with status {process.returncode}" for name, process in running if process.wait()]
    if failed:
        sys.exit("; ".join(failed))


if __name__ == "__main__":
    sys.exit(main())
