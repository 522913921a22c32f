"""autoseg_evaluate: how good predicted masks are against reference masks."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg.commands.entry import add_shared_options, parser, run

if TYPE_CHECKING:
    from autoseg.evaluation import Evaluation

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script."""
    options = parser("autoseg_evaluate", "Compare predicted masks with reference masks: per case, label, centre and overall.")
    options.add_argument("reference", type=Path, metavar="REFERENCE", help="folder of reference masks")
    options.add_argument("prediction", type=Path, metavar="PREDICTION", help="folder of predicted masks, named as the reference's")
    add_shared_options(options)
    options.set_defaults(dataset=None)  # so that an explicit -d . is told from none
    options.add_argument("--nsd-tolerance", type=float, default=2.0, metavar="MM", help="tolerance of the normalised surface Dice")
    options.add_argument(
        "--lesion-iou", type=float, default=0.1, metavar="IOU", help="what the overlap of two lesions must exceed to match"
    )
    options.add_argument("--connectivity", type=int, choices=(6, 18, 26), default=26, help="neighbours within a lesion")
    options.add_argument("--geometry-tolerance", type=float, default=0.1, metavar="VOXELS", help="how far two grids' corners may lie apart")
    options.add_argument("--csv", type=Path, metavar="FILE", help="also write a row a case and label to FILE")
    options.add_argument("--summary", type=Path, metavar="FILE", help="also write nnU-Net's summary.json shape to FILE")
    options.add_argument("--pictures", type=Path, metavar="DIR", help="also draw each case's image with both masks into DIR")
    sys.exit(run(_evaluate, options, arguments))


def _evaluate(parsed: argparse.Namespace) -> dict[str, Any]:
    from autoseg.errors import AutosegError, CasesFailed
    from autoseg.evaluation import evaluate
    from autoseg.evaluation.names import names_for

    names = names_for(parsed.reference, parsed.dataset)
    try:
        evaluation = evaluate(
            parsed.reference,
            parsed.prediction,
            labels=names.labels,
            centres=names.centres,
            tolerance_mm=parsed.nsd_tolerance,
            lesion_iou=parsed.lesion_iou,
            connectivity=parsed.connectivity,
            geometry_tolerance=parsed.geometry_tolerance,
            workers=parsed.workers,
            progress="evaluate",
        )
    except ValueError as error:
        raise AutosegError(str(error)) from error
    _write(parsed, evaluation)
    print(evaluation.table())
    if parsed.pictures:
        _draw(parsed, evaluation, names.folder)
    if evaluation.failures:
        failed = CasesFailed(list(evaluation.failures.values()), len(evaluation.cases))
        failed.result = evaluation.to_dict()
        raise failed
    return evaluation.to_dict()


def _write(parsed: argparse.Namespace, evaluation: Evaluation) -> None:
    from autoseg import files
    from autoseg.evaluation import find_masks

    if parsed.csv:
        files.write_text(parsed.csv, evaluation.to_csv())
    if parsed.summary:
        references, predictions = find_masks(parsed.reference), find_masks(parsed.prediction)
        pairs = {case.case: (references[case.case], predictions[case.case]) for case in evaluation.cases}
        # NaN as a bare word, as nnU-Net writes and reads it
        files.write_text(parsed.summary, json.dumps(evaluation.to_nnunet_summary(pairs, keep_nan=True), indent=4) + "\n")


def _draw(parsed: argparse.Namespace, evaluation: Evaluation, dataset: Path | None) -> None:
    from autoseg.errors import DatasetError
    from autoseg.evaluation.pictures import draw_cases

    if dataset is None:
        raise DatasetError("--pictures needs the images: name the dataset folder with -d DIR")
    drawn = draw_cases(evaluation, parsed.reference, parsed.prediction, dataset, parsed.pictures)
    print(f"pictures of {len(drawn)} cases: {parsed.pictures}")


if __name__ == "__main__":
    main()
