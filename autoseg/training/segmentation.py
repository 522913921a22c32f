"""Training one fold: a segmentation network, its loss, batches and metric put into the loop, then its out-of-fold masks."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from autoseg import files
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.folds import Fold, Folds
from autoseg.dataset.workspace import Workspace, require_disk
from autoseg.errors import FoldError, PlanError, TrainingError
from autoseg.inference.model_writing import remove_fold, update_model_folder
from autoseg.locks import FoldLock
from autoseg.networks.precision import choose_precision
from autoseg.preprocessing.cases import PreparedCases, prepare_cases
from autoseg.preprocessing.content import ContentHashes
from autoseg.preprocessing.previous_stage import prepare_masks
from autoseg.preprocessing.store import cases_key
from autoseg.report.curves import write_learning_curve
from autoseg.resources import usable_cores
from autoseg.training import checkpoint
from autoseg.training.batches import SampleSource, loader_deaths
from autoseg.training.beginning import FIELD as INITIAL_WEIGHTS
from autoseg.training.beginning import leaked_cases
from autoseg.training.cascade import PreviousStage, command_options, previous_stage
from autoseg.training.distributed import ALONE, Ranks, joined_ranks, lost_ranks
from autoseg.training.early_stopping import record_choice, recorded_inner_part
from autoseg.training.initial_weights import images_seen, plan_start
from autoseg.training.interrupt import StopRequest
from autoseg.training.learner import Learner, Lesson, follow
from autoseg.training.logbook import Logbook
from autoseg.training.losses import target_regions
from autoseg.training.progress import Recorder, iteration_bar
from autoseg.training.record import RunRecord, identity, recorded_settings, require_same_siblings
from autoseg.training.sampling import foreground_rule
from autoseg.training.state import TrainState
from autoseg.training.step import Step
from autoseg.training.tensorboard import FOLDER as TENSORBOARD
from autoseg.training.tensorboard import TensorBoard, require_tensorboard
from autoseg.training.trial import step_bytes
from autoseg.training.validate import predict_out_of_fold, publish_fold
from planners.plan import Configuration, Plan, PlanInvalid, default_configuration
from planners.settings import override

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


def train(
    dataset: str | Path,
    fold: int | str,
    *,
    configuration: str | None = None,
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
    tensorboard: bool = False,
    init: str | Path | None = None,
    init_fold: str | None = None,
    init_despite_leak: bool = False,
) -> FoldResult | None:
    """The result of training a fold to its end, and of predicting its held-out cases with the final weights.

    An interrupted fold goes on where it stopped. A finished one is left as it is, unless `epochs` is larger than what it was trained for.
    Under torchrun the processes share every batch; rank 0 does all else, and the other ranks return None.

    Args:
        dataset: the dataset folder.
        fold: a fold's number or name (a centre's under `loco`), "all", or two folds at once, "0+1", for the nested masks of a cascade.
        configuration: default 3d_fullres, or 2d for 2-D data.
        epochs, iterations, seed: short for settings training.epochs, training.iterations, training.seed.
        settings: plan fields to replace for this run, dotted path -> value.
        device: "auto", "cpu", "cuda" or, with one process, "cuda:i".
        restart: forget what was trained before.
        workers: loader processes, 0 = none; default by the number of cores.
        threads: compute threads on a CPU; default all cores. Recorded, and kept on resuming: it takes part in the exact result.
        tensorboard: also write the logbook's numbers for TensorBoard, into the fold's folder.
        init: a trained model, folder or archive, to begin from in place of random weights; going on needs it no more.
        init_fold: which of its folds; default the one of the same name, else "all", else the first.
        init_despite_leak: begin from it though it was trained on cases that this fold holds out.

    Raises:
        PlanError, FoldError, DatasetError: there is no plan, or it does not fit.
        LockError: the fold is being trained elsewhere.
        ModelError: `init` is not sound, or its network is another one than the plan's.
        TrainingError: the fold was begun with other settings or cases (and `restart` is not set), `init` was trained on held-out cases, or
            the loss is not finite.
        autoseg.training.loop.Stopped: SIGTERM or Ctrl-C; the checkpoint is written.
    """
    if tensorboard:
        require_tensorboard()
    with joined_ranks(device) as (ranks, where):
        workers = _default_workers(ranks.local_world) if workers is None else workers
        if not ranks.leads:
            follow(ranks, where, workers)
            return None
        workspace = Workspace.of(Path(dataset).absolute(), Path(work) if work else None, name)
        plan = workspace.read_plan()
        opened = Dataset.open(dataset, left_out=workspace.excluded())
        configuration = configuration or default_configuration(plan)
        folds = read_folds(workspace)
        chosen = folds.fold(str(fold))
        _require_cases(opened, chosen, workspace)
        workspace.make()
        model = (workspace.nested_model if folds.is_joint(str(fold)) else workspace.model)(configuration, folds.scheme)
        folder = model / f"fold_{fold}"
        folder.mkdir(parents=True, exist_ok=True)
        with FoldLock(folder / "lock.json") as lock:
            files.remove_leftovers(folder)
            short = {"training.epochs": epochs, "training.iterations": iterations, "training.seed": seed}
            wanted = {} if restart else recorded_settings(folder)
            wanted |= dict(settings or {}) | {key: value for key, value in short.items() if value is not None}
            plan = _with_settings(plan, configuration, wanted)
            spec = plan.configuration(configuration)
            before = previous_stage(opened, workspace, plan, configuration, folds, str(fold), command_options(dataset, work, name))
            names = sorted({*chosen.training, *chosen.validation})
            lesions = spec.training.sampling.needs_lesions
            prepared = prepare_cases(opened, plan, configuration, workspace, names=names, workers=workers, verify=True, lesions=lesions)
            keys = {case: prepared.keys[case] for case in chosen.training}
            what = identity(spec, plan.label_scheme, keys, cases_key(plan, configuration))
            if before:
                what |= before.identity(chosen.training)
                prepared = prepare_masks(prepared, before.sources, spec.resampling, workers=workers, verify=True)
            held_out = [opened.case(case) for case in sorted({*chosen.validation} - {*chosen.training})]
            start = plan_start(
                folder,
                plan,
                configuration,
                held_out,
                ContentHashes(workspace.contents),
                fold=str(fold),
                init=init,
                init_fold=init_fold,
                despite_leak=init_despite_leak,
                restart=restart,
            )
            what |= start.identity if start else {}
            require_same_siblings(folder, what)
            if restart:  # only now that nothing stands in the way of training anew
                forget(folder, str(fold))
            facts = {
                "device": where.type,
                "precision": choose_precision(where),
                "threads": threads or _default_threads(ranks),
                "ranks": ranks.world,
            }
            facts |= {INITIAL_WEIGHTS: start.beginning.to_dict()} if start else {}
            record = RunRecord(folder, what, spec.training.epochs, wanted, facts)
            if start:
                start.write(record, spec)
            run = _Run(plan, configuration, spec, folds, str(fold), chosen, folder, prepared, where, record, lock.check, before, ranks)
            if not record.finished:
                run.learn(opened, workspace, workers, threads, tensorboard)
            else:
                ranks.from_leader(None)
                ranks.part_ways()
            return run.finish(opened, workers)


def forget(folder: Path, fold: str) -> None:
    """Removes what a fold has learned, out of its model folder first."""
    if (folder.parent / "manifest.json").exists():
        remove_fold(folder.parent, fold)
    checkpoint.remove(folder)
    for name in ("run.json", "summary.json", "summary.csv", "logbook.jsonl", "progress.png", "model.safetensors"):
        (folder / name).unlink(missing_ok=True)
    for name in ("masks", TENSORBOARD):
        shutil.rmtree(folder / name, ignore_errors=True)


def read_folds(workspace: Workspace) -> Folds:
    """The plan's folds.

    Raises:
        FoldError: there are none, or the file is not valid.
    """
    return Folds.from_json(files.read_json(workspace.folds, error=FoldError), str(workspace.folds))


def _require_cases(dataset: Dataset, fold: Fold, workspace: Workspace) -> None:
    gone = sorted({*fold.training, *fold.validation} - {case.name for case in dataset.cases})
    if gone:
        raise FoldError(
            f"{workspace.folds}: names {len(gone)} cases that the dataset no longer has: {', '.join(gone[:10])}. "
            "Run autoseg_plan again: it takes them out of the folds"
        )


def _with_settings(plan: Plan, configuration: str, settings: Mapping[str, Any]) -> Plan:
    try:
        plan.configuration(configuration)
        return override(plan, dict(settings), configuration) if settings else plan
    except PlanInvalid as error:
        raise PlanError(str(error)) from None


def _default_workers(processes: int = 1) -> int:
    return max(1, min(8, usable_cores() // 2 // processes))


def _default_threads(ranks: Ranks) -> int:
    ours = torch.get_num_threads()
    return ours if ranks.world == 1 else min(ours, max(1, usable_cores() // ranks.local_world))


class _Run:
    """One fold's training, ready to go: `learn`, then `finish`."""

    def __init__(
        self,
        plan: Plan,
        configuration: str,
        spec: Configuration,
        folds: Folds,
        fold: str,
        chosen: Fold,
        folder: Path,
        prepared: PreparedCases,
        device: torch.device,
        record: RunRecord,
        check_lock: Callable[[], None],
        before: PreviousStage | None = None,
        ranks: Ranks = ALONE,
    ):
        self.plan, self.configuration, self.spec = plan, configuration, spec
        self.folds, self.scheme, self.fold, self.chosen = folds, folds.scheme, fold, chosen
        self.folder, self.prepared, self.device, self.record = folder, prepared, device, record
        self.check_lock = check_lock
        self.before = before
        self.ranks = ranks

    def learn(self, dataset: Dataset, workspace: Workspace, workers: int, threads: int | None, tensorboard: bool) -> None:
        """Trains from the checkpoint to the end; leaves what training came to in the model folder."""
        self._go_on_as_begun(threads)
        training = self.spec.training
        lesson: Lesson = self.ranks.from_leader(self._lesson())
        with lesson.kernels(self.device):
            state, logbook = self._follow_lesson(lesson, workers, tensorboard)
        self.ranks.part_ways()
        write_learning_curve(logbook.rows, self.folder / "progress.png", title=f"fold {self.fold}")
        self.check_lock()
        if self.before:
            self.before.copy_into(self.folder.parent, self.fold)
        seen = images_seen(self.folder, map(dataset.case, self.chosen.training), ContentHashes(workspace.contents))
        publish_fold(dataset, workspace, self.plan, self.configuration, self.scheme, self.folder, self.fold, state.result, seen)
        record_choice(self.record, state, training.epochs)
        self.record.update(finished_epochs=state.progress.epoch)

    def _follow_lesson(self, lesson: Lesson, workers: int, tensorboard: bool) -> tuple[TrainState, Logbook]:
        training = self.spec.training
        learner = Learner(lesson, self.ranks, self.device)
        self.record.update(accumulation=learner.step.accumulation, execution=learner.execution)
        state = learner.state
        if learner.resumed:
            logger.info("fold %s: going on from epoch %d, iteration %d", self.fold, state.progress.epoch, state.progress.iteration)
        if (state.progress.epoch, state.progress.iteration) > (training.epochs, 0):
            raise TrainingError(
                f"fold {self.fold} has trained {state.progress.epoch} epochs already; {training.epochs} are asked for. "
                "Give a larger --epochs, or --restart to start over"
            )
        logbook = Logbook(self.folder / "logbook.jsonl", state.progress.epoch)
        self._announce(state, learner.step, len(lesson.source.cases))
        board = TensorBoard(self.folder, logbook.rows) if tensorboard else nullcontext(lambda row: None)
        with board as also, StopRequest() as stop, lost_ranks(stop), loader_deaths(stop), iteration_bar(training, state.progress) as tick:
            learner.fit(
                workers,
                save=self._save,
                record=Recorder(logbook, self.folder / "progress.png", self.fold, training, also),
                after_iteration=lambda: tick() or stop(),
            )
        return state, logbook

    def finish(self, dataset: Dataset, workers: int) -> FoldResult:
        """Predicts and scores the held-out cases with the final weights, unless that is done."""
        summary = self.folder / "summary.json"
        held_out = self.prepared.inputs(sorted(self.chosen.validation))
        if summary.exists() and (self.record.outdated or self.record.validated(held_out)):
            logger.info("fold %s is finished: %s", self.fold, self.folder)
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
        if self.before:
            self.before.copy_into(self.folder.parent, self.fold)
        leaked = leaked_cases(self.folder)
        result = predict_out_of_fold(
            dataset, self.folder, self.fold, tuple(held_out), device=str(self.device), workers=workers, leaked=leaked
        )
        update_model_folder(self.folder.parent)
        self.record.update(validated={"epochs": epochs, "cases": held_out})
        return FoldResult(self.folder, result)

    def _lesson(self) -> Lesson:
        training = self.spec.training
        inner = recorded_inner_part(
            self.record, training.early_stopping, self.chosen.training, self.folds.members, seed=training.seed, fold=self.fold
        )
        learnt = tuple(case for case in self.chosen.training if case not in inner)
        source = SampleSource(
            self.prepared.folder,
            learnt,
            self.spec,
            training.seed,
            self.fold,
            self.prepared.keys,
            self.prepared.previous,
            tuple(self.plan.label_scheme.foreground.values()) if self.before else (),
            target_regions(training.loss, self.plan.label_scheme, self.spec.spacing),
            foreground_rule(training.sampling, self.plan.label_scheme, self.prepared.folder, learnt),
        )
        return Lesson(
            self.plan,
            self.configuration,
            self.fold,
            self.folder,
            source,
            tuple(self.chosen.validation),
            inner,
            precision=self.record["precision"],
            threads=self.record["threads"],
            accumulation=max(training.accumulation, self.record.document.get("accumulation", 1)),
        )

    def _save(self, reached: TrainState) -> None:
        self.check_lock()
        checkpoint.save(self.folder, reached)

    def _go_on_as_begun(self, threads: int | None) -> None:
        """Takes the recorded number of threads; says what differs from how the run was begun."""
        if self.record["device"] != self.device.type:
            logger.warning(
                "fold %s was begun on %s and goes on on %s: its weights will not be bit-identical to those of one machine",
                self.fold,
                self.record["device"],
                self.device.type,
            )
            self.record.update(device=self.device.type, precision=choose_precision(self.device))
        if threads and threads != self.record["threads"]:
            logger.warning(
                "fold %s goes on with the %d compute threads it was begun with: they take part in the exact result",
                self.fold,
                self.record["threads"],
            )
        begun = self.record.document.get("ranks", 1)
        if begun != self.ranks.world:
            logger.warning(
                "fold %s was begun with %d processes and goes on with %d: the batches stay the same, and but for rounding the result",
                self.fold,
                begun,
                self.ranks.world,
            )
            self.record.update(ranks=self.ranks.world)

    def _announce(self, state: TrainState, step: Step, cases: int) -> None:
        training = self.spec.training
        parameters = sum(p.numel() for p in state.model.parameters())
        copies = (2 if training.optimiser.kind == "sgd" else 3) + bool(training.ema) + bool(training.early_stopping)
        disk = parameters * 4 * (2 * copies + 2)
        samples = -(-len(self.ranks.part(self.spec.batch_size)) // step.accumulation)
        memory = step_bytes(self.spec, self.plan.input_channels(self.configuration), self.plan.label_scheme.heads, step.precision, samples)
        require_disk(self.folder, disk, "a fold's checkpoints and weights")
        logger.info(
            "fold %s of %s (%s): %d training and %d held-out cases; %.1f M parameters, patch %s, batch %d, %s on %s%s; about %.1f GB of "
            "memory and %.2f GB of disk. The time needed is told after the first iterations",
            self.fold,
            self.configuration,
            self.scheme,
            cases,
            len(self.chosen.validation),
            parameters / 1e6,
            "x".join(map(str, self.spec.patch_size)),
            self.spec.batch_size,
            self.record["precision"],
            self.device,
            f", {self.ranks.world} processes" if self.ranks.world > 1 else "",
            memory / 1e9,
            disk / 1e9,
        )
