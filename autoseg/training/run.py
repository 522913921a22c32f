"""What all runs share, whatever they teach: dataset and plan, the locked folder, how a run goes on, and its way to the last epoch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from autoseg import files
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.folds import Folds
from autoseg.dataset.workspace import Workspace, require_disk
from autoseg.errors import FoldError, PlanError, TrainingError
from autoseg.locks import FoldLock
from autoseg.networks.precision import choose_precision
from autoseg.resources import usable_cores
from autoseg.training import checkpoint
from autoseg.training.distributed import Ranks, lost_ranks
from autoseg.training.interrupt import Stopped, StopRequest
from autoseg.training.learner import Learner, Lesson
from autoseg.training.loading import loader_deaths
from autoseg.training.logbook import Logbook
from autoseg.training.progress import Recorder, iteration_bar
from autoseg.training.record import RunRecord, recorded_settings
from autoseg.training.state import TrainState
from autoseg.training.tensorboard import TensorBoard
from autoseg.training.trial import OPTIMISER_COPIES, step_bytes
from planners.plan import Configuration, Plan, PlanInvalid, default_configuration
from planners.settings import override, with_reasons

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlannedDataset:
    """A dataset with its plan, of which one configuration is trained."""

    dataset: Dataset
    workspace: Workspace
    plan: Plan
    configuration: str

    @staticmethod
    def open(dataset: str | Path, configuration: str | None, work: str | Path | None, name: str) -> PlannedDataset:
        """The dataset in a folder, without the cases that its plan excludes.

        Args:
            configuration: default 3d_fullres, or 2d for 2-D data.
            work: the work folder; default inside the dataset's.
            name: the plan's.

        Raises:
            PlanError, DatasetError: there is no plan, or no such configuration in it, or one of the two is not valid.
        """
        workspace = Workspace.of(Path(dataset).absolute(), Path(work) if work else None, name)
        plan = workspace.read_plan()
        opened = Dataset.open(dataset, left_out=workspace.excluded())
        return PlannedDataset(opened, workspace, plan, configuration or default_configuration(plan)).with_settings({})

    @property
    def spec(self) -> Configuration:
        """The configuration."""
        return self.plan.configuration(self.configuration)

    def folds(self) -> Folds:
        """The plan's folds.

        Raises:
            FoldError: there are none, or the file is not valid.
        """
        return Folds.from_json(files.read_json(self.workspace.folds, error=FoldError), str(self.workspace.folds))

    def with_settings(self, settings: Mapping[str, Any]) -> PlannedDataset:
        """The same with plan fields replaced for one run, dotted path -> value; the plan's reasons say which.

        Raises:
            PlanError: the plan has no such configuration or field, or a value is not valid.
        """
        try:
            self.plan.configuration(self.configuration)
            if not settings:
                return self
            changed = override(self.plan, settings, self.configuration)
            return replace(self, plan=with_reasons(changed, self.plan, settings, self.configuration))
        except PlanInvalid as error:
            raise PlanError(str(error)) from None


@contextmanager
def locked(folder: Path) -> Iterator[Callable[[], None]]:
    """Context in which a run's folder is there and this process's alone, without what a killed write left; gives the lock's `check`.

    Raises:
        LockError: another process is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FoldLock(folder / "lock.json") as lock:
        files.remove_leftovers(folder)
        yield lock.check


def wanted_settings(folder: Path, settings: Mapping[str, Any] | None, short: Mapping[str, Any], *, restart: bool) -> dict[str, Any]:
    """The plan fields that a run replaces: those that the run in this folder was begun with, and over them those that are given now.

    Args:
        settings: dotted path -> value.
        short: the same of options of their own; None where one is not given.
        restart: what the folder holds does not count.
    """
    recorded = {} if restart else recorded_settings(folder)
    return recorded | dict(settings or {}) | {key: value for key, value in short.items() if value is not None}


