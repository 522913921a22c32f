"""Masks of new cases by a model folder's networks; what failed is told case by case."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg.dataset.case import Case
from autoseg.dataset.prediction import Found, find_cases
from autoseg.dataset.workspace import Workspace
from autoseg.errors import CasesFailed

if TYPE_CHECKING:
    from autoseg.inference.case_list import CaseResult
    from autoseg.inference.predictor import Predictor
    from autoseg.networks.precision import Precision

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Segmentation:
    """How new cases are segmented.

    Attributes:
        workspace: whose own model is used where `model` is None.
        model: another model folder.
        configuration, folds, device, mirroring, step, precision, resume, replace_nonfinite: as `autoseg_predict` has them.
        prefetch: whether the next case is read while the network works.
    """

    workspace: Workspace
    model: Path | None = None
    configuration: str | None = None
    folds: Sequence[str] | None = None
    device: str = "auto"
    mirroring: bool = True
    step: float | None = None
    precision: Precision | None = None
    resume: bool = False
    replace_nonfinite: bool = False
    prefetch: bool = True

    def open(self) -> Predictor:
        """The networks, loaded.

        Raises:
            PlanError, ModelError: there is no plan, or no finished fold, or the model is damaged.
            DeviceError: there is no such device.
        """
        from autoseg.inference.predict import own_model
        from autoseg.inference.predictor import Predictor

        workspace = self.workspace
        folder = self.model or own_model(workspace.root.parent, workspace.root, workspace.name, self.configuration)
        return Predictor(folder, folds=self.folds, device=self.device, mirroring=self.mirroring, step=self.step, precision=self.precision)

    def segment(self, predictor: Predictor, cases: Sequence[Case], folder: Path) -> Segmented:
        """Writes the masks of cases into a folder.

        Raises:
            DatasetError: a mask would replace an input.
        """
        results: dict[str, CaseResult] = {}
        failures: Mapping[str, str] = {}
        options = {"resume": self.resume, "replace_nonfinite": self.replace_nonfinite, "prefetch": self.prefetch}
        try:
            predictor.predict_cases(cases, folder, raise_single=False, report=_keep(results), **options)
        except CasesFailed as failed:
            failures = failed.by_case
        about = {"folder": str(predictor.model.folder), "dataset": predictor.model.dataset.to_dict(), **predictor.settings}
        return Segmented(tuple(cases), results, failures, about)


@dataclass(frozen=True)
class Segmented:
    """What became of some cases.

    Attributes:
        results, failures: by case; each case is in one of the two.
        about: the model folder, its dataset, folds and settings, as JSON.
    """

    cases: tuple[Case, ...]
    results: Mapping[str, CaseResult]
    failures: Mapping[str, str]
    about: Mapping[str, Any]


def find_inputs(inputs: Sequence[Path], predictor: Predictor) -> Found:
    """The cases to predict, messages about those that cannot be, and notes; raises as `autoseg.dataset.prediction.find_cases`."""
    return find_cases(inputs[0] if len(inputs) == 1 else inputs, predictor.plan.channels, predictor.plan.file_ending)


def _keep(results: dict[str, CaseResult]) -> Callable[[CaseResult], None]:
    def keep(result: CaseResult) -> None:
        results[result.case] = result
        told = "segmented already" if result.skipped else f"segmented in {result.seconds:.1f} s"
        logger.info("case %s: %s", result.case, told)

    return keep
