"""Passes over an image in pieces that stay in the processor's cache.

A piece is smaller than torch's threshold for starting threads, so sums come out bit for bit the same with any number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

CHUNK = 16384
"""Elements a piece: 64 KiB of float32. torch splits work among threads from 32768 elements on."""


LARGEST_PIECE = 32000
"""The most elements that torch surely works on in one thread."""


def chunks(values: torch.Tensor) -> Iterator[torch.Tensor]:
    """Flat views of at most `CHUNK` elements that together are the whole of a contiguous tensor."""
    return iter(values.view(-1).split(CHUNK))


def mean(values: torch.Tensor) -> float:
    """Arithmetic mean of a contiguous tensor, in double precision between the pieces."""
    return sum(piece.sum().item() for piece in chunks(values)) / values.numel()


def mean_and_std(values: torch.Tensor) -> tuple[float, float]:
    """Mean and population standard deviation of a contiguous tensor, in two passes."""
    centre = mean(values)
    squares = sum(torch.sub(piece, centre).square_().sum().item() for piece in chunks(values))
    return centre, math.sqrt(squares / values.numel())


def extremes(values: torch.Tensor) -> tuple[float, float]:
    """Minimum and maximum."""
    low, high = torch.aminmax(values)
    return low.item(), high.item()
