"""Masks for a folder of images, or for the files of one case, from a model folder or the dataset's own finished folds."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg import files
from autoseg.dataset.folds import Folds
from autoseg.dataset.prediction import find_cases
from autoseg.dataset.workspace import Workspace
from autoseg.errors import CasesFailed, DatasetError, GeometryError, ImageError, ModelError, ShiftError
from autoseg.inference.case_list import CaseResult
from autoseg.inference.choice import read_choice
from autoseg.inference.model_documents import finished_folds
from autoseg.inference.predictor import Predictor
from autoseg.inference.records import Records
from autoseg.inference.review import NAME as REVIEW_NAME
from autoseg.inference.review import known, to_review, write_review
from autoseg.inference.stages import folds_text
from autoseg.networks.precision import Precision
from planners.plan import default_configuration

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PredictionResult:
    """What was predicted, and where it lies."""

    folder: Path
    model: Path
    folds: tuple[str, ...]
    cases: tuple[CaseResult, ...]
    notes: tuple[str, ...]

    def text(self) -> str:
        """For a person."""
        skipped = sum(case.skipped for case in self.cases)
        seconds = sum(case.seconds for case in self.cases)
        done = len(self.cases) - skipped
        how = f" with {folds_text(self.folds)} in {seconds:.1f} s" if done else ""
        before = f", {skipped} done before" if skipped else ""
        lines = [f"{done} case{'' if done == 1 else 's'} predicted{how}{before}"]
        urgent = to_review(known((case.case, case.review) for case in self.cases))
        if urgent:
            lines += [f"cases to review, the most urgent first ({len(urgent)} of {len(self.cases)}):", *(f"  {line}" for line in urgent)]
        lines += [f"masks: {self.folder}, listed by urgency of review in {REVIEW_NAME}", "For research use only; not a medical device."]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """For a machine."""
        return {
            "output": str(self.folder),
            "model": str(self.model),
            "folds": list(self.folds),
            "notes": list(self.notes),
            "cases": [
                {
                    "case": c.case,
                    "mask": str(c.path),
                    "notes": list(c.notes),
                    "seconds": round(c.seconds, 3),
                    "skipped": c.skipped,
                    "review": c.review.to_dict() if c.review else None,
                }
                for c in self.cases
            ],
        }


def predict_folder(
    inputs: Sequence[str | Path],
    output: str | Path,
    *,
    dataset: str | Path = ".",
    work: str | Path | None = None,
    name: str = "default",
    model: str | Path | None = None,
    configuration: str | None = None,
    folds: Sequence[str] | None = None,
    device: str = "auto",
    mirroring: bool = True,
    step: float | None = None,
    precision: Precision | None = None,
    save_probabilities: bool = False,
    resume: bool = False,
    replace_nonfinite: bool = False,
    strict: bool = False,
    workers: int | None = None,
) -> PredictionResult:
    """Predicts all cases found in `inputs` into `output`; the other arguments as in `autoseg_predict --help`.

    Raises:
        ModelError: no finished fold, or the model is damaged.
        DatasetError: nothing to predict; the output folder holds the images, or masks that no prediction wrote.
        CasesFailed: some cases failed or were refused as `strict` asks; the rest is done, and its `result` says what.
        ShiftError: the only case was refused.
    """
    if len(inputs) == 1 and Path(inputs[0]).is_dir() and Path(output).resolve() == Path(inputs[0]).resolve():
        raise DatasetError(f"-o {output}: is the folder of the images, where masks would be taken for images. Choose another output folder")
    folder = Path(model) if model else chosen_or_own_model(Path(dataset), Path(work) if work else None, name, configuration)
    predictor = Predictor(folder, folds=folds, device=device, mirroring=mirroring, step=step, precision=precision)
    if model and configuration and predictor.model.dataset.configuration != configuration:
        raise ModelError(f"{folder}: is a model of {predictor.model.dataset.configuration}; -c asks for {configuration}")
    found = inputs[0] if len(inputs) == 1 else list(inputs)
    cases, failures, notes = find_cases(found, predictor.plan.channels, predictor.plan.file_ending)
    for note in notes:
        logger.warning("%s", note)
    if not cases and not failures:
        raise DatasetError(
            f"{', '.join(map(str, inputs))}: holds no images named as the model expects (case_0000{predictor.plan.file_ending})"
        )
    if not cases:
        raise DatasetError(failures[0]) if len(failures) == 1 else CasesFailed(failures, 0)
    done: list[CaseResult] = []
    stale: set[str] = set()

    def report(result: CaseResult) -> None:
        done.append(result)
        if not result.skipped:
            logger.info("case %s: %.1f s%s", result.case, result.seconds, "".join(f"; {note}" for note in result.notes))

    try:
        results = predictor.predict_cases(
            cases,
            Path(output),
            resume=resume,
            save_probabilities=save_probabilities,
            replace_nonfinite=replace_nonfinite,
            strict=strict,
            prefetch=workers != 0,
            failures=failures,
            report=report,
        )
    except (CasesFailed, ImageError, GeometryError, ShiftError) as error:  # all but the first: of the only case
        stale = {case.name for case in cases} - {result.case for result in done}
        if done and isinstance(error, CasesFailed):
            error.result = PredictionResult(Path(output), folder, predictor.folds, tuple(done), (*notes, *predictor.shift.remarks))
        raise
    finally:
        reviews = Records(output).reviews()  # of all that lies there: the folder may have been filled by several runs
        if done or stale & reviews.keys():
            write_review(Path(output), reviews, stale)
    return PredictionResult(Path(output), folder, predictor.folds, results, (*notes, *predictor.shift.remarks))


def chosen_or_own_model(dataset: Path, work: Path | None, name: str, configuration: str | None) -> Path:
    """The choice of autoseg_choose where there is one and no configuration is asked for; else as `own_model`."""
    path = Workspace.of(dataset, work, name).chosen
    if configuration is not None or not path.exists():
        return own_model(dataset, work, name, configuration)
    choice = read_choice(path)
    logger.info("%s: %s. -c NAME takes one configuration by itself", path, choice.text())
    return path


def own_model(dataset: Path, work: Path | None, name: str, configuration: str | None) -> Path:
    """The model folder of a dataset's plan and configuration.

    Raises:
        PlanError: there is no plan.
        ModelError: no fold of it is finished under the fold scheme that is in use; names the schemes that have some.
    """
    workspace = Workspace.of(dataset, work, name)
    plan = workspace.read_plan()
    configuration = configuration or default_configuration(plan)
    scheme = Folds.from_json(files.read_json(workspace.folds, error=ModelError), str(workspace.folds)).scheme
    folder = workspace.model(configuration, scheme)
    if finished_folds(folder):
        return folder
    others = [other for other in sorted(folder.parent.glob("*")) if finished_folds(other)]
    if others:
        listed = "\n".join(f"  - -m {other} (folds {', '.join(finished_folds(other))})" for other in others)
        raise ModelError(
            f"{folder}: no fold of {configuration} is finished under the fold scheme {scheme!r}, which the plan was last asked for. "
            f"Others are; name one of them:\n{listed}"
        )
    raise ModelError(f"{folder}: no fold of {configuration} is finished. Train one with: autoseg_train 0, or name a model folder with -m")
