"""Which patients a prognosis model is fitted on and which it is tested on: whole centres, or at random within strata."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

OUTER, INNER = 5, 5
"""How many folds of patients; folds of whole centres are as many as there are centres, inside at most INNER."""

CENTRES_FOR_INNER = 3
"""From how many centres on the inner loop holds out whole centres: with two it would learn from half the patients at one hospital."""


@dataclass(frozen=True)
class Fold:
    """Row numbers, ascending, of the patients to fit on and to test on; `name` is the held-out centre or a number."""

    name: str
    train: np.ndarray
    test: np.ndarray


def centre_folds(centre: Sequence[str]) -> tuple[Fold, ...]:
    """One fold a centre, held out whole; () where fewer than two centres are known.

    A patient without a centre is in no fold: its hospital may be the one that is held out.
    """
    centres = np.asarray(centre, dtype=object)
    names = sorted(set(centres) - {""})
    if len(names) < 2:
        return ()
    return tuple(Fold(name, np.flatnonzero((centres != name) & (centres != "")), np.flatnonzero(centres == name)) for name in names)


def stratified_folds(strata: Sequence[Hashable], count: int, seed: int | Sequence[int]) -> tuple[Fold, ...]:
    """`count` folds, or as many as there are patients, that share out each stratum evenly.

    Args:
        strata: one label a patient, for example (centre, event).
        seed: of the shuffle within strata.
    """
    n = len(strata)
    random = np.random.default_rng(seed)
    members: dict[Hashable, list[int]] = {}
    for row in random.permutation(n):
        members.setdefault(strata[row], []).append(int(row))
    order = [row for stratum in sorted(members, key=repr) for row in members[stratum]]
    count = min(count, n)
    number = np.empty(n, dtype=int)
    number[order] = np.arange(n) % count  # dealt on from stratum to stratum, so that the folds' sizes differ by one at most
    return tuple(Fold(str(k), np.flatnonzero(number != k), np.flatnonzero(number == k)) for k in range(count))


def outer_folds(rung: str, centre: Sequence[str], outcome: Sequence[bool], seed: int) -> tuple[Fold, ...]:
    """The outer folds of a rung ("centre" or "random").

    Args:
        centre: by patient, "" where unknown.
        outcome: event or label by patient; strata of the random rung are (centre, outcome).
    """
    if rung == "centre":
        return centre_folds(centre)
    return stratified_folds(list(zip(centre, map(bool, outcome), strict=True)), OUTER, seed)


def inner_folds(rung: str, centre: Sequence[str], outcome: Sequence[bool], seed: Sequence[int]) -> tuple[Fold, ...]:
    """The folds inside a training part: like the outer ones, but random where the part has fewer than three centres."""
    names = sorted(set(centre) - {""})
    if rung == "centre" and len(names) >= CENTRES_FOR_INNER:
        return _grouped(centre_folds(centre))
    return stratified_folds(list(zip(centre, map(bool, outcome), strict=True)), INNER, seed)


def _grouped(folds: tuple[Fold, ...]) -> tuple[Fold, ...]:
    """At most INNER folds: the largest centres first, each to the fold that is smallest so far."""
    if len(folds) <= INNER:
        return folds
    groups: list[list[Fold]] = [[] for _ in range(INNER)]
    for fold in sorted(folds, key=lambda fold: (-len(fold.test), fold.name)):
        min(groups, key=lambda group: sum(len(member.test) for member in group)).append(fold)
    every = np.sort(np.concatenate([fold.test for fold in folds]))
    merged = []
    for group in groups:
        test = np.sort(np.concatenate([fold.test for fold in group]))
        merged.append(Fold("+".join(sorted(fold.name for fold in group)), np.setdiff1d(every, test), test))
    return tuple(merged)
