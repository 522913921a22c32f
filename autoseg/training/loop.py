"""The training loop. It is given a model, a step, batches and a metric, and knows no task."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import nn

from autoseg.errors import TrainingError
from autoseg.training.interrupt import Stopped
from autoseg.training.state import Progress, TrainState
from autoseg.training.step import Step, to_device

logger = logging.getLogger(__name__)


class Batches(Protocol):
    """Batches that depend on (epoch, iteration) alone, so that a resumed run sees what an uninterrupted one would."""

    def stream(self, epoch: int, iteration: int) -> Iterator[tuple[Any, Any]]:
        """(inputs, targets) from that point to the end of training, on the CPU."""

    def validation(self, epoch: int) -> Iterator[tuple[Any, Any]]:
        """The fixed validation batches of an epoch; they choose nothing."""


class Metric(Protocol):
    """Accumulates over validation batches."""

    def update(self, outputs: Any, targets: Any) -> None: ...

    def result(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Schedule:
    """How long to train and at which learning rate: `lr_at(epoch)` is set once an epoch."""

    epochs: int
    iterations: int
    lr_at: Callable[[int], float]


@dataclass(frozen=True)
class EarlyStop:
    """Which epoch's weights count, and when to stop looking for better ones.

    Attributes:
        batches: the batches that choose, the same at every call.
        score: what `evaluate` found on them -> a number, larger is better.
        patience: training ends after so many epochs without a better one.
    """

    batches: Callable[[], Iterator[tuple[Any, Any]]]
    score: Callable[[dict[str, Any]], float]
    patience: int

    def reached(self, state: TrainState) -> bool:
        """Whether the best epoch is so far back that training ends."""
        return state.chosen is not None and state.progress.epoch - state.chosen.epoch > self.patience


def fit(
    state: TrainState,
    step: Step,
    batches: Batches,
    metric: Callable[[], Metric],
    schedule: Schedule,
    *,
    early_stop: EarlyStop | None = None,
    save: Callable[[TrainState], None],
    record: Callable[[dict[str, Any]], None],
    after_iteration: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.perf_counter,
) -> TrainState:
    """The state after `schedule.epochs` epochs, or at an early stop, from wherever `state.progress` stands.

    Args:
        state: changed in place and returned; `state.result` is what training came to.
        step: what one batch does to the state.
        batches, metric: see the protocols; `metric` makes a fresh one each epoch.
        early_stop: chooses the epoch whose weights count; None takes the last.
        save: writes a checkpoint; called after every epoch, and before stopping.
        record: gets one dictionary an epoch (epoch, lr, loss, metrics, seconds, share of time waiting for data).
        after_iteration: called after every iteration; true asks to stop.

    Raises:
        Stopped: `after_iteration` said so; the checkpoint is written.
        TrainingError: the loss is not finite.
    """
    stream = batches.stream(state.progress.epoch, state.progress.iteration)
    while state.progress.epoch < schedule.epochs and not (early_stop and early_stop.reached(state)):
        epoch, first = state.progress.epoch, state.progress.iteration
        lr = schedule.lr_at(epoch)
        for group in state.optimiser.param_groups:
            group["lr"] = lr
        state.model.train()
        started, waited, losses = clock(), 0.0, torch.zeros((), dtype=torch.float64, device=step.device)
        for _ in range(first, schedule.iterations):
            before = clock()
            inputs, targets = next(stream)
            waited += clock() - before
            losses += step(state, inputs, targets)
            if state.average:
                state.average.update(state.model, epoch * schedule.iterations + state.progress.iteration)
            state.progress = replace(state.progress, iteration=state.progress.iteration + 1)
            if after_iteration():
                state.progress = replace(state.progress, loss_sum=state.progress.loss_sum + losses.item())
                _require_finite(state.progress.loss_sum, epoch)
                save(state)
                raise Stopped(f"stopped in epoch {epoch} after iteration {state.progress.iteration}; the checkpoint is written")
        mean_loss = (state.progress.loss_sum + losses.item()) / schedule.iterations
        _require_finite(mean_loss, epoch)
        seconds = clock() - started
        row = {"epoch": epoch, "lr": lr, "loss": mean_loss, "iterations": schedule.iterations - first}
        row |= evaluate(state.judged, step, batches.validation(epoch), metric())
        if early_stop:
            row |= {"inner": _choose(state, early_stop, evaluate(state.judged, step, early_stop.batches(), metric()))}
        row |= {"seconds": round(seconds, 3), "validation_seconds": round(clock() - started - seconds, 3)}
        row |= {"data_wait": round(waited / seconds, 4) if seconds > 0 else 0.0}
        state.progress = Progress(epoch=epoch + 1)
        record(row)  # before saving: a kill in between leaves a row too many, which resuming cuts, and never one too few
        save(state)
    return state


def _choose(state: TrainState, early_stop: EarlyStop, found: dict[str, Any]) -> dict[str, Any]:
    score = early_stop.score(found)
    if math.isfinite(score) and (state.chosen is None or score > state.chosen.score):
        state.choose(score)
    return {**found, "score": score, "best_epoch": state.chosen.epoch if state.chosen else None}


def _require_finite(loss: float, epoch: int) -> None:
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss became {loss} in epoch {epoch}. The last good checkpoint is kept. "
            "Lower the learning rate, for example --set training.optimiser.lr=0.001, and start over with --restart"
        )


def evaluate(model: nn.Module, step: Step, batches: Iterator[tuple[Any, Any]], metric: Metric) -> dict[str, Any]:
    """Mean validation loss and the metric's result, without gradients; an empty dictionary where there are no batches."""
    total, count = 0.0, 0
    with torch.no_grad():
        for inputs, targets in batches:
            targets = to_device(targets, step.device)
            outputs = step.outputs(model, inputs)
            total += step.value(outputs, targets).item()
            metric.update(outputs, targets)
            count += 1
    return {"validation_loss": total / count, **metric.result()} if count else {}
