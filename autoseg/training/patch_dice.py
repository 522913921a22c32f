"""The learning curve's metric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class PatchDice:
    """Dice of each foreground label over all voxels of the validation patches of an epoch (the learning curve; it chooses nothing).

    Args:
        labels: name -> value of each.
    """

    def __init__(self, labels: Mapping[str, int]):
        self.labels = dict(labels)
        self._counts: list[Tensor] = []

    def update(self, outputs: Any, targets: Any) -> None:
        targets = targets if isinstance(targets, Tensor) else targets[0]  # labels, and what a loss needs besides
        logits = outputs[0] if isinstance(outputs, list | tuple) else outputs
        predicted = logits.argmax(1)
        rows = []
        for label in self.labels.values():
            p, t = predicted == label, targets == label
            rows.append(torch.stack([(p & t).sum(), p.sum(), t.sum()]))
        self._counts.append(torch.stack(rows))

    def result(self) -> dict[str, Any]:
        """`dice` {label's name: value or None where the label never occurred}."""
        if not self._counts:
            return {}
        totals = torch.stack(self._counts).sum(0).tolist()
        return {"dice": {name: 2 * both / (p + t) if p + t else None for name, (both, p, t) in zip(self.labels, totals, strict=True)}}
