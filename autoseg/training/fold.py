"""One fold: its cases, the lesson that is made of them, and what it leaves: weights in the model folder, out-of-fold masks and scores."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from autoseg import files
from autoseg.dataset.case import Case
from autoseg.dataset.folds import Fold, Folds
from autoseg.errors import TrainingError
from autoseg.inference.model_writing import update_model_folder
from autoseg.preprocessing.cases import PreparedCases, prepare_cases
from autoseg.preprocessing.content import ContentHashes
from autoseg.preprocessing.previous_stage import prepare_masks
from autoseg.preprocessing.store import cases_key
from autoseg.report.curves import write_learning_curve
from autoseg.training.batches import SampleSource
from autoseg.training.beginning import leaked_cases
from autoseg.training.cascade import PreviousStage, previous_stage
from autoseg.training.distributed import Ranks
from autoseg.training.early_stopping import choice, recorded_inner_part
from autoseg.training.initial_weights import images_seen
from autoseg.training.learner import Lesson
from autoseg.training.losses import target_regions
from autoseg.training.record import RunRecord, identity
from autoseg.training.run import PlannedDataset, begun_accumulation, go_on_as_begun, teach
from autoseg.training.sampling import foreground_rule
from autoseg.training.tasks import Segmentation
from autoseg.training.validate import predict_out_of_fold, publish_fold

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoldResult:
    """What a trained fold left on disk."""

    folder: Path
    summary: dict[str, Any]

    def text(self) -> str:
        """For a person: mean Dice of the held-out cases, a label, and where things lie."""
        leaked = self.summary.get("seen_by_initial_weights", [])
        seen = f"held-out cases, {len(leaked)} of which the initial weights were trained on" if leaked else "training cases (not held out)"
        held_out = "held-out cases" if self.summary.get("out_of_fold", True) else seen
        scores = ", ".join(f"{name} {'n/a' if value is None else f'{value:.3f}'}" for name, value in self.summary.get("dice", {}).items())
        return f"fold finished: {self.folder}\nDice of the {held_out}: {scores or 'n/a'}"


@dataclass(frozen=True)
class FoldData:
    """What a fold learns from and is judged on.

    Attributes:
        planned: with the run's settings.
        folds, fold: the scheme, and the fold's name in it.
        prepared: all of its cases.
        before: what a cascade's second stage continues from.
    """

    planned: PlannedDataset
    folds: Folds
    fold: str
    prepared: PreparedCases
    before: PreviousStage | None

    @property
    def cases(self) -> Fold:
        """Names of its training and held-out cases."""
        return self.folds.fold(self.fold)

    @property
    def held_out(self) -> list[Case]:
        """The cases that it holds out; under the fold "all" none."""
        return [self.planned.dataset.case(name) for name in sorted({*self.cases.validation} - {*self.cases.training})]

    @property
    def identity(self) -> dict[str, Any]:
        """All that the fold's weights depend on, but for what they begin from."""
        planned, training = self.planned, self.cases.training
        keys = {case: self.prepared.keys[case] for case in training}
        what = identity(planned.spec, planned.plan.label_scheme, keys, cases_key(planned.plan, planned.configuration))
        return what | (self.before.identity(training) if self.before else {})


def prepare_fold(planned: PlannedDataset, folds: Folds, fold: str, options: str, workers: int) -> FoldData:
    """The fold's cases, prepared and checked; with the previous stage's masks, where the configuration continues from one.

    Args:
        options: see `previous_stage`.

    Raises:
        CasesFailed: some cases could not be prepared.
        TrainingError: the previous stage has no masks of them yet, or others than it predicted.
    """
    dataset, workspace, configuration, spec = planned.dataset, planned.workspace, planned.configuration, planned.spec
    before = previous_stage(dataset, workspace, planned.plan, configuration, folds, fold, options)
    cases = folds.fold(fold)
    names = sorted({*cases.training, *cases.validation})
    lesions = spec.training.sampling.needs_lesions
    prepared = prepare_cases(dataset, planned.plan, configuration, workspace, names=names, workers=workers, verify=True, lesions=lesions)
    if before:
        prepared = prepare_masks(prepared, before.sources, spec.resampling, workers=workers, verify=True)
    return FoldData(planned, folds, fold, prepared, before)


