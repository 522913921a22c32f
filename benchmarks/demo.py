"""The whole way on a small generated dataset, by the installed commands: plan, train, predict, evaluate, pictures.

    python benchmarks/demo.py FOLDER [--short]

--short trains a few iterations only: it shows that the chain runs, and its scores mean nothing.
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

EPOCHS, ITERATIONS = 12, 50
SHORT_EPOCHS, SHORT_ITERATIONS = 2, 5


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path)
    options.add_argument("--short", action="store_true")
    chosen = options.parse_args()
    folder = chosen.folder.absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    started = time.monotonic()
    run("convert", "generated", folder / "dataset", "--json", folder / "dataset.json")
    dataset = ("-d", folder / "dataset")
    epochs, iterations = (SHORT_EPOCHS, SHORT_ITERATIONS) if chosen.short else (EPOCHS, ITERATIONS)
    validation = ("--set", f"training.validation_iterations={2 if chosen.short else 5}")
    run("plan", *dataset, "--preset", "laptop")
    run("train", 0, *dataset, "--epochs", epochs, "--iterations", iterations, *validation)
    run("predict", *dataset, "-i", folder / "dataset" / "imagesTs", "-o", folder / "masks", "--no-mirroring")
    scores = folder / "scores.json"
    run("evaluate", folder / "dataset" / "labelsTs", folder / "masks", *dataset, "--json", scores, "--csv", folder / "scores.csv")
    draw(folder, scores)
    compare(folder, scores, chosen.short)
    print(
        f"\nmasks:    {folder / 'masks'}\npictures: {folder / 'pictures'}"
        f"\ncurve:    {next(folder.glob('dataset/autoseg-work/**/progress.png'))}"
    )
    print(f"the whole way took {(time.monotonic() - started) / 60:.1f} minutes. For research use only; not a medical device.")
    return 0


def run(command: str, *arguments: object) -> None:
    """Runs an installed command; ends the demo where it fails."""
    program = Path(sysconfig.get_path("scripts")) / f"autoseg_{command}"
    words = [str(program), *map(str, arguments)]
    print(f"\n$ {' '.join([program.name, *words[1:]])}", flush=True)
    status = subprocess.run(words, check=False).returncode
    if status:
        sys.exit(f"{program.name} ended with status {status}")


def draw(folder: Path, scores: Path) -> None:
    """An overlay picture for each test case."""
    from autoseg.images import read_image, read_mask
    from autoseg.report.overlay import write_overlay

    document = json.loads(scores.read_text())["result"]
    labels = document["labels"]
    (folder / "pictures").mkdir()
    for entry in document["cases"]:
        case = entry["case"]
        images = [read_image(path) for path in sorted((folder / "dataset" / "imagesTs").glob(f"{case}_*.nii.gz"))]
        write_overlay(
            folder / "pictures" / f"{case}.png",
            images=[image.array for image in images],
            channels=["CT", "PET"],
            reference=read_mask(folder / "dataset" / "labelsTs" / f"{case}.nii.gz").array,
            prediction=read_mask(folder / "masks" / f"{case}.nii.gz").array,
            labels=labels,
            spacing=images[0].geometry.spacing,
            title=case,
        )


def compare(folder: Path, scores: Path, short: bool) -> None:
    """The network beside the best threshold-and-component rule fitted on the training cases."""
    from autoseg.importers.generated import best_threshold_rule

    rule = best_threshold_rule(folder / "dataset")
    summary = json.loads(scores.read_text())["result"]["summary"]["overall"]
    print(f"\n{'Dice on the test cases':32}{'network':>10}{'best rule':>12}")
    for label in [name for name in summary if name != "mean"]:
        print(f"{label:32}{summary[label]['dice']['mean']:>10.3f}{rule.test_dice[label]:>12.3f}")
    if short:
        print("(a shortened demo: the network has hardly been trained)")


if __name__ == "__main__":
    sys.exit(main())
