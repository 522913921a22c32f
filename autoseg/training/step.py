"""One step of training: the gradient of a batch's loss, whole or by micro-batches, clipped, then the optimiser."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autoseg.networks.precision import Precision, autocast
from autoseg.training.state import TrainState


@dataclass(frozen=True)
class Step:
    """How a batch becomes a step.

    Attributes:
        loss: (outputs, targets) -> scalar, in float32.
        device, precision: where and in what the network computes; "bf16" and "fp16" are autocast (fp16 needs the state's scaler).
        gradient_clip: largest norm of the gradient.
        accumulation: micro-batches that a batch is computed in, one after the other; at most the number of samples.
        couples_samples: whether a batch's loss is something else than the mean of its samples' losses (a Dice over the batch is). Then the
            micro-batches' outputs are computed twice: first all of them without a graph, for the loss and its gradient with respect to the
            outputs; then each with its graph, to carry its share of that gradient to the weights. The gradient is the whole batch's either
            way, but for rounding, as long as the network treats samples apart (instance norm does) and draws no random numbers.
        prepare: moves inputs to device and memory format.
    """

    loss: Callable[[Any, Any], Tensor]
    device: torch.device
    precision: Precision = "fp32"
    gradient_clip: float = 12.0
    accumulation: int = 1
    couples_samples: bool = True
    prepare: Callable[[Any], Any] = lambda inputs: inputs

    def __call__(self, state: TrainState, inputs: Any, targets: Any) -> Tensor:
        """Changes the state by one optimiser step; the batch's loss, float64 and without a graph."""
        value = self.gradient(state, inputs, targets)
        self._update(state)
        return value.detach().double()

    def gradient(self, state: TrainState, inputs: Any, targets: Any) -> Tensor:
        """The batch's loss; its gradient (times the loss scale, in fp16) is left at the parameters, and nothing else changes."""
        state.optimiser.zero_grad(set_to_none=True)
        if self.accumulation == 1:
            return self._whole(state, inputs, targets)
        if self.couples_samples:
            return self._in_two_passes(state, inputs, targets)
        return self._sample_by_sample(state, inputs, targets)

    @torch.no_grad()
    def outputs(self, model: nn.Module, inputs: Any) -> Any:
        """What a network makes of a batch, without a graph: by micro-batches too, so that judging needs no more room than learning."""
        found = [self._forward(model, part) for part in self._parts(inputs)]
        if len(found) == 1:
            return found[0]
        whole = [torch.cat(level) for level in zip(*map(_levels, found), strict=True)]
        return whole[0] if isinstance(found[0], Tensor) else whole

    def _whole(self, state: TrainState, inputs: Any, targets: Any) -> Tensor:
        value = self.loss(self._forward(state.model, inputs), to_device(targets, self.device))
        _scaled(state, value).backward()
        return value

    def _sample_by_sample(self, state: TrainState, inputs: Any, targets: Any) -> Tensor:
        total = torch.zeros((), device=self.device)
        for part, goal in zip(self._parts(inputs), self._parts(targets), strict=True):
            value = self._share(part, inputs) * self.loss(self._forward(state.model, part), to_device(goal, self.device))
            _scaled(state, value).backward()
            total += value.detach()
        return total

    def _in_two_passes(self, state: TrainState, inputs: Any, targets: Any) -> Tensor:
        with torch.no_grad():
            found = [_levels(self._forward(state.model, part)) for part in self._parts(inputs)]
        whole = [torch.cat(level).requires_grad_() for level in zip(*found, strict=True)]
        value = self.loss(whole[0] if len(whole) == 1 else whole, to_device(targets, self.device))
        _scaled(state, value).backward()
        pulls = zip(*(self._parts(level.grad) if level.grad is not None else [None] * self.accumulation for level in whole), strict=True)
        for part, pull in zip(self._parts(inputs), pulls, strict=True):
            used = [(level, g) for level, g in zip(_levels(self._forward(state.model, part)), pull, strict=True) if g is not None]
            torch.autograd.backward([level for level, _ in used], [g for _, g in used])
        return value

    def _forward(self, model: nn.Module, inputs: Any) -> Any:
        inputs = self.prepare(inputs)
        with autocast(self.device, self.precision):
            return model(inputs)

    def _update(self, state: TrainState) -> None:
        parameters = [p for group in state.optimiser.param_groups for p in group["params"]]
        if state.scaler is None:
            nn.utils.clip_grad_norm_(parameters, self.gradient_clip)
            state.optimiser.step()
        else:
            state.scaler.unscale_(state.optimiser)
            nn.utils.clip_grad_norm_(parameters, self.gradient_clip)
            state.scaler.step(state.optimiser)
            state.scaler.update()

    def _parts(self, things: Any) -> Iterator[Any]:
        """A batch's micro-batches: as even as can be, the first ones larger."""
        if isinstance(things, Tensor):
            return iter(things.tensor_split(self.accumulation))
        return (type(things)(part) for part in zip(*(self._parts(thing) for thing in things), strict=True))

    @staticmethod
    def _share(part: Tensor, whole: Tensor) -> float:
        return part.shape[0] / whole.shape[0]


def to_device(targets: Any, device: torch.device) -> Any:
    """Targets, a tensor or a list or tuple of them, on the device."""
    if isinstance(targets, Tensor):
        return targets.to(device, non_blocking=True)
    return type(targets)(to_device(t, device) for t in targets)


def _levels(outputs: Tensor | Sequence[Tensor]) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def _scaled(state: TrainState, value: Tensor) -> Tensor:
    return value if state.scaler is None else state.scaler.scale(value)
