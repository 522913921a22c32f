"""Which labels come in left and right pairs, so that a flipped image would carry wrong labels."""

from __future__ import annotations

import re
from collections.abc import Iterable

SIDES = (("left", "right"), ("l", "r"), ("lt", "rt"), ("lh", "rh"), ("sin", "dex"), ("sinister", "dexter"), ("links", "rechts"))

_TOKENS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")


def left_right_pairs(names: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Pairs of label names that differ only in naming a side: ("kidney_left", "kidney_right"), ("LeftFemur", "RightFemur")."""
    names = list(names)
    keys: dict[tuple[str, ...], str] = {}
    for name in names:
        for tokens in _readings(name):
            keys.setdefault(tokens, name)
    pairs = []
    for name in names:
        for tokens in _readings(name):
            partner = next((keys[swapped] for swapped in _to_right(tokens) if swapped in keys), None)
            if partner is not None and partner != name:
                pairs.append((name, partner))
                break
    return tuple(pairs)


def left_right_axes(orientations: Iterable[str]) -> tuple[int, ...]:
    """The array axes (z, y, x) that run between left and right in any of some images.

    Args:
        orientations: of each image as it is laid out in memory, three letters for x, y and z such as "LPS" (`images.orientation_code`).

    >>> left_right_axes(["LPS", "LPS", "PSL"])
    (0, 2)
    """
    return tuple(sorted({2 - next(place for place, letter in enumerate(code) if letter in "LR") for code in set(orientations)}))


def _readings(name: str) -> list[tuple[str, ...]]:
    """The name in lower-case words; also with "left" and "right" cut out of a run of letters ("leftkidney")."""
    tokens = tuple(token.lower() for token in _TOKENS.findall(name))
    cut = tuple(part for token in tokens for part in re.split(r"(left|right)", token) if part)
    return [tokens] if cut == tokens else [tokens, cut]


def _to_right(tokens: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [(*tokens[:index], right, *tokens[index + 1 :]) for left, right in SIDES for index, token in enumerate(tokens) if token == left]
