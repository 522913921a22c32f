"""The training loop. It is given a model, a loss, batches and a metric, and knows no task."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from autoseg.errors import TrainingError
from autoseg.networks.precision import Precision, autocast

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
class Progress:
    """Where training stands: `iteration` batches of `epoch` are done, their losses summed in `loss_sum`."""

    epoch: int = 0
    iteration: int = 0
    loss_sum: float = 0.0


@dataclass
class TrainState:
    """All that a checkpoint must hold: what is learned, the optimiser's memory, the loss scale and the progress."""

    model: nn.Module
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler | None = None
    progress: Progress = field(default_factory=Progress)


@dataclass(frozen=True)
class Schedule:
    """How long to train and at which learning rate: `lr_at(epoch)` is set once an epoch."""

    epochs: int
    iterations: int
    lr_at: Callable[[int], float]
    gradient_clip: float


class Stopped(Exception):
    """Training was asked to stop; a checkpoint of the very iteration is on disk."""


def fit(
    state: TrainState,
    loss: Callable[[Any, Any], Tensor],
    batches: Batches,
    metric: Callable[[], Metric],
    schedule: Schedule,
    *,
    device: torch.device,
    precision: Precision = "fp32",
    prepare: Callable[[Any], Any] = lambda inputs: inputs,
    save: Callable[[TrainState], None],
    record: Callable[[dict[str, Any]], None],
    after_iteration: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.perf_counter,
) -> TrainState:
    """The state after `schedule.epochs` epochs, from wherever `state.progress` stands.

    Args:
        state: changed in place and returned.
        loss: (outputs, targets) -> scalar; called in float32.
        batches, metric: see the protocols; `metric` makes a fresh one each epoch.
        precision: "fp32", or "bf16" / "fp16" for autocast (fp16 needs `state.scaler`).
        prepare: moves inputs to device and memory format.
        save: writes a checkpoint; called after every epoch, and before stopping.
        record: gets one dictionary an epoch (epoch, lr, loss, metrics, seconds, share of time waiting for data).
        after_iteration: called after every iteration; true asks to stop.

    Raises:
        Stopped: `after_iteration` said so; the checkpoint is written.
        TrainingError: the loss is not finite.
    """
    model = state.model
    stream = batches.stream(state.progress.epoch, state.progress.iteration)
    while state.progress.epoch < schedule.epochs:
        epoch = state.progress.epoch
        lr = schedule.lr_at(epoch)
        for group in state.optimiser.param_groups:
            group["lr"] = lr
        model.train()
        started, waited, losses = clock(), 0.0, torch.zeros((), dtype=torch.float64, device=device)
        first = state.progress.iteration
        for _ in range(first, schedule.iterations):
            before = clock()
            inputs, targets = next(stream)
            waited += clock() - before
            value = _step(state, loss, prepare(inputs), _to(targets, device), precision, schedule.gradient_clip, device)
            losses += value
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
        row |= evaluate(model, loss, batches.validation(epoch), metric(), device=device, precision=precision, prepare=prepare)
        row |= {"seconds": round(seconds, 3), "validation_seconds": round(clock() - started - seconds, 3)}
        row |= {"data_wait": round(waited / seconds, 4) if seconds > 0 else 0.0}
        state.progress = Progress(epoch=epoch + 1)
        record(row)  # before saving: a kill in between leaves a row too many, which resuming cuts, and never one too few
        save(state)
    return state


def _require_finite(loss: float, epoch: int) -> None:
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss became {loss} in epoch {epoch}. The last good checkpoint is kept. "
            "Lower the learning rate, for example --set training.optimiser.lr=0.001, and start over with --restart"
        )


def evaluate(
    model: nn.Module,
    loss: Callable[[Any, Any], Tensor],
    batches: Iterator[tuple[Any, Any]],
    metric: Metric,
    *,
    device: torch.device,
    precision: Precision,
    prepare: Callable[[Any], Any],
) -> dict[str, Any]:
    """Mean validation loss and the metric's result, without gradients; an empty dictionary where there are no batches."""
    total, count = 0.0, 0
    with torch.no_grad():
        for inputs, targets in batches:
            targets = _to(targets, device)
            with autocast(device, precision):
                outputs = model(prepare(inputs))
            total += loss(outputs, targets).item()
            metric.update(outputs, targets)
            count += 1
    return {"validation_loss": total / count, **metric.result()} if count else {}


def _step(state: TrainState, loss: Any, inputs: Any, targets: Any, precision: Precision, clip: float, device: torch.device) -> Tensor:
    state.optimiser.zero_grad(set_to_none=True)
    with autocast(device, precision):
        outputs = state.model(inputs)
    value = loss(outputs, targets)
    parameters = [p for group in state.optimiser.param_groups for p in group["params"]]
    if state.scaler is None:
        value.backward()
        nn.utils.clip_grad_norm_(parameters, clip)
        state.optimiser.step()
    else:
        state.scaler.scale(value).backward()
        state.scaler.unscale_(state.optimiser)
        nn.utils.clip_grad_norm_(parameters, clip)
        state.scaler.step(state.optimiser)
        state.scaler.update()
    return value.detach().double()


def _to(targets: Any, device: torch.device) -> Any:
    if isinstance(targets, Tensor):
        return targets.to(device, non_blocking=True)
    return type(targets)(_to(t, device) for t in targets)
