"""prognosis features: measures every patient on the mask of a network that was not trained on that patient."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from autoseg.commands.entry import RESEARCH_ONLY, add_shared_options

if TYPE_CHECKING:
    from prognosis.features.table import FeatureTable


def add(subparsers: Any) -> None:
    """Adds `features` to the subcommands of `prognosis`."""
    text = "Measure every patient on its out-of-fold mask: volumes, uptake, nodes, shape, first order."
    options = subparsers.add_parser("features", help=text, description=text)
    add_shared_options(options)
    options.add_argument("-c", "--configuration", metavar="NAME", help="whose masks (default: 3d_fullres, 2d for 2-D data)")
    options.add_argument("--primary", metavar="LABEL", help="the label of the primary tumour (default: GTVp, or the only label)")
    options.add_argument("--nodes", metavar="LABEL", help="the label of the lymph nodes (default: GTVn)")


def call(parsed: argparse.Namespace) -> dict[str, Any]:
    """Writes features.csv and features.json under the plan's folder, prints a summary, and returns it for --json.

    Raises:
        CasesFailed: some cases could not be measured; everything else is written.
    """
    from autoseg.dataset.dataset import Dataset
    from autoseg.dataset.workspace import Workspace
    from autoseg.errors import CasesFailed
    from prognosis.features.extract import extract_features

    workspace = Workspace.of(parsed.dataset, parsed.work, parsed.name)
    dataset = Dataset.open(parsed.dataset, left_out=workspace.excluded())
    table = extract_features(
        dataset,
        workspace,
        configuration=parsed.configuration,
        primary=parsed.primary,
        nodes=parsed.nodes,
        workers=parsed.workers,
    )
    path = workspace.root / workspace.name / "prognosis" / "features.csv"
    table.write(path)
    print(_text(table))
    print(f"written: {path}, {path.with_suffix('.json')}\n{RESEARCH_ONLY}")
    result = {"features": str(path), "use": RESEARCH_ONLY, **_summary(table)}
    if table.failures:
        raise CasesFailed(table.failures, len(table.frame), result, reported=True)
    return result


def _summary(table: FeatureTable) -> dict[str, Any]:
    raised = [flag for flags in table.flags.values() for flag in flags]
    return {
        "patients": len(table.frame),
        "columns": len(table.frame.columns),
        "scheme": table.scheme,
        "configuration": table.configuration,
        "segmentation_saw_centre": table.segmentation_saw_centre,
        "segmentation_saw_patient": table.segmentation_saw_patient,
        "flags": {flag: raised.count(flag) for flag in sorted(set(raised))},
        "unmeasured": dict(table.unmeasured),
        "notes": list(table.notes),
    }


def _text(table: FeatureTable) -> str:
    from prognosis.features.feature import FLAGS
    from prognosis.features.masks import SAW_PATIENT

    summary = _summary(table)
    lines = [
        f"{summary['patients']} patients measured, {summary['columns']} features, masks of {table.configuration}, folds {table.scheme}"
    ]
    if table.segmentation_saw_centre:
        lines.append(
            "segmentation_saw_centre: true. The networks behind these masks were trained on other patients of the same centres, or nobody "
            "can tell that they were not: nothing that is fitted on them says how well a new hospital does. Plan with --folds loco or "
            "grouped for that, and begin from no weights that do not tell what they saw"
        )
    else:
        lines.append("segmentation_saw_centre: false. Each mask is by a network that saw no case of the patient's centre")
    if table.segmentation_saw_patient:
        lines.append(SAW_PATIENT)
    if table.segmentation_saw_patient is None:
        lines.append("segmentation_saw_patient: not known. The networks began from weights that do not tell which images they saw")
    lines += [f"{count} x {flag}: {FLAGS.get(flag, 'an unknown flag')}" for flag, count in summary["flags"].items()]
    lines += [f"note: {note}" for note in table.notes]
    lines += [f"not measured: {patient}: {reason}" for patient, reason in table.unmeasured.items()]
    return "\n".join(lines)
