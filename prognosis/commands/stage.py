"""prognosis stage: fits models of the T and N stage, and says how good they are at a hospital that they have not seen."""

from __future__ import annotations

import argparse
from typing import Any

from autoseg.commands.entry import RESEARCH_ONLY
from prognosis.commands.inputs import add_input_options, read_inputs

STAGES = ("t-stage", "n-stage")


def add(subparsers: Any) -> None:
    """Adds `stage` to the subcommands of `prognosis`."""
    text = "Fit models of the T and N stage on a cohort, and evaluate them with whole centres held out."
    options = subparsers.add_parser("stage", help=text, description=text)
    options.add_argument(
        "--target", nargs="+", choices=STAGES, default=list(STAGES), metavar="NAME", help="t-stage, n-stage (default: both)"
    )
    add_input_options(options)


def call(parsed: argparse.Namespace) -> dict[str, Any]:
    """Writes stage.json and evaluation.json under the plan's folder, prints what may be said, and returns it for --json.

    Raises:
        CohortError, TargetError, FeatureError, FitError: the input does not make a cohort that a model can be fitted on.
    """
    from autoseg import files
    from prognosis import require_survival
    from prognosis.staging.cohort import STAGES as KNOWN
    from prognosis.staging.cohort import load_staged
    from prognosis.staging.evaluate import evaluate_stages, fit_final_stages
    from prognosis.staging.model import write_stage_model

    require_survival()
    read = read_inputs(parsed)
    results = {}
    for name in parsed.target:
        staged = load_staged(read.sources["table"], read.features, KNOWN[name], read.declaration)
        evaluation = evaluate_stages(staged, parsed.seed, *read.saw)
        model = fit_final_stages(staged, parsed.seed)
        told = evaluation.to_json()
        files.write_json(read.folder / name / "evaluation.json", told)
        write_stage_model(
            read.folder / name / "stage.json", model, {"patients": staged.count(), "evaluation": told, "hashes": dict(read.hashes)}
        )
        print(f"{evaluation.text()}\nwritten: {read.folder / name / 'stage.json'}, {read.folder / name / 'evaluation.json'}")
        for note in staged.cohort.notes:
            print(f"note: {note}")
        results[name] = told
    print(RESEARCH_ONLY)
    return results
