"""prognosis stage: fits models of the T and N stage, and says how good they are at a hospital that they have not seen."""

from __future__ import annotations

import argparse
from typing import Any

from autoseg.commands.entry import RESEARCH_ONLY, add_shared_options
from prognosis.commands.fit import add_sources, features_of, sources_of

STAGES = ("t-stage", "n-stage")


def add(subparsers: Any) -> None:
    """Adds `stage` to the subcommands of `prognosis`."""
    text = "Fit models of the T and N stage on a cohort, and evaluate them with whole centres held out."
    options = subparsers.add_parser("stage", help=text, description=text)
    options.add_argument(
        "--target", nargs="+", choices=STAGES, default=list(STAGES), metavar="NAME", help="t-stage, n-stage (default: both)"
    )
    add_shared_options(options)
    add_sources(options)
    options.add_argument("--seed", type=int, default=0, metavar="N", help="of folds and bootstrap")


def call(parsed: argparse.Namespace) -> dict[str, Any]:
    """Writes stage.json and evaluation.json under the plan's folder, prints what may be said, and returns it for --json.

    Raises:
        CohortError, TargetError, FeatureError, FitError: the input does not make a cohort that a model can be fitted on.
    """
    from autoseg import files
    from autoseg.dataset.workspace import Workspace
    from prognosis import require_survival
    from prognosis.staging.cohort import STAGES as KNOWN
    from prognosis.staging.cohort import load_staged
    from prognosis.staging.evaluate import evaluate_stages, fit_final_stages
    from prognosis.staging.model import write_stage_model
    from prognosis.targets import read_declaration

    require_survival()
    workspace = Workspace.of(parsed.dataset, parsed.work, parsed.name)
    folder = workspace.root / workspace.name / "prognosis"
    sources = sources_of(parsed, folder / "features.csv")
    declaration, features = read_declaration(sources.get("cohort")), features_of(sources)
    hashes = {name: files.sha256_file(path) for name, path in sources.items()}
    results = {}
    for name in parsed.target:
        staged = load_staged(sources["table"], features, KNOWN[name], declaration)
        evaluation = evaluate_stages(staged, parsed.seed, features.segmentation_saw_centre if features is not None else None)
        model = fit_final_stages(staged, parsed.seed)
        told = evaluation.to_json()
        files.write_json(folder / name / "evaluation.json", told)
        write_stage_model(folder / name / "stage.json", model, {"patients": staged.count(), "evaluation": told, "hashes": hashes})
        print(f"{evaluation.text()}\nwritten: {folder / name / 'stage.json'}, {folder / name / 'evaluation.json'}")
        for note in staged.cohort.notes:
            print(f"note: {note}")
        results[name] = told
    print(RESEARCH_ONLY)
    return results
