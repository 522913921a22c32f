"""prognosis report: one self-contained page about the cohort, the masks and the models."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from autoseg.commands.entry import RESEARCH_ONLY, add_shared_options


def add(subparsers: Any) -> None:
    """Adds `report` to the subcommands of `prognosis`."""
    text = "Write one self-contained page: what was asked, the cohort, masks, models beside controls, what could not be concluded."
    options = subparsers.add_parser("report", help=text, description=text)
    add_shared_options(options)
    options.add_argument(
        "--target", nargs="+", action="extend", default=[], metavar="NAME", help="of these targets (default: all that are fitted)"
    )
    options.add_argument("-o", "--output", type=Path, metavar="FILE", help="the page (default: report.html beside the models)")
    options.add_argument("-c", "--configuration", metavar="NAME", help="whose masks (default: those that were measured)")
    options.add_argument("--no-masks", action="store_true", help="leave the masks out")
    options.add_argument("--with-patients", action="store_true", help="also show a row a patient, with names")


def call(parsed: argparse.Namespace) -> dict[str, Any]:
    """Writes the page, prints where it is, and returns the same for --json.

    Raises:
        PrognosisModelError, FeatureError: nothing is fitted, or a document or mask is missing or damaged.
    """
    from autoseg.dataset.dataset import Dataset
    from autoseg.dataset.workspace import Workspace
    from prognosis import require_survival
    from prognosis.report.report import write_report

    require_survival()
    workspace = Workspace.of(parsed.dataset, parsed.work, parsed.name)
    path = parsed.output or workspace.root / workspace.name / "prognosis" / "report.html"
    has_images = (parsed.dataset / "dataset.json").exists() and workspace.plan.exists() and not parsed.no_masks
    dataset = Dataset.open(parsed.dataset, left_out=workspace.excluded()) if has_images else None
    targets = write_report(path, workspace, dataset, parsed.target, configuration=parsed.configuration, with_patients=parsed.with_patients)
    print(f"written: {path} ({', '.join(targets)})\n{RESEARCH_ONLY}")
    return {"report": str(path), "targets": list(targets), "use": RESEARCH_ONLY}
