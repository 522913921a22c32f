"""How sure a prediction is of its own outlines, found tile by tile while it is made; the prediction itself does not change.

Two figures an output, both on the scale of the Dice coefficient:
- *agreement*: the Dice of several raters' masks, pooled over their pairs. Raters are the folds, each on the unflipped tile; of a single
  fold, its flips.
- *confidence*: the Dice that the mask would have by its own probabilities, 2 sum(p in the mask) / (size of the mask + sum p).

Voxels of overlapping tiles count by the weights of the sliding window, which add up to 1 at each voxel. Nothing of the image's size is
held.
"""

from __future__ import annotations

import torch
from torch import Tensor

LEAST_PROBABILITY = 0.05
"""Smaller probabilities do not count: those of millions of clear voxels would add up to a tumour."""


class Agreement:
    """Sums over the tiles of an image; `agreement` and `confidence` when all are through.

    Args:
        regions: outputs are regions, which may overlap; else exactly one output wins a voxel, and the first is the background.
    """

    def __init__(self, regions: bool = False):
        self.regions = regions
        self._raters = 0
        self._votes: Tensor | None = None
        self._sums: Tensor | None = None

    def vote(self, logits: Tensor) -> None:
        """One rater's logits of the present tile, (outputs, *patch)."""
        marked = self._marked(logits)
        self._votes = marked.to(torch.uint8) if self._votes is None else self._votes.add_(marked)
        self._raters += 1

    def add(self, logits: Tensor, weight: Tensor, place: tuple[slice, ...]) -> None:
        """Ends a tile.

        Args:
            logits: the mean that the mask is made of, (outputs, z, y, x).
            weight: of each voxel of the tile's part inside the image.
            place: that part, as an index of the last three axes.
        """
        inside = logits[(..., *place)]
        marked = self._marked(inside)
        likely = inside.sigmoid() if self.regions else inside.softmax(0)[1:]
        votes = None if self._votes is None else self._votes.view(*marked.shape[:1], *logits.shape[1:])[(..., *place)]
        # Output by output: with many of them, these products for all at once would take several times the memory of the logits.
        columns = [self._parts(marked[o], likely[o], None if votes is None else votes[o], weight) for o in range(len(marked))]
        sums = torch.stack(columns, 1).double()
        self._sums = sums if self._sums is None else self._sums + sums
        self._votes, self._raters = None, 0

    def _parts(self, marked: Tensor, likely: Tensor, votes: Tensor | None, weight: Tensor) -> Tensor:
        """Twice the pairs of raters that both mark a voxel, (raters - 1) x those that do, and the same for confidence: a tile's sums."""
        held, probable = marked.float(), likely * (likely >= LEAST_PROBABILITY)
        counted = torch.zeros_like(held) if votes is None else votes.float()
        parts = (counted * (counted - 1), counted * (self._raters - 1), held * probable, (held + probable) / 2)
        return torch.stack([(part * weight).sum() for part in parts])

    @property
    def agreement(self) -> float | None:
        """Mean over what was found; None with one rater, or where no rater found anything."""
        return self._ratio(0, 1)

    @property
    def confidence(self) -> float | None:
        """Mean over what was found; None where nothing was."""
        return self._ratio(2, 3)

    def _ratio(self, above: int, below: int) -> float | None:
        if self._sums is None:
            return None
        found = self._sums[:, self._sums[below] > 0]
        return float((found[above] / found[below]).mean()) if found.shape[1] else None

    def _marked(self, logits: Tensor) -> Tensor:
        """What a rater would segment: bool, an entry a foreground output."""
        if self.regions:
            return logits > 0
        winner = logits.argmax(0)
        return torch.stack([winner == output for output in range(1, len(logits))])
