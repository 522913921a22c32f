"""prognosis predict: masks, features and then what every fitted target's model says of new patients."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from autoseg.commands.entry import add_segmentation_options, add_shared_options


def add(subparsers: Any) -> None:
    """Adds `predict` to the subcommands of `prognosis`."""
    text = "Segment new patients with the dataset's own folds, measure, and tell each fitted target's risk."
    options = subparsers.add_parser("predict", help=text, description=text)
    add_shared_options(options)
    add_segmentation_options(options, "the one whose masks were measured")
    options.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT", help="the folder for predictions.csv, predictions.json and masks/"
    )
    options.add_argument(
        "--clinical",
        type=Path,
        metavar="CSV",
        help="the patients' table, with the columns of the training table (default: casesTs.csv beside the folder of images, if there)",
    )
    options.add_argument("--cohort", type=Path, metavar="TOML", help="how the table is read (default: DIR/cohort.toml)")
    options.add_argument("--target", nargs="+", metavar="NAME", help="which fitted targets (default: all)")
    options.add_argument(
        "--times", nargs="+", type=_days, metavar="DAYS", help="when survival is told (default: 1, 2, 3, 5 years and the targets' horizons)"
    )


def call(parsed: argparse.Namespace) -> dict[str, Any]:
    """Predicts, prints the result, and returns it for --json.

    Raises:
        CasesFailed: some cases failed; everything else is written.
    """
    from autoseg.dataset.workspace import Workspace
    from autoseg.errors import CasesFailed
    from prognosis.declaration import read_declaration
    from prognosis.prediction.predict import predict_patients
    from prognosis.prediction.segment import Segmentation

    usual = parsed.dataset / "cohort.toml"
    segmentation = Segmentation(
        Workspace.of(parsed.dataset, parsed.work, parsed.name),
        model=parsed.model,
        configuration=parsed.configuration,
        folds=parsed.folds,
        device=parsed.device,
        mirroring=not parsed.no_mirroring,
        step=parsed.step,
        precision=parsed.precision,
        resume=parsed.resume,
        replace_nonfinite=parsed.replace_nonfinite,
        prefetch=parsed.workers != 0,
    )
    result = predict_patients(
        parsed.input,
        parsed.output,
        segmentation,
        clinical=parsed.clinical,
        declaration=read_declaration(parsed.cohort or (usual if usual.exists() else None)),
        targets=parsed.target,
        times_days=parsed.times,
        workers=parsed.workers,
    )
    print(result.text())
    if result.failures:
        done = sum(patient.mask is not None for patient in result.patients)
        raise CasesFailed(result.failures, done, result.to_dict(), reported=True)
    return result.to_dict()


def _days(text: str) -> float:
    value = float(text)
    if not 0 < value < 100_000:
        raise argparse.ArgumentTypeError(f"must be a number of days above 0, found {text}")
    return value
