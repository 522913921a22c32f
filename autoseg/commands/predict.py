"""autoseg_predict: masks for new images from a model folder."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autoseg.commands.entry import add_shared_options, parser, run


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script."""
    options = parser("autoseg_predict", "Segment new images with the trained folds of a model, ensembled.")
    add_shared_options(options)
    options.add_argument(
        "-i",
        "--input",
        nargs="+",
        type=Path,
        required=True,
        metavar="IN",
        help="a folder in the dataset's channel naming, or the files of one case",
    )
    options.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="the folder for the masks")
    options.add_argument("-m", "--model", type=Path, metavar="MODEL", help="a model folder (default: the dataset's own finished folds)")
    options.add_argument(
        "-c", "--configuration", metavar="NAME", help="which configuration of the plan (default: 3d_fullres, 2d for 2-D data)"
    )
    options.add_argument("-f", "--folds", nargs="+", metavar="FOLD", help="which folds to ensemble (default: all finished ones)")
    options.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:i")
    options.add_argument("--no-mirroring", action="store_true", help="no test-time flips: up to eight times faster")
    options.add_argument(
        "--step", type=float, metavar="SHARE", help="step of the sliding window as a share of the patch (default: the plan's, 0.5)"
    )
    options.add_argument("--save-probabilities", action="store_true", help="also write each class's probability on the image's own grid")
    options.add_argument(
        "--resume", action="store_true", help="skip cases that are already predicted by the same model from the same files"
    )
    options.add_argument(
        "--replace-nonfinite",
        action="store_true",
        help="replace NaN and Inf voxels by the image's minimum, and say so, instead of refusing",
    )
    sys.exit(run(_predict, options, arguments))


def _predict(parsed: argparse.Namespace) -> dict[str, Any]:
    from autoseg.inference.predict import predict_folder

    result = predict_folder(
        parsed.input,
        parsed.output,
        dataset=parsed.dataset,
        work=parsed.work,
        name=parsed.name,
        model=parsed.model,
        configuration=parsed.configuration,
        folds=parsed.folds,
        device=parsed.device,
        mirroring=not parsed.no_mirroring,
        step=parsed.step,
        save_probabilities=parsed.save_probabilities,
        resume=parsed.resume,
        replace_nonfinite=parsed.replace_nonfinite,
        workers=parsed.workers,
    )
    print(result.text())
    return result.to_dict()


if __name__ == "__main__":
    main()
