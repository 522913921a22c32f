"""New patients through `prognosis predict` in a fresh process: result, status, seconds, memory; then the same patient with no tumour found.

    python benchmarks/predict_patient.py DATASET [IMAGES] [--features-at 512]

DATASET has trained folds and fitted targets; IMAGES is a folder of new patients (default: DATASET/imagesTs). The patient without a tumour
is the first one with its PET cut off at 0.5 SUV; whatever the network makes of it is printed, the mask's volume first. With --features-at N
it also times and weighs the features alone on one N x N x 200 case, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

LOOK_SECONDS = 0.02


def main() -> int:
    """Runs and prints all of it."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("dataset", type=Path)
    options.add_argument("images", type=Path, nargs="?")
    options.add_argument("--features-at", type=int, metavar="N")
    arguments = options.parse_args()
    images = arguments.images or arguments.dataset / "imagesTs"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        report("patients of " + str(images), arguments.dataset, images, folder / "predicted")
        report("no tumour to find", arguments.dataset, without_tumour(images, folder / "empty"), folder / "predicted-empty")
    if arguments.features_at:
        seconds, peak = watched([sys.executable, __file__, "--one-case", str(arguments.features_at)])
        print(f"features of one {arguments.features_at}x{arguments.features_at}x200 case: {seconds:.1f} s, peak {peak / 1e9:.2f} GB")
    return 0


def report(what: str, dataset: Path, images: Path, output: Path) -> None:
    """Predicts in a fresh process and prints what came out and what it took."""
    command = [sys.executable, "-m", "prognosis.commands.main", "predict", "-d", dataset, "-i", images, "-o", output]
    seconds, peak = watched([str(part) for part in command])
    print(f"{what}: {seconds:.1f} s, peak {peak / 1e9:.2f} GB for the process tree")
    for patient in json.loads((output / "predictions.json").read_text())["patients"]:
        print(f"  {patient['case']}: volume {patient['features'].get('volume_total_ml', 0):.2f} ml, {json.dumps(patient['predicted'])}")


def watched(command: list[str]) -> tuple[float, int]:
    """Seconds and peak memory in bytes (resident, summed over the tree) of a command.

    Raises:
        CalledProcessError: it failed.
    """
    started, peak = time.monotonic(), 0
    with subprocess.Popen(command) as process:
        done = threading.Event()

        def look() -> None:
            nonlocal peak
            while not done.wait(LOOK_SECONDS):
                try:
                    tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
                    peak = max(peak, sum(one.memory_info().rss for one in tree))
                except psutil.Error:
                    continue

        watcher = threading.Thread(target=look)
        watcher.start()
        status = process.wait()
        done.set()
        watcher.join()
    if status:
        raise subprocess.CalledProcessError(status, command)
    return time.monotonic() - started, peak


def without_tumour(images: Path, folder: Path) -> Path:
    """The first patient's images with the PET cut off at 0.5 SUV."""
    import numpy as np

    from autoseg.images import read_image, write_image

    case = min(path.name.rpartition("_")[0] for path in images.glob("*_0000.nii.gz"))
    for channel in (0, 1):
        image = read_image(images / f"{case}_{channel:04d}.nii.gz")
        # One hot voxel in a corner keeps the scale that of SUV: the body, not the scale, has nothing to find.
        array = image.array if channel == 0 else np.minimum(image.array, 0.5)
        if channel == 1:
            array[0, 0, 0] = 5.0
        write_image(folder / f"{case}_{channel:04d}.nii.gz", array, image.geometry)
    return folder


def one_case(size: int) -> None:
    """Measures a made-up case of full size: two balls in noise."""
    import numpy as np

    from prognosis.features.case import measure

    shape, spacing = (200, size, size), (3.0, 500 / size, 500 / size)
    rng = np.random.default_rng(0)
    pet = rng.random(shape, np.float32)
    ct = rng.random(shape, np.float32) * 100
    mask = np.zeros(shape, np.uint8)
    for label, centre in ((1, (100, size // 2, size // 2)), (2, (90, size // 2, size // 2 + size // 8))):
        near = tuple(slice(c - 30, c + 30) for c in centre)
        grid = np.ogrid[-30:30, -30:30, -30:30]
        ball = sum((axis * step) ** 2 for axis, step in zip(grid, spacing, strict=True)) < 20.0**2
        mask[near][ball] = label
    pet[mask > 0] += 6
    started = time.monotonic()
    found = measure(ct, pet, mask, spacing)
    missing = sum(value != value for value in found.values.values())
    print(f"measured in {time.monotonic() - started:.1f} s, {len(found.values)} features, {missing} without a value")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one-case"]:
        one_case(int(sys.argv[2]))
    else:
        sys.exit(main())
