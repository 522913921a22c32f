"""The learning curve's metric."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class PatchDice:
    """Dice of each foreground label over all voxels of the validation patches of an epoch (the learning curve; it chooses nothing)."""

    def __init__(self, labels: tuple[int, ...]):
        self.labels = labels
        self._counts: list[Tensor] = []

    def update(self, outputs: Any, targets: Tensor) -> None:
        logits = outputs[0] if isinstance(outputs, list | tuple) else outputs
        predicted = logits.argmax(1)
        rows = []
        for label in self.labels:
            p, t = predicted == label, targets == label
            rows.append(torch.stack([(p & t).sum(), p.sum(), t.sum()]))
        self._counts.append(torch.stack(rows))

    def result(self) -> dict[str, Any]:
        """`dice` {label: value or None where the label never occurred}."""
        if not self._counts:
            return {}
        totals = torch.stack(self._counts).sum(0).tolist()
        return {
            "dice": {str(label): 2 * both / (p + t) if p + t else None for label, (both, p, t) in zip(self.labels, totals, strict=True)}
        }
