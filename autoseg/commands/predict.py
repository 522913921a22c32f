"""autoseg_predict: masks for new images from a model folder."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autoseg.commands.entry import add_segmentation_options, add_shared_options, parser, run


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script."""
    options = parser("autoseg_predict", "Segment new images with the trained folds of a model, ensembled.")
    add_shared_options(options)
    add_segmentation_options(options, "what autoseg_choose chose; where nothing is chosen 3d_fullres, 2d for 2-D data")
    options.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="the folder for the masks")
    options.add_argument("--save-probabilities", action="store_true", help="also write each class's probability on the image's own grid")
    options.add_argument("--strict", action="store_true", help="refuse cases that lie outside what training has seen")
    sys.exit(run(_predict, options, arguments))


def _predict(parsed: argparse.Namespace) -> dict[str, Any]:
    from autoseg.errors import CasesFailed
    from autoseg.inference.predict import predict_folder

    try:
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
            precision=parsed.precision,
            save_probabilities=parsed.save_probabilities,
            resume=parsed.resume,
            replace_nonfinite=parsed.replace_nonfinite,
            strict=parsed.strict,
            workers=parsed.workers,
        )
    except CasesFailed as failed:
        if failed.result is not None:
            print(failed.result.text())
            failed.result = failed.result.to_dict()
        raise
    print(result.text())
    return result.to_dict()


if __name__ == "__main__":
    main()
