"""The whole way from a cohort's images and table to a report, by the installed commands.

    python benchmarks/demo_cohort.py FOLDER [--short]

A phantom cohort of three hospitals in HECKTOR's layout is imported, planned, segmented with each hospital held out in turn, measured,
and relapse and HPV status are predicted; then the statistics alone on a table of 1 000 patients, where they mean something. --short trains
a few iterations only: it shows that the chain runs, and its scores mean nothing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

PATIENTS, CENTRES, NEW = 33, 3, 2
EPOCHS, ITERATIONS = 8, 40
SHORT_PATIENTS, SHORT_EPOCHS, SHORT_ITERATIONS = 18, 2, 4
TABLE_PATIENTS, SHORT_TABLE_PATIENTS = 1000, 200


def main() -> int:
    """Runs the demo; the exit status."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path)
    options.add_argument("--short", action="store_true")
    chosen = options.parse_args()
    folder = chosen.folder.absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    started = time.monotonic()
    report = images(folder, chosen.short)
    table_report = table(folder, chosen.short)
    if chosen.short:
        print("(a shortened demo: the networks have hardly been trained)")
    print(
        f"\nreport on {SHORT_PATIENTS if chosen.short else PATIENTS} patients with images: {report}"
        f"\nreport on {SHORT_TABLE_PATIENTS if chosen.short else TABLE_PATIENTS} patients of a table:  {table_report}"
        f"\nnew patients: {folder / 'predictions'}"
    )
    print(f"the whole way took {(time.monotonic() - started) / 60:.1f} minutes. For research use only; not a medical device.")
    return 0


def images(folder: Path, short: bool) -> Path:
    """The chain on images; its report."""
    source, dataset = folder / "source", folder / "dataset"
    patients = SHORT_PATIENTS if short else PATIENTS
    epochs, iterations = (SHORT_EPOCHS, SHORT_ITERATIONS) if short else (EPOCHS, ITERATIONS)
    run("autoseg_convert", "phantom", source, "--patients", patients, "--centres", CENTRES, "--new-patients", NEW)
    run("autoseg_convert", "hecktor", source / "hecktor2025_training", dataset, "--new", source / "hecktor2025_new")
    run("autoseg_plan", "-d", dataset, "--preset", "laptop", "--folds", "loco")
    work = dataset / "autoseg-work" / "default"
    validation = ("--set", "training.validation_iterations=2")
    for fold in json.loads((work / "folds.json").read_text())["folds"]:
        run("autoseg_train", fold, "-d", dataset, "--epochs", epochs, "--iterations", iterations, *validation)
    run("autoseg_convert", "rule", dataset, next(work.glob("*/loco")))
    run("prognosis", "features", "-d", dataset)
    for target in ("rfs", "hpv"):
        run("prognosis", "fit", "-d", dataset, "--target", target, "--truth", source / "truth.csv")
    run("prognosis", "predict", "-d", dataset, "-i", dataset / "imagesTs", "-o", folder / "predictions")
    run("prognosis", "report", "-d", dataset)
    return work / "prognosis" / "report.html"


def table(folder: Path, short: bool) -> Path:
    """The statistics on a table; their report."""
    cohort = folder / "table"
    run(
        "autoseg_convert",
        "phantom",
        cohort,
        "--table-only",
        "--patients",
        SHORT_TABLE_PATIENTS if short else TABLE_PATIENTS,
        "--centres",
        5,
    )
    for target in ("rfs", "hpv"):
        files = ("--features", cohort / "features.csv", "--truth", cohort / "truth.csv")
        run("prognosis", "fit", "-d", cohort, "--target", target, *files)
    run("prognosis", "report", "-d", cohort)
    return cohort / "autoseg-work" / "default" / "prognosis" / "report.html"


def run(command: str, *arguments: object) -> None:
    """Runs an installed command; ends the demo where it fails."""
    program = Path(sysconfig.get_path("scripts")) / command
    words = [str(program), *map(str, arguments)]
    print(f"\n$ {' '.join([program.name, *words[1:]])}", flush=True)
    status = subprocess.run(words, check=False).returncode
    if status:
        sys.exit(f"{program.name} ended with status {status}")


if __name__ == "__main__":
    sys.exit(main())
