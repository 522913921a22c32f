"""A network being taught: the lesson, which rank 0 hands to the other ranks, and what every rank does with it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from autoseg.networks.build import build_network
from autoseg.networks.norm import channels_last
from autoseg.networks.precision import Precision
from autoseg.training import checkpoint
from autoseg.training.batches import SampleSource
from autoseg.training.distributed import Ranks, lost_ranks
from autoseg.training.early_stopping import inner_score
from autoseg.training.interrupt import StopRequest
from autoseg.training.kernels import compiled_where_possible, cuda_kernels
from autoseg.training.loading import SegmentationBatches, loader_deaths
from autoseg.training.loop import EarlyStop, Schedule, fit
from autoseg.training.optimisers import build_optimiser
from autoseg.training.schedule import learning_rate
from autoseg.training.state import Progress, TrainState, WeightAverage
from autoseg.training.step import Step
from autoseg.training.tasks import Task
from autoseg.training.trial import fit_into_memory, lack_of_memory
from planners.plan import Configuration


@dataclass(frozen=True)
class Lesson:
    """What a network is to learn and how: plain data, the same for every rank.

    Attributes:
        name: of the run, for the log: "fold 0".
        spec: the configuration, with the run's settings.
        task: what is taught.
        channels: that the network sees.
        heads: its outputs a voxel.
        folder: the run's, with the checkpoints.
        source: draws the whole batch's samples.
        precision, threads, accumulation: as the run was begun, or is begun now.
        validation: names of the cases that the learning curve is drawn on.
        inner: names of the training cases that early stopping judges by.
    """

    name: str
    spec: Configuration
    task: Task
    channels: int
    heads: int
    folder: Path
    source: SampleSource
    precision: Precision
    threads: int
    accumulation: int
    validation: tuple[str, ...] = ()
    inner: tuple[str, ...] = ()

    def kernels(self, device: torch.device) -> AbstractContextManager[None]:
        """Context in which the device takes the kernels that the plan asks for."""
        return cuda_kernels("deterministic" if self.spec.training.deterministic else "fastest", device)


class Learner:
    """A lesson under way on one rank: its state, from the run's checkpoint where there is one, and its step.

    Attributes:
        state: what is learned so far.
        resumed: whether there was a checkpoint beyond the beginning.
        step: in so many micro-batches as the device has room for.
        execution: "compiled", or "eager: REASON".
    """

    def __init__(self, lesson: Lesson, ranks: Ranks, device: torch.device):
        self.lesson, self.ranks, self.device = lesson, ranks, device
        torch.set_num_threads(lesson.threads)
        self.source = replace(lesson.source, share=ranks.part(lesson.spec.batch_size))
        self.state = self._state()
        self.resumed = checkpoint.load(lesson.folder, self.state) and self.state.progress != Progress()
        self._require_same()
        ranks.connect(self.state.model.parameters())  # before the trial step, which must not count on that memory
        self.step, self.execution = self._step()

    def fit(
        self,
        workers: int,
        *,
        save: Callable[[TrainState], None] = lambda state: None,
        record: Callable[[dict[str, Any]], None] = lambda row: None,
        after_iteration: Callable[[], bool],
    ) -> None:
        """Trains to the end.

        Args:
            workers: loader processes.
            save, record: what rank 0 does after an epoch.
            after_iteration: asks to stop; where one rank is asked to, all do, after the same iteration.

        Raises:
            Stopped, TrainingError: see `loop.fit`.
            ResourceError: the device has run out of memory.
        """
        training = self.lesson.spec.training
        made = SegmentationBatches(self.source, self.lesson.validation, workers, self.lesson.inner, pinned=self.device.type == "cuda")
        stopping = training.early_stopping

        def save_alike(state: TrainState) -> None:
            self._require_same()
            save(state)

        schedule = Schedule(
            epochs=training.epochs,
            iterations=training.iterations,
            lr_at=lambda epoch: learning_rate(training.schedule, training.optimiser.lr, epoch, training.epochs),
        )
        with lack_of_memory(self.device), closing(made) as batches:
            fit(
                self.state,
                self.step,
                batches,
                lambda: self.lesson.task.metric(self.ranks),
                schedule,
                early_stop=EarlyStop(batches.inner, functools.partial(inner_score, stopping), stopping.patience) if stopping else None,
                save=save_alike,
                record=record,
                after_iteration=lambda: self.ranks.any(after_iteration()),
            )

    def _require_same(self) -> None:
        self.ranks.require_same(self.state.model.parameters(), f"{self.lesson.name}: the weights")

    def _state(self) -> TrainState:
        spec = self.lesson.spec
        network = build_network(spec.network, self.lesson.channels, self.lesson.heads, spec.dimension, seed=spec.training.seed)
        network = self._move(network)
        optimiser = build_optimiser(spec.training.optimiser, network.parameters())
        decay = spec.training.ema
        scaler = torch.amp.GradScaler(self.device.type) if self.lesson.precision == "fp16" else None
        return TrainState(network, optimiser, scaler, WeightAverage(network, decay) if decay else None)

    def _step(self) -> tuple[Step, str]:
        spec = self.lesson.spec
        loss, couples_samples = self.lesson.task.loss(spec)
        alone = Step(
            loss,
            self.device,
            self.lesson.precision,
            gradient_clip=spec.training.gradient_clip,
            accumulation=self.lesson.accumulation,
            couples_samples=couples_samples,
            prepare=self._move,
        )

        def blank() -> Any:
            return self.source.blank(self.lesson.channels)

        step = fit_into_memory(alone, self.state, spec, self.lesson.channels, self.lesson.heads, blank, self.ranks)
        step, execution = compiled_where_possible(step, self.state, spec.training, blank)
        if self.ranks.world == 1:
            return step, execution
        loss, _ = self.lesson.task.loss(spec, self.ranks)
        return replace(step, loss=loss, ranks=self.ranks, batch_size=spec.batch_size), execution

    def _move(self, thing: Any) -> Any:
        return thing.to(device=self.device, memory_format=channels_last(self.lesson.spec.dimension))


def follow(ranks: Ranks, device: torch.device, workers: int) -> None:
    """What a rank other than 0 does: waits for the lesson, learns it beside the others, and ends.

    Raises:
        Stopped: as on rank 0, which writes the checkpoint.
    """
    lesson: Lesson | None = ranks.from_leader()
    if lesson is not None:
        with lesson.kernels(device), StopRequest() as stop, lost_ranks(stop), loader_deaths(stop):
            Learner(lesson, ranks, device).fit(workers, after_iteration=stop)
    ranks.part_ways()
