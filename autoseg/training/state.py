"""What training changes: the weights, what the optimiser remembers, an average of the weights, the chosen ones, and how far it is."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Progress:
    """Where training stands: `iteration` batches of `epoch` are done, their losses summed in `loss_sum`."""

    epoch: int = 0
    iteration: int = 0
    loss_sum: float = 0.0


@dataclass(frozen=True)
class Chosen:
    """The weights of the epoch that scored best so far under early stopping; tensors on the CPU that nothing else changes."""

    epoch: int
    score: float
    weights: dict[str, Tensor]


class WeightAverage:
    """An exponential moving average of a network's weights, in a copy of it.

    Args:
        model: the network that is trained; the average begins as its weights.
        decay: share of the average that an update keeps, in (0, 1). Update n (from 0) keeps at most (1 + n) / (10 + n), so that the first
            updates forget the random beginning.

    Source: Polyak and Juditsky, SIAM J. Control Optim. 1992; Tarvainen and Valpola, "Mean teachers", NeurIPS 2017.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.model = copy.deepcopy(model).requires_grad_(requires_grad=False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, updates: int) -> None:
        """Takes the weights in: average = decay x average + (1 - decay) x weights; buffers are copied.

        Args:
            updates: how many went before.
        """
        decay = min(self.decay, (1 + updates) / (10 + updates))
        for average, now in zip(self.model.parameters(), model.parameters(), strict=True):
            average.lerp_(now, 1 - decay)
        for average, now in zip(self.model.buffers(), model.buffers(), strict=True):
            average.copy_(now)


@dataclass
class TrainState:
    """All that a checkpoint must hold: what is learned, the optimiser's memory, the loss scale, average and choice, and the progress."""

    model: nn.Module
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler | None = None
    average: WeightAverage | None = None
    chosen: Chosen | None = None
    progress: Progress = field(default_factory=Progress)

    @property
    def judged(self) -> nn.Module:
        """The network that validation judges and that is written: the average where there is one."""
        return self.average.model if self.average else self.model

    @property
    def result(self) -> dict[str, Tensor]:
        """The weights that training came to: the chosen ones where there was a choice, else the last."""
        return self.chosen.weights if self.chosen else self.judged.state_dict()

    def choose(self, score: float) -> None:
        """Keeps a copy of the judged weights as those of the present epoch."""
        weights = {name: tensor.detach().cpu().clone() for name, tensor in self.judged.state_dict().items()}
        self.chosen = Chosen(self.progress.epoch, score, weights)
