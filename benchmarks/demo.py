"""The whole way on a small generated dataset, by the installed commands: plan, train, predict, evaluate, pictures.

    python benchmarks/demo.py FOLDER [--short]

--short trains a few iterations only: it shows that the chain runs, and its scores mean nothing.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

EPOCHS, ITERATIONS = 8, 50
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
    test = (folder / "dataset" / "labelsTs", folder / "masks")
    run("evaluate", *test, *dataset, "--json", folder / "scores.json", "--csv", folder / "scores.csv", "--pictures", folder / "pictures")
    run("convert", "rule", folder / "dataset", folder / "masks")
    if chosen.short:
        print("(a shortened demo: the network has hardly been trained)")
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


if __name__ == "__main__":
    sys.exit(main())
