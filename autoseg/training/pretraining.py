"""Pretraining a configuration's network on images without labels: a masked autoencoder put into the loop."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from autoseg import files
from autoseg.dataset.case import Case
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.folds import Folds
from autoseg.dataset.unlabelled import find_unlabelled, require_any
from autoseg.dataset.workspace import Workspace, require_disk
from autoseg.errors import FoldError, PlanError, TrainingError
from autoseg.inference.trained_on import trained_on
from autoseg.locks import FoldLock
from autoseg.networks.build import build_network
from autoseg.networks.norm import channels_last
from autoseg.networks.precision import choose_device, choose_precision
from autoseg.preprocessing.cases import PreparedCases, prepare_cases
from autoseg.preprocessing.content import ContentHashes
from autoseg.preprocessing.store import cases_key
from autoseg.report.curves import write_learning_curve
from autoseg.resources import usable_cores
from autoseg.training import checkpoint
from autoseg.training.batches import PLAIN, SegmentationBatches, loader_deaths
from autoseg.training.interrupt import StopRequest
from autoseg.training.logbook import Logbook
from autoseg.training.loop import Schedule, fit
from autoseg.training.masked_images import MaskedImages, hidden_error
from autoseg.training.optimisers import build_optimiser
from autoseg.training.pretrained_folder import DOCUMENTS, write_pretrained
from autoseg.training.progress import duration, iteration_bar
from autoseg.training.record import RunRecord, identity, recorded_settings
from autoseg.training.schedule import learning_rate
from autoseg.training.state import Progress, TrainState
from autoseg.training.step import Step
from autoseg.training.trial import fit_into_memory
from planners.plan import Configuration, Plan, PlanInvalid, Training, default_configuration
from planners.settings import override

logger = logging.getLogger(__name__)

UNLABELLED = "unlabelled"


@dataclass(frozen=True)
class PretrainingResult:
    """What pretraining left on disk; `errors`: the mean squared error of hidden voxels, epoch by epoch."""

    folder: Path
    cases: int
    errors: tuple[float, ...]

    def text(self) -> str:
        """For a person."""
        course = f"{self.errors[0]:.4f} in the first epoch, {self.errors[-1]:.4f} in the last" if self.errors else "n/a"
        return (
            f"pretrained on {self.cases} cases: {self.folder}\nmean squared error of hidden voxels: {course}\n"
            f"begin a fold from it with: autoseg_train FOLD --init {self.folder}"
        )


def pretrain(
    dataset: str | Path,
    *,
    configuration: str | None = None,
    images: Sequence[str | Path] = (),
    with_fold: str | None = None,
    epochs: int | None = None,
    iterations: int | None = None,
    settings: Mapping[str, Any] | None = None,
    device: str = "auto",
    seed: int | None = None,
    restart: bool = False,
    work: str | Path | None = None,
    name: str = "default",
    workers: int | None = None,
    threads: int | None = None,
) -> PretrainingResult:
    """The result of pretraining a configuration's network to its end. An interrupted run goes on where it stopped.

    Args:
        dataset: the dataset folder; it must be planned. Its images without labels are learned from, see `find_unlabelled`.
        configuration: default 3d_fullres, or 2d for 2-D data.
        images: further folders of images.
        with_fold: a fold whose training images are learned from too; its held-out cases never are. The result suits that fold alone.
        epochs, iterations: short for settings pretraining.epochs, pretraining.iterations; seed for training.seed.
        settings: plan fields to replace for this run, dotted path -> value.
        device, restart, work, name, workers, threads: as for `train`.

    Raises:
        PlanError, FoldError, DatasetError: there is no plan, no such fold, or nothing to learn from.
        CasesFailed: some cases could not be prepared.
        LockError: it is being pretrained elsewhere.
        TrainingError: the run was begun with other settings or images (and `restart` is not set), or the loss is not finite.
        Stopped: SIGTERM or Ctrl-C; the checkpoint is written.
    """
    workspace = Workspace.of(Path(dataset).absolute(), Path(work) if work else None, name)
    plan = workspace.read_plan()
    opened = Dataset.open(dataset, left_out=workspace.excluded())
    configuration = configuration or default_configuration(plan)
    cases = list(find_unlabelled(opened, images))
    label = UNLABELLED
    if with_fold is not None:
        folds = Folds.from_json(files.read_json(workspace.folds, error=FoldError), str(workspace.folds))
        cases += [opened.case(case) for case in sorted(folds.fold(with_fold).training)]
        label = f"{folds.scheme}-fold_{with_fold}"
    require_any(cases, opened, images)
    workspace.make()
    folder = workspace.pretrained(configuration, label)
    folder.mkdir(parents=True, exist_ok=True)
    short = {"pretraining.epochs": epochs, "pretraining.iterations": iterations, "training.seed": seed}
    with FoldLock(folder / "lock.json") as lock:
        files.remove_leftovers(folder)
        wanted = {} if restart else recorded_settings(folder)
        wanted |= dict(settings or {}) | {key: value for key, value in short.items() if value is not None}
        plan = _with_settings(plan, configuration, wanted)
        workers = max(1, min(8, usable_cores() // 2)) if workers is None else workers
        prepared = prepare_cases(replace(opened, cases=tuple(cases)), plan, configuration, workspace, workers=workers, verify=True)
        spec = autoencoder_configuration(plan.configuration(configuration))
        what = identity(spec, plan.label_scheme, prepared.keys, cases_key(plan, configuration))
        what |= {"pretraining": files.sha256_json(spec.pretraining.model_dump(mode="json", exclude={"epochs"}))}
        if restart:
            forget(folder)
        where = choose_device(device)
        facts = {"device": where.type, "precision": choose_precision(where), "threads": threads or torch.get_num_threads()}
        record = RunRecord(folder, what, spec.training.epochs, wanted, facts)
        if not record.finished:
            run = _Run(plan, configuration, spec, label, folder, prepared, where, record, lock.check)
            run.learn(cases, ContentHashes(workspace.contents), workers)
        rows = Logbook(folder / "logbook.jsonl", record["finished_epochs"]).rows
        return PretrainingResult(folder, len(cases), tuple(row["loss"] for row in rows))


def autoencoder_configuration(spec: Configuration) -> Configuration:
    """The configuration as it is pretrained: its schedule from `pretraining`, moved and mirrored only, judged at full resolution alone."""
    own = spec.pretraining
    training = Training(
        epochs=own.epochs,
        iterations=own.iterations,
        validation_iterations=0,
        gradient_clip=own.gradient_clip,
        accumulation=spec.training.accumulation,
        seed=spec.training.seed,
        optimiser=own.optimiser,
        schedule=own.schedule,
    )
    moved = PLAIN.model_copy(update={"spatial": spec.augmentation.spatial, "mirror": spec.augmentation.mirror})
    network = spec.network.model_copy(update={"deep_supervision": False})
    return spec.model_copy(update={"training": training, "augmentation": moved, "network": network, "previous_stage": None})


def forget(folder: Path) -> None:
    """Removes what a pretraining run has left."""
    checkpoint.remove(folder)
    for name in ("manifest.json", *DOCUMENTS, "run.json", "logbook.jsonl", "progress.png"):
        (folder / name).unlink(missing_ok=True)


def _with_settings(plan: Plan, configuration: str, settings: Mapping[str, Any]) -> Plan:
    try:
        plan.configuration(configuration)
        return override(plan, dict(settings), configuration) if settings else plan
    except PlanInvalid as error:
        raise PlanError(str(error)) from None


class _NoMetric:
    """The loop's metric where nothing is held out."""

    def update(self, outputs: Any, targets: Any) -> None:
        raise AssertionError("there are no validation batches")

    def result(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class _Run:
    """One pretraining run, ready to go."""

    plan: Plan
    configuration: str
    spec: Configuration
    label: str
    folder: Path
    prepared: PreparedCases
    device: torch.device
    record: RunRecord
    check_lock: Callable[[], None]

    def learn(self, cases: Sequence[Case], hashes: ContentHashes, workers: int) -> None:
        """Trains from the checkpoint to the end, and leaves the weights where `--init` finds them."""
        torch.set_num_threads(self.record["threads"])
        training = self.spec.training
        state = self._state()
        if checkpoint.load(self.folder, state) and state.progress != Progress():
            logger.info("pretraining goes on from epoch %d, iteration %d", state.progress.epoch, state.progress.iteration)
        if (state.progress.epoch, state.progress.iteration) > (training.epochs, 0):
            raise TrainingError(
                f"{self.folder}: {state.progress.epoch} epochs are done already, {training.epochs} are asked for. "
                "Give a larger --epochs, or --restart"
            )
        names = tuple(sorted(case.name for case in cases))
        source = MaskedImages(self.prepared.folder, names, self.spec, training.seed, f"pretraining {self.label}", self.prepared.keys)
        step = self._step(state, source)
        self._announce(state, len(names))
        logbook = Logbook(self.folder / "logbook.jsonl", state.progress.epoch)
        with StopRequest() as stop, loader_deaths(stop), iteration_bar(training, state.progress) as tick:
            fit(
                state,
                step,
                SegmentationBatches(source, (), workers),
                _NoMetric,
                Schedule(
                    training.epochs,
                    training.iterations,
                    lambda epoch: learning_rate(training.schedule, training.optimiser.lr, epoch, training.epochs),
                ),
                save=self._save,
                record=lambda row: self._tell(logbook, row),
                after_iteration=lambda: tick() or stop(),
            )
        write_learning_curve(logbook.rows, self.folder / "progress.png", title=f"pretraining on {len(names)} cases")
        self.check_lock()
        write_pretrained(self.folder, self.plan, self.configuration, len(names), state.result, trained_on(cases, hashes))
        self.record.update(finished_epochs=state.progress.epoch)

    @property
    def _channels(self) -> int:
        """Channels that go in, and come out."""
        return len(self.plan.channels)

    def _state(self) -> TrainState:
        channels, spec = self._channels, self.spec
        network = self._move(build_network(spec.network, channels, channels, spec.dimension, seed=spec.training.seed))
        scaler = torch.amp.GradScaler(self.device.type) if self.record["precision"] == "fp16" else None
        return TrainState(network, build_optimiser(spec.training.optimiser, network.parameters()), scaler)

    def _step(self, state: TrainState, source: MaskedImages) -> Step:
        step = Step(
            hidden_error,
            self.device,
            self.record["precision"],
            gradient_clip=self.spec.training.gradient_clip,
            accumulation=max(self.spec.training.accumulation, self.record.document.get("accumulation", 1)),
            couples_samples=False,
            prepare=self._move,
        )
        channels = self._channels
        step = fit_into_memory(step, state, self.spec, channels, channels, lambda: source.blank(channels))
        self.record.update(accumulation=step.accumulation)
        return step

    def _move(self, thing: Any) -> Any:
        return thing.to(device=self.device, memory_format=channels_last(self.spec.dimension))

    def _save(self, reached: TrainState) -> None:
        self.check_lock()
        checkpoint.save(self.folder, reached)

    def _announce(self, state: TrainState, cases: int) -> None:
        parameters = sum(weight.numel() for weight in state.model.parameters())
        copies = 2 if self.spec.training.optimiser.kind == "sgd" else 3
        require_disk(self.folder, parameters * 4 * (2 * copies + 1), "pretraining's checkpoints and weights")
        own = self.spec.pretraining
        logger.info(
            "pretraining %s on %d cases: %.1f M parameters, patch %s, batch %d, %.0f %% of the blocks hidden, %s on %s",
            self.configuration,
            cases,
            parameters / 1e6,
            "x".join(map(str, self.spec.patch_size)),
            self.spec.batch_size,
            100 * own.masked_share,
            self.record["precision"],
            self.device,
        )

    def _tell(self, logbook: Logbook, row: dict[str, Any]) -> None:
        logbook.append(row)
        left = (self.spec.training.epochs - row["epoch"] - 1) * (logbook.seconds_per_epoch() or 0.0)
        logger.info(
            "pretraining epoch %d/%d: error of hidden voxels %.4f, lr %.5f, %.1f s, waiting for data %.0f %%, %s left",
            row["epoch"] + 1,
            self.spec.training.epochs,
            row["loss"],
            row["lr"],
            row["seconds"],
            100 * row["data_wait"],
            duration(left),
        )
