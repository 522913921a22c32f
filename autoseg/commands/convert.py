"""autoseg_convert: datasets and models from other layouts, and the generated ones; models out and in."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autoseg.commands.convert_models import RUN_MODELS, add_model_kinds
from autoseg.commands.entry import add_shared_options, parser, run

EDITIONS = ("2022", "2025", "2026")
"""Of HECKTOR."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script."""
    options = parser("autoseg_convert", "Make a dataset or model folder from something else; pass models on.")
    kinds = options.add_subparsers(dest="kind", required=True, metavar="KIND")
    _add_generated(kinds)
    _add_phantom(kinds)
    _add_rule(kinds)
    _add_hecktor(kinds)
    _add_nnunet_model(kinds)
    add_model_kinds(kinds)
    for kind in kinds.choices.values():
        kind.epilog, kind.formatter_class = options.epilog, options.formatter_class
    sys.exit(run(_convert, options, arguments))


def _add_generated(kinds: Any) -> None:
    generated = kinds.add_parser(
        "generated",
        help="write the generated two-channel dataset (demo, tests)",
        description="Write generated CT and PET phantoms with two labels from two centres.",
    )
    generated.add_argument("output", type=Path, metavar="OUT", help="the dataset folder to write")
    generated.add_argument("--cases", type=int, default=24, metavar="N", help="training cases")
    generated.add_argument("--test-cases", type=int, default=8, metavar="N", help="test cases")
    generated.add_argument("--seed", type=int, default=1, metavar="S", help="the same seed gives the same voxels")
    _add_common(generated)


def _add_phantom(kinds: Any) -> None:
    phantom = kinds.add_parser(
        "phantom",
        help="write a generated multi-centre PET/CT cohort with a clinical table, in a HECKTOR layout",
        description="Write a phantom cohort and the truth that its outcomes follow from; print how well that truth ranks them.",
    )
    phantom.add_argument("output", type=Path, metavar="OUT", help="the folder to write into")
    phantom.add_argument("--patients", type=int, default=30, metavar="N", help="patients with outcomes")
    phantom.add_argument("--centres", type=int, default=3, metavar="K", help="hospitals, 1 to 10")
    phantom.add_argument("--seed", type=int, default=1, metavar="S", help="the same seed gives the same bytes")
    phantom.add_argument("--new-patients", type=int, default=0, metavar="M", help="more patients, without masks and outcomes")
    phantom.add_argument("--size", choices=("demo", "full"), default="demo", help="of the images: about 30x32x32, or CT of 512x512x200")
    phantom.add_argument("--edition", choices=EDITIONS, default="2025", help="of HECKTOR: its layout, names and columns")
    phantom.add_argument("--table-only", action="store_true", help="write tables of cases and features in place of images")
    phantom.add_argument("--no-signal", action="store_true", help="outcomes that depend on nothing, HPV on the centre alone")
    add_shared_options(phantom, dataset=False)


def _add_rule(kinds: Any) -> None:
    rule = kinds.add_parser(
        "rule",
        help="the best threshold-and-component rule for a CT and PET dataset, beside a network's masks",
        description="Fit the best threshold-and-component rule for each label; print its Dice beside a network's on the same cases.",
    )
    rule.add_argument("dataset", type=Path, metavar="DATASET", help="a dataset folder with the channels CT and PET")
    rule.add_argument(
        "prediction",
        type=Path,
        metavar="PREDICTION",
        help="a folder of predicted masks of its test cases, or a model folder (with fold_0, fold_1, ...) for the out-of-fold masks",
    )
    _add_common(rule)


def _add_hecktor(kinds: Any) -> None:
    hecktor = kinds.add_parser(
        "hecktor",
        help="a HECKTOR folder (2022, 2025, 2026) as a dataset: CT and PET on one grid, masks, centres and clinical columns",
        description="Make a dataset folder of HECKTOR data. The same command goes on when it was interrupted or the source has changed.",
    )
    hecktor.add_argument("source", type=Path, metavar="DIR", help="the folder as it is handed out, with images, masks and tables")
    hecktor.add_argument("output", type=Path, metavar="OUT", help="the dataset folder to write")
    hecktor.add_argument(
        "--onto", default="CT", metavar="CT|PT|MM[,MM,MM]", help="the grid: the CT's (default), the PET's, or a spacing in mm (z, y, x)"
    )
    hecktor.add_argument("--edition", choices=EDITIONS, help="whose layout it has (default: found by the names of its folders and files)")
    hecktor.add_argument("--new", type=Path, metavar="DIR2", help="such a folder with new patients, for imagesTs and casesTs.csv")
    add_shared_options(hecktor, dataset=False)


