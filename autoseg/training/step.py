"""One step of training: the gradient of a batch's loss, whole or by micro-batches, clipped, then the optimiser."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autoseg.networks.precision import Precision, autocast
from autoseg.training.distributed import ALONE, Ranks
from autoseg.training.state import TrainState


def call_network(model: nn.Module, inputs: Any) -> Any:
    """The network's outputs."""
    return model(inputs)


@dataclass(frozen=True)
class Step:
    """How a batch becomes a step.

    Attributes:
        loss: (outputs, targets) -> scalar, in float32.
        device, precision: where and in what the network computes; "bf16" and "fp16" are autocast (fp16 needs the state's scaler).
        gradient_clip: largest norm of the gradient.
        accumulation: micro-batches that a batch (a rank's part of it) is computed in, one after the other; at most its samples.
        ranks: the processes that share each batch, of which each is given its own samples. A loss that couples samples must know them too.
        batch_size: samples of a batch on all ranks together; None: what is given is the whole batch.
        couples_samples: whether a batch's loss is something else than the mean of its samples' losses (a Dice over the batch is). Then the
            micro-batches' outputs are computed twice: first all of them without a graph, for the loss and its gradient with respect to the
            outputs; then each with its graph, to carry its share of that gradient to the weights. The gradient is the whole batch's either
            way, but for rounding, as long as the network treats samples apart (instance norm does) and draws no random numbers.
        prepare: moves inputs to device and memory format.
        call: what computes (network, inputs); compiled, where that is possible.
    """

    loss: Callable[[Any, Any], Tensor]
    device: torch.device
    precision: Precision = "fp32"
    gradient_clip: float = 12.0
    accumulation: int = 1
    ranks: Ranks = ALONE
    batch_size: int | None = None
    couples_samples: bool = True
    prepare: Callable[[Any], Any] = lambda inputs: inputs
    call: Callable[[nn.Module, Any], Any] = call_network

    def __call__(self, state: TrainState, inputs: Any, targets: Any) -> Tensor:
        """Changes the state by one optimiser step; the batch's loss, float64 and without a graph."""
        value = self.gradient(state, inputs, targets)
        self._update(state)
        return value.detach().double()

    def gradient(self, state: TrainState, inputs: Any, targets: Any) -> Tensor:
        """The batch's loss; its gradient (times the loss scale, in fp16) is left at the parameters, and nothing else changes."""
        state.optimiser.zero_grad(set_to_none=True)
        if not self.couples_samples:
            value = self.ranks.summed(self._sample_by_sample(state, inputs, targets))
        elif self._cuts(inputs) == 1:
            value = self._whole(state, inputs, targets)
        else:
            value = self._in_two_passes(state, inputs, targets)
        self.ranks.sum_gradients(state.model.parameters())
        return value

    def value(self, outputs: Any, targets: Any) -> Tensor:
        """The loss of the whole batch, of which these are this rank's outputs and targets."""
        if self.couples_samples or self.batch_size is None:
            return self.loss(outputs, targets)
        return self.ranks.summed(_levels(outputs)[0].shape[0] / self.batch_size * self.loss(outputs, targets))

    @torch.no_grad()
    def outputs(self, model: nn.Module, inputs: Any) -> Any:
        """What a network makes of a batch, without a graph: by micro-batches too, so that judging needs no more room than learning."""
        found = [self._forward(model, part) for part in _parts(inputs, self._cuts(inputs))]
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
        cuts, samples = self._cuts(inputs), self.batch_size or inputs.shape[0]
        for part, goal in zip(_parts(inputs, cuts), _parts(targets, cuts), strict=True):
            value = part.shape[0] / samples * self.loss(self._forward(state.model, part), to_device(goal, self.device))
            _scaled(state, value).backward()
            total += value.detach()
        return total

    def _in_two_passes(self, state: TrainState, inputs: Any, targets: Any) -> Tensor:
        cuts = self._cuts(inputs)
        with torch.no_grad():
            found = [_levels(self._forward(state.model, part)) for part in _parts(inputs, cuts)]
        whole = [torch.cat(level).requires_grad_() for level in zip(*found, strict=True)]
        value = self.loss(whole[0] if len(whole) == 1 else whole, to_device(targets, self.device))
        _scaled(state, value).backward()
        pulls = zip(*(_parts(level.grad, cuts) if level.grad is not None else [None] * cuts for level in whole), strict=True)
        for part, pull in zip(_parts(inputs, cuts), pulls, strict=True):
            used = [(level, g) for level, g in zip(_levels(self._forward(state.model, part)), pull, strict=True) if g is not None]
            torch.autograd.backward([level for level, _ in used], [g for _, g in used])
        return value

    def _forward(self, model: nn.Module, inputs: Any) -> Any:
        inputs = self.prepare(inputs)
        with autocast(self.device, self.precision):
            return self.call(model, inputs)

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

    def _cuts(self, inputs: Tensor) -> int:
        return min(self.accumulation, inputs.shape[0])


def to_device(targets: Any, device: torch.device) -> Any:
    """Targets, a tensor or a list or tuple of them, on the device."""
    if isinstance(targets, Tensor):
        return targets.to(device, non_blocking=True)
    return type(targets)(to_device(t, device) for t in targets)


def _parts(things: Any, cuts: int) -> Iterator[Any]:
    """A batch's micro-batches: as even as can be, the first ones larger."""
    if isinstance(things, Tensor):
        return iter(things.tensor_split(cuts))
    return (type(things)(part) for part in zip(*(_parts(thing, cuts) for thing in things), strict=True))


def _levels(outputs: Tensor | Sequence[Tensor]) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def _scaled(state: TrainState, value: Tensor) -> Tensor:
    return value if state.scaler is None else state.scaler.scale(value)
