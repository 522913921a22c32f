"""autoseg_plan: check the dataset, take its fingerprint, plan, and prepare the cases."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autoseg.commands.entry import add_set_option, add_shared_options, parser, run


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script."""
    options = parser("autoseg_plan", "Check a dataset, take its fingerprint, plan networks and folds, and prepare the cases.")
    add_shared_options(options)
    options.add_argument(
        "--preset",
        help="default, resenc-m, resenc-l, resenc-xl, segresnet, or laptop for a machine without a GPU (default: as the plan that stands)",
    )
    options.add_argument(
        "--memory",
        type=float,
        metavar="GB",
        help="device memory to plan for (default: as the plan that stands, else the preset's own)",
    )
    options.add_argument(
        "--folds",
        metavar="cv5|loco|grouped|FILE",
        help="fold scheme, or a file of folds (nnU-Net's splits_final.json too); default: those that stand, else cv5, and grouped (folds "
        "of whole centres) from 5 centres on",
    )
    options.add_argument(
        "--exclude",
        nargs="*",
        metavar="CASE",
        help="cases to leave out, in planning and training; remembered by the plan; without a name: none any more",
    )
    options.add_argument(
        "--orientation",
        choices=("canonical", "as_stored"),
        help="as_stored: no reorientation, as nnU-Net does (default: as the plan that stands, else canonical)",
    )
    options.add_argument(
        "--region",
        choices=("whole", "head-and-neck"),
        help="head-and-neck: prepare, train on and predict a box of 310 x 200 x 200 mm that is found in each case from its PET; labelled "
        "voxels outside are told (default: as the plan that stands, else whole)",
    )
    options.add_argument(
        "--augmentation",
        choices=("centres", "default"),
        help="centres: ranges widened by how far the centres of cases.csv lie apart; default: nnU-Net's published ranges, which one centre "
        "has anyway (default: as the plan that stands, else default)",
    )
    options.add_argument(
        "-c",
        "--configuration",
        nargs="+",
        metavar="NAME",
        help="configurations to prepare cases for (default: 3d_fullres, 2d for 2-D data)",
    )
    options.add_argument(
        "--like",
        type=Path,
        metavar="MODEL",
        help="take axis order, network, patch size, spacing and normalisation from a trained model, so that --init MODEL fits",
    )
    options.add_argument(
        "--replan",
        action="store_true",
        help="make the plan anew with what was and what is asked for (never over a hand-edited one)",
    )
    add_set_option(options)
    sys.exit(run(_plan, options, arguments))


def _plan(parsed: argparse.Namespace) -> dict[str, Any]:
    from autoseg.planning.planning import plan

    result = plan(
        parsed.dataset,
        preset=parsed.preset,
        memory_gb=parsed.memory,
        folds=parsed.folds,
        settings=dict(parsed.settings) or None,
        exclude=parsed.exclude,
        orientation=parsed.orientation,
        region=parsed.region,
        augmentation=parsed.augmentation,
        configurations=parsed.configuration,
        like=parsed.like,
        replan=parsed.replan,
        work=parsed.work,
        name=parsed.name,
        workers=parsed.workers,
    )
    print(result.text())
    return result.to_dict()


if __name__ == "__main__":
    main()
