"""Pairs as matrices: the same counts as `autoseg.evaluation.ranking`, but weighted, so that a bootstrap is a matrix product."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from autoseg.evaluation.ranking import comparable_pairs, group_rows, ordered_pairs


@dataclass(frozen=True, eq=False)
class PairBlock:
    """The pairs among some rows: `comparable[i, j]` is the weight of the pair, `concordant[i, j]` what the score earns of it."""

    rows: np.ndarray
    comparable: np.ndarray
    concordant: np.ndarray


Blocks = tuple[PairBlock, ...]


def survival_pairs(
    time: np.ndarray, event: np.ndarray, risk: np.ndarray, groups: Sequence[Hashable], weight: np.ndarray | None = None
) -> Blocks:
    """Harrell's pairs inside each group; with `weight`, by the row that has the event, Uno's.

    Args:
        time, event, risk: shape (n,); a row whose risk is nan is in no pair.
        groups: n labels; None for a row that is in no pair.
        weight: 1 / G(t)^2 by row, 0 for a row that is no longer counted; see `metrics.uno_weights`.
    """
    blocks = []
    for rows in _known(groups, risk):
        comparable = comparable_pairs(time[rows], event[rows]).astype(float)
        if weight is not None:
            comparable *= weight[rows, None]
        blocks.append(PairBlock(rows, comparable, comparable * ordered_pairs(risk[rows])))
    return tuple(blocks)


def label_pairs(positive: np.ndarray, score: np.ndarray, groups: Sequence[Hashable]) -> Blocks:
    """A positive and a negative inside each group; arguments as for `survival_pairs`."""
    blocks = []
    for rows in _known(groups, score):
        label = positive[rows]
        comparable = (label[:, None] & ~label[None, :]).astype(float)
        blocks.append(PairBlock(rows, comparable, comparable * ordered_pairs(score[rows], tied=0.0)))
    return tuple(blocks)


def index(blocks: Blocks, weights: np.ndarray) -> np.ndarray:
    """The share of concordant pairs under each weighting of the patients, shape (B,); nan where none is comparable.

    Args:
        weights: how often each patient counts, shape (B, n). Ones give the plain index.
    """
    concordant, comparable = np.zeros(len(weights)), np.zeros(len(weights))
    for block in blocks:
        own = weights[:, block.rows]
        concordant += np.einsum("bi,bi->b", own @ block.concordant, own)
        comparable += np.einsum("bi,bi->b", own @ block.comparable, own)
    with np.errstate(invalid="ignore"):
        return np.where(comparable > 0, concordant / np.where(comparable > 0, comparable, 1.0), np.nan)


def count(blocks: Blocks) -> int:
    """How many pairs are comparable."""
    return sum(int((block.comparable > 0).sum()) for block in blocks)


def _known(groups: Sequence[Hashable], score: np.ndarray) -> list[np.ndarray]:
    known = np.array([group is not None for group in groups], dtype=bool) & np.isfinite(score)
    rows = np.flatnonzero(known)
    return [rows[members] for members in group_rows([groups[row] for row in rows], len(rows))]