def default_workers(processes: int = 1) -> int:
    """Loader processes of each of so many training processes of this machine."""
    return max(1, min(8, usable_cores() // 2 // processes))


def run_facts(device: torch.device, ranks: Ranks, threads: int | None) -> dict[str, Any]:
    """What run.json says of how a run that begins now is computed; `threads`: None for the default."""
    every = torch.get_num_threads()
    shared = every if ranks.world == 1 else min(every, max(1, usable_cores() // ranks.local_world))
    return {"device": device.type, "precision": choose_precision(device), "threads": threads or shared, "ranks": ranks.world}


def go_on_as_begun(record: RunRecord, name: str, device: torch.device, ranks: Ranks, threads: int | None) -> None:
    """Brings the record of a run up to date with what it is computed on now, and tells what differs from how it was begun.

    The number of threads stays, and so does the precision, unless this device does not compute natively in it.

    Args:
        threads: what is asked for; None: nothing.
    """
    own = choose_precision(device)
    if record["device"] != device.type or record["precision"] not in ("fp32", own):
        logger.warning(
            "%s was begun on %s in %s and goes on on %s in %s: its weights will not be bit-identical to those of one machine",
            name,
            record["device"],
            record["precision"],
            device.type,
            own,
        )
        record.update(device=device.type, precision=own)
    if threads and threads != record["threads"]:
        logger.warning(
            "%s goes on with the %d compute threads it was begun with: they take part in the exact result", name, record["threads"]
        )
    begun = record.document.get("ranks", 1)
    if begun != ranks.world:
        logger.warning(
            "%s was begun with %d processes and goes on with %d: the batches stay the same, and but for rounding the result",
            name,
            begun,
            ranks.world,
        )
        record.update(ranks=ranks.world)


def begun_accumulation(record: RunRecord, spec: Configuration) -> int:
    """Micro-batches that a run takes at least: as many as are asked for, and as it was begun with."""
    return max(spec.training.accumulation, record.document.get("accumulation", 1))


def teach(
    lesson: Lesson,
    record: RunRecord,
    ranks: Ranks,
    device: torch.device,
    workers: int,
    *,
    check_lock: Callable[[], None],
    introduction: str,
    tensorboard: bool = False,
) -> tuple[TrainState, Logbook]:
    """What rank 0 does with a lesson, from the checkpoint to the last epoch: the state that it came to, and the logbook.

    The other ranks `follow`. All part at the end.

    Args:
        introduction: what is taught on which cases, for the log.

    Raises:
        Stopped: SIGTERM or Ctrl-C; the checkpoint is written.
        TrainingError: more epochs are done than are asked for, or the loss is not finite.
        ResourceError: not even one sample fits into the device's memory.
    """
    ranks.from_leader(lesson)
    training = lesson.spec.training
    with lesson.kernels(device):
        learner = Learner(lesson, ranks, device)
        record.update(accumulation=learner.step.accumulation, execution=learner.execution)
        progress = learner.state.progress
        if learner.resumed:
            logger.info("%s: going on from epoch %d, iteration %d", lesson.name, progress.epoch, progress.iteration)
        if (progress.epoch, progress.iteration) > (training.epochs, 0):
            raise TrainingError(
                f"{lesson.name} has trained {progress.epoch} epochs already; {training.epochs} are asked for. "
                "Give a larger --epochs, or --restart to start over"
            )
        logbook = Logbook(lesson.folder / "logbook.jsonl", progress.epoch)
        _announce(lesson, learner, introduction)

        def save(state: TrainState) -> None:
            check_lock()
            checkpoint.save(lesson.folder, state)

        board = TensorBoard(lesson.folder, logbook.rows) if tensorboard else nullcontext(lambda row: None)
        with board as also, StopRequest() as stop, lost_ranks(stop), loader_deaths(stop), iteration_bar(training, progress) as tick:
            picture = lesson.folder / "progress.png"
            learner.fit(
                workers,
                save=save,
                record=Recorder(logbook, picture, lesson.name, training, lesson.task.told, also),
                after_iteration=lambda: tick() or stop(),
            )
            stopped = stop()
    ranks.part_ways()
    if stopped:  # asked for after the last iteration, when nothing looked any more
        raise Stopped("stopped after the last epoch; its checkpoint is written, and the same command does what is left")
    check_lock()
    return learner.state, logbook


def _announce(lesson: Lesson, learner: Learner, introduction: str) -> None:
    spec, training = lesson.spec, lesson.spec.training
    parameters = sum(weight.numel() for weight in learner.state.model.parameters())
    copies = 1 + OPTIMISER_COPIES[training.optimiser.kind] + bool(training.ema) + bool(training.early_stopping)
    disk = parameters * 4 * (2 * copies + 2)
    require_disk(lesson.folder, disk, "what training writes")
    samples = -(-len(learner.source.samples) // learner.step.accumulation)
    memory = step_bytes(spec, lesson.channels, lesson.heads, lesson.precision, samples)
    world = learner.ranks.world
    logger.info(
        "%s; %.1f M parameters, patch %s, batch %d, %s on %s%s; about %.1f GB of memory and %.2f GB of disk. The time needed is told after "
        "the first iterations",
        introduction,
        parameters / 1e6,
        "x".join(map(str, spec.patch_size)),
        spec.batch_size,
        lesson.precision,
        learner.device,
        f", {world} processes" if world > 1 else "",
        memory / 1e9,
        disk / 1e9,
    )