def _add_nnunet_model(kinds: Any) -> None:
    model = kinds.add_parser(
        "nnunet-model",
        help="a model that nnU-Net v2 trained (its folder, or a zip) as a model folder for autoseg_predict -m",
        description="Make a model folder of plans.json, dataset.json and fold_*/checkpoint_final.pth. Nothing in them is run.",
    )
    model.add_argument(
        "source",
        type=Path,
        metavar="FOLDER_OR_ZIP",
        help="the folder TRAINER__PLANS__CONFIGURATION, one above it, or a zip archive, as nnUNetv2_export_model_to_zip writes it",
    )
    model.add_argument("output", type=Path, metavar="OUT", help="the model folder to write; must be new or empty")
    model.add_argument("--model", metavar="NAME", help="which model, by its folder's name, where there are several")
    model.add_argument("--checkpoint", choices=("final", "best", "latest"), default="final", help="which checkpoint (default: final)")
    model.add_argument("-f", "--folds", nargs="+", metavar="FOLD", help="which folds (default: all numbered ones)")
    _add_common(model)


def _add_common(options: argparse.ArgumentParser) -> None:
    options.add_argument("--verbose", action="store_true", help="tell more, and show the traceback of an error")
    options.add_argument("--json", type=Path, metavar="FILE", help="also write the result to FILE as JSON")


def _convert(parsed: argparse.Namespace) -> dict[str, Any]:
    return _RUN[parsed.kind](parsed)


def _generated(parsed: argparse.Namespace) -> dict[str, Any]:
    from autoseg.importers.generated import write_generated_dataset

    folder = write_generated_dataset(parsed.output, cases=parsed.cases, test_cases=parsed.test_cases, seed=parsed.seed)
    print(f"{folder}: {parsed.cases} training and {parsed.test_cases} test cases, seed {parsed.seed}")
    return {"dataset": str(folder), "cases": parsed.cases, "test_cases": parsed.test_cases, "seed": parsed.seed}


def _phantom(parsed: argparse.Namespace) -> dict[str, Any]:
    from autoseg.importers.cohort.write import write_cohort

    written = write_cohort(
        parsed.output,
        patients=parsed.patients,
        centres=parsed.centres,
        seed=parsed.seed,
        new_patients=parsed.new_patients,
        size=parsed.size,
        edition=parsed.edition,
        table_only=parsed.table_only,
        signal=not parsed.no_signal,
        workers=parsed.workers,
    )
    print(written.text())
    return written.to_dict()


def _rule(parsed: argparse.Namespace) -> dict[str, Any]:
    from autoseg.importers.rule_comparison import compare

    comparison = compare(parsed.dataset, parsed.prediction)
    print(comparison.text())
    return comparison.to_dict()


def _hecktor(parsed: argparse.Namespace) -> dict[str, Any]:
    from autoseg.errors import CasesFailed
    from autoseg.importers.hecktor import import_hecktor

    result = import_hecktor(parsed.source, parsed.output, new=parsed.new, onto=parsed.onto, edition=parsed.edition, workers=parsed.workers)
    print(result.text())
    if result.failures:
        raise CasesFailed(result.failures, len(result.training) + len(result.new), result.to_dict())
    return result.to_dict()


def _nnunet_model(parsed: argparse.Namespace) -> dict[str, Any]:
    from autoseg.importers.nnunet import import_nnunet_model

    imported = import_nnunet_model(parsed.source, parsed.output, model=parsed.model, checkpoint=parsed.checkpoint, folds=parsed.folds)
    print(imported.text())
    return imported.to_dict()


_RUN = {
    "generated": _generated,
    "phantom": _phantom,
    "rule": _rule,
    "hecktor": _hecktor,
    "nnunet-model": _nnunet_model,
    **RUN_MODELS,
}


if __name__ == "__main__":
    main()
