"""prognosis fit: fits a target's model, and says how good it is at a hospital that it has not seen."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg.commands.entry import RESEARCH_ONLY
from prognosis.commands.inputs import Inputs, add_input_options, read_inputs

if TYPE_CHECKING:
    from prognosis.cohort import Cohort
    from prognosis.validation.evaluation import Evaluation
    from prognosis.validation.rung import FoldFit

TITLES = {
    "c_index": "C-index",
    "c_index_across_centres": "across centres",
    "uno_c": "Uno's C",
    "auc": "AUC",
    "auc_across_centres": "across centres",
    "balanced_accuracy": "balanced accuracy",
}


def add(subparsers: Any) -> None:
    """Adds `fit` to the subcommands of `prognosis`."""
    text = "Fit a target's model on a cohort, beside controls, and evaluate it with whole centres held out."
    options = subparsers.add_parser("fit", help=text, description=text)
    options.add_argument("--target", required=True, metavar="NAME", help="what to predict: rfs, hpv, or a target of cohort.toml")
    add_input_options(options)
    options.add_argument("--truth", type=Path, metavar="FILE", help="truth.csv of a generated cohort: shows the ceiling")


def call(parsed: argparse.Namespace) -> dict[str, Any]:
    """Writes evaluation.json, predictions.csv and model.json under the plan's folder, prints what may be said, and returns it for --json.

    Raises:
        CohortError, TargetError, FeatureError, FitError: the input does not make a cohort that a model can be fitted on.
    """
    from prognosis import require_survival
    from prognosis.cohort import load_cohort
    from prognosis.validation.ceiling import read_truth
    from prognosis.validation.nested import evaluate, fit_final

    require_survival()
    read = read_inputs(parsed)
    cohort = load_cohort(read.sources["table"], read.features, read.declaration.target(parsed.target), read.declaration)
    truth = read_truth(read.sources["truth"], cohort) if "truth" in read.sources else None
    evaluation = evaluate(cohort, parsed.seed, truth, *read.saw)
    final = fit_final(cohort, parsed.seed)
    written = _write(read.folder / cohort.target.name, read, cohort, evaluation, final)
    print(f"{_text(evaluation)}\nwritten: {', '.join(map(str, written))}\n{RESEARCH_ONLY}")
    return {"files": [str(path) for path in written], **evaluation.to_json()}


def _write(folder: Path, read: Inputs, cohort: Cohort, evaluation: Evaluation, final: FoldFit) -> tuple[Path, ...]:
    """The model is written last: where it stands, what it was evaluated by stands too."""
    from autoseg import files
    from prognosis.models.document import PrognosisModel, write_model
    from prognosis.validation.evaluation import centre_table

    evaluated, predicted, model = folder / "evaluation.json", folder / "predictions.csv", folder / "model.json"
    files.write_json(evaluated, evaluation.to_json())
    files.write_text(predicted, evaluation.predictions_csv())
    hashes = {**read.hashes, "evaluation": files.sha256_file(evaluated), "predictions": files.sha256_file(predicted)}
    write_model(
        model,
        PrognosisModel(
            target=cohort.target,
            fitted=final.fitted,
            threshold=final.selection.threshold,
            cut=final.cut,
            training={"patients": len(cohort.patients), "centres": centre_table(cohort), "seed": evaluation.seed},
            folds={name: [fold["name"] for fold in rung["folds"]] for name, rung in evaluation.rungs.items()},
            segmentation_saw_centre=evaluation.segmentation_saw_centre,
            segmentation_saw_patient=evaluation.segmentation_saw_patient,
            hashes=hashes,
        ),
    )
    return evaluated, predicted, model


def _text(evaluation: Evaluation) -> str:
    """The statement, the cohort's flow, and each rung's models side by side."""
    lines = list(evaluation.statement)
    lines += ["", "cohort:"]
    for step in evaluation.cohort.flow:
        lines.append(f"  {step.patients:6d}  {step.step}" + (f" ({step.removed} out: {step.why})" if step.removed else ""))
    for name, rung in evaluation.rungs.items():
        lines += ["", "centres held out:" if name == "centre" else "random folds:", *_table(rung["models"], rung["ceiling"])]
    lines += [f"note: {note}" for note in evaluation.notes]
    return "\n".join(lines)


def _table(models: dict[str, Any], ceiling: dict[str, Any]) -> list[str]:
    from prognosis.validation.statement import number

    rows = {**models, **{f"truth ({name})": metrics for name, metrics in ceiling.items()}}
    columns = [name for name in TITLES if name in models["null"]]
    width = max(map(len, rows)) + 2
    lines = ["  " + "".ljust(width) + "".join(TITLES[name].ljust(24) for name in columns)]
    for row, metrics in rows.items():
        cells = (number(metrics[name]) if name in metrics else "" for name in columns)
        lines.append(("  " + row.ljust(width) + "".join(cell.ljust(24) for cell in cells)).rstrip())
    return lines
