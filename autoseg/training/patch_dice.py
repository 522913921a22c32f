"""The learning curve's metric."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from autoseg.training.distributed import ALONE, Ranks
from planners.labels import LabelScheme


class PatchDice:
    """Dice of each class over all voxels of the validation patches of an epoch (the learning curve; it chooses nothing).

    A voxel belongs to a label where its logit is the largest, to a region where its own logit is positive. Voxels of the ignore label
    count for nothing.

    Args:
        scheme: the classes.
        ranks: the processes that share each batch; all get the same result.
    """

    def __init__(self, scheme: LabelScheme, ranks: Ranks = ALONE):
        self.scheme = scheme
        self.ranks = ranks
        self._counts: list[Tensor] = []

    def update(self, outputs: Any, targets: Any) -> None:
        """Counts a batch: logits (n, heads, *spatial), or a list with them first; mask values (n, *spatial), or a tuple with them first."""
        targets = targets if isinstance(targets, Tensor) else targets[0]  # labels, and what a loss needs besides
        logits = outputs[0] if isinstance(outputs, list | tuple) else outputs
        counted = None if self.scheme.ignore is None else targets != self.scheme.ignore
        winner = None if self.scheme.has_regions else logits.argmax(1)
        rows = []
        for head, values in enumerate(self.scheme.foreground.values()):
            p = logits[:, head] > 0 if winner is None else winner == head + 1
            t = torch.isin(targets, targets.new_tensor(values)) if len(values) > 1 else targets == values[0]
            if counted is not None:
                p, t = p & counted, t & counted
            rows.append(torch.stack([(p & t).sum(), p.sum(), t.sum()]))
        self._counts.append(torch.stack(rows))

    def result(self) -> dict[str, Any]:
        """`dice` {class: value or None where it never occurred}."""
        if not self._counts:
            return {}
        totals = self.ranks.summed(torch.stack(self._counts).sum(0)).tolist()
        names = self.scheme.foreground
        return {"dice": {name: 2 * both / (p + t) if p + t else None for name, (both, p, t) in zip(names, totals, strict=True)}}