@dataclass(frozen=True)
class FoldRun:
    """One fold's training, ready to go: `learn`, then `finish`."""

    data: FoldData
    folder: Path
    record: RunRecord
    check_lock: Callable[[], None]
    ranks: Ranks
    device: torch.device
    workers: int

    def learn(self, threads: int | None, *, tensorboard: bool) -> None:
        """Trains from the checkpoint to the end; leaves what training came to in the model folder."""
        data, planned, fold = self.data, self.data.planned, self.data.fold
        go_on_as_begun(self.record, f"fold {fold}", self.device, self.ranks, threads)
        lesson = self._lesson()
        state, logbook = teach(
            lesson,
            self.record,
            self.ranks,
            self.device,
            self.workers,
            check_lock=self.check_lock,
            introduction=f"fold {fold} of {planned.configuration} ({data.folds.scheme}): {len(lesson.source.cases)} training and "
            f"{len(data.cases.validation)} held-out cases",
            tensorboard=tensorboard,
        )
        write_learning_curve(logbook.rows, self.folder / "progress.png", title=f"fold {fold}")
        self._copy_previous_stage()
        hashes = ContentHashes(planned.workspace.contents)
        seen = images_seen(self.folder, map(planned.dataset.case, data.cases.training), hashes)
        publish_fold(
            planned.dataset,
            planned.workspace,
            planned.plan,
            planned.configuration,
            data.folds.scheme,
            self.folder,
            fold,
            state.result,
            seen,
        )
        self.record.update(finished_epochs=state.progress.epoch, **choice(self.record, state))

    def finish(self) -> FoldResult:
        """Predicts and scores the held-out cases with the final weights, unless that is done."""
        summary, fold = self.folder / "summary.json", self.data.fold
        held_out = self.data.prepared.inputs(sorted(self.data.cases.validation))
        if summary.exists() and (self.record.outdated or self.record.validated(held_out)):
            logger.info("fold %s is finished: %s", fold, self.folder)
            return FoldResult(self.folder, files.read_json(summary))
        if self.record.outdated:
            raise TrainingError(
                f"{self.folder}: was trained with other {self.record.outdated}, and its held-out cases are not predicted yet. "
                "Train it anew with --restart"
            )
        epochs = self.record["finished_epochs"]
        if self.record.document.get("masks_epochs") != epochs:  # masks of other weights must not be taken for these
            shutil.rmtree(self.folder / "masks", ignore_errors=True)
            self.record.update(masks_epochs=epochs)
        self._copy_previous_stage()
        result = predict_out_of_fold(
            self.data.planned.dataset,
            self.folder,
            fold,
            tuple(held_out),
            device=str(self.device),
            workers=self.workers,
            leaked=leaked_cases(self.folder),
        )
        update_model_folder(self.folder.parent)
        self.record.update(validated={"epochs": epochs, "cases": held_out})
        return FoldResult(self.folder, result)

    def _copy_previous_stage(self) -> None:
        if self.data.before:
            self.data.before.copy_into(self.folder.parent, self.data.fold)

    def _lesson(self) -> Lesson:
        data, plan, spec = self.data, self.data.planned.plan, self.data.planned.spec
        training, prepared = spec.training, data.prepared
        inner = recorded_inner_part(
            self.record, training.early_stopping, data.cases.training, data.folds.members, seed=training.seed, fold=data.fold
        )
        learnt = tuple(case for case in data.cases.training if case not in inner)
        source = SampleSource(
            prepared.folder,
            learnt,
            spec,
            training.seed,
            data.fold,
            keys=prepared.keys,
            previous=prepared.previous,
            classes=tuple(plan.label_scheme.foreground.values()) if data.before else (),
            beside=target_regions(training.loss, plan.label_scheme, spec.spacing),
            rule=foreground_rule(training.sampling, plan.label_scheme, prepared.folder, learnt),
        )
        return Lesson(
            f"fold {data.fold}",
            spec,
            Segmentation(plan.label_scheme),
            channels=plan.input_channels(data.planned.configuration),
            heads=plan.label_scheme.heads,
            folder=self.folder,
            source=source,
            precision=self.record["precision"],
            threads=self.record["threads"],
            accumulation=begun_accumulation(self.record, spec),
            validation=tuple(data.cases.validation),
            inner=inner,
        )
