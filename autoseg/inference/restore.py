"""From blocks of logits on the network's grid to a mask on the image's own grid, plane by plane.

Logits are interpolated (linear, or nearest along a coarse axis that the plan resamples apart), then the largest one wins: softmax before
would not change the winner. Where classes are regions, each is painted where its own logit is positive (its sigmoid above 0.5), later ones
over earlier ones. One output plane of all classes is in memory at a time; the whole image exists only as labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from autoseg.preprocessing.resample import linear_axis, nearest_index, separate_axis
from planners.plan import Resampling


@dataclass(frozen=True)
class Taps:
    """Linear interpolation along one axis: output i is `(1 - weight[i]) * input[low[i]] + weight[i] * input[high[i]]`."""

    low: np.ndarray
    high: np.ndarray
    weight: np.ndarray

    @property
    def is_identity(self) -> bool:
        """Whether the output is the input."""
        return bool(not self.weight.any() and np.array_equal(self.low, np.arange(len(self.low))))


def axis_taps(size: int, new_size: int, order: int) -> Taps:
    """How an axis of `size` voxels is read at `new_size` evenly spread voxel centres; both grids share their outer borders.

    Args:
        size, new_size: voxels before and after.
        order: 1 linear, with the outermost voxel's value beyond its centre; 0 nearest neighbour.

    Raises:
        ValueError: another order.
    """
    if order not in (0, 1):
        raise ValueError(f"order must be 0 or 1, found {order}")
    if order == 0 or size == new_size:
        nearest = nearest_index(size, new_size)
        return Taps(nearest, nearest, np.zeros(new_size, np.float32))
    low, high, weight = linear_axis(size, new_size)
    return Taps(low, high, weight.astype(np.float32))


def logits_taps(
    shape: Sequence[int], new_shape: Sequence[int], spacing: Sequence[float], new_spacing: Sequence[float], rule: Resampling
) -> tuple[Taps, Taps, Taps]:
    """How logits on a grid of `shape` are read on one of `new_shape`: linear along each axis, nearest along one that is resampled apart.

    Args:
        shape, new_shape: voxels, network order.
        spacing, new_spacing: mm, network order; they decide only whether an axis is resampled apart.
        rule: the plan's.
    """
    coarse = separate_axis(spacing, new_spacing, rule.separate_z_ratio)
    first, second, third = (
        axis_taps(n, m, 0 if axis == coarse else rule.logits_order) for axis, (n, m) in enumerate(zip(shape, new_shape, strict=True))
    )
    return first, second, third


def resample_planes(blocks: Iterable[tuple[int, Tensor]], taps: Sequence[Taps]) -> Iterator[Tensor]:
    """Each output plane of the resampled logits in order, float32 of shape (classes, height, width); use it before taking the next.

    Args:
        blocks: (first plane, tensor (classes, planes, height, width)), contiguous and in order; read before the next one is taken.
        taps: one a spatial axis.
    """
    depth, *in_plane = taps
    reader = _DeviceTaps(in_plane)
    wanted = 0
    kept: dict[int, Tensor] = {}
    for start, block in blocks:
        stop = start + block.shape[1]

        planes = kept | {index: block[:, index - start] for index in range(start, stop)}
        while wanted < len(depth.low) and depth.high[wanted] < stop:
            low, weight = planes[int(depth.low[wanted])], float(depth.weight[wanted])
            yield reader(torch.lerp(low, planes[int(depth.high[wanted])], weight) if weight else low)
            wanted += 1
        needed = range(int(depth.low[wanted]), stop) if wanted < len(depth.low) else range(0)
        # The block is a window on a buffer that the next one overwrites.
        kept = {index: planes[index].clone() for index in needed}
    assert wanted == len(depth.low), "the blocks ended before the image did"


class _DeviceTaps:
    """In-plane interpolation with the index arrays kept on the logits' device."""

    def __init__(self, taps: Sequence[Taps]):
        self.taps = taps
        self.placed: list[tuple[int, Tensor, Tensor, Tensor]] | None = None

    def __call__(self, plane: Tensor) -> Tensor:
        if self.placed is None:
            self.placed = [
                (dim, torch.from_numpy(t.low).to(plane.device), torch.from_numpy(t.high).to(plane.device), _column(t, dim).to(plane.device))
                for dim, t in zip((1, 2), self.taps, strict=True)
                if not t.is_identity
            ]
        for dim, low, high, weight in self.placed:
            below = plane.index_select(dim, low)
            plane = torch.lerp(below, plane.index_select(dim, high), weight)
        return plane


def _column(taps: Taps, dim: int) -> Tensor:
    weight = torch.from_numpy(taps.weight)
    return weight[:, None] if dim == 1 else weight


@torch.no_grad()
def restore_labels(
    blocks: Iterable[tuple[int, Tensor]],
    taps: Sequence[Taps],
    mask: np.ndarray,
    *,
    values: Sequence[int] | None = None,
    regions: bool = False,
    probabilities: np.ndarray | None = None,
) -> None:
    """Writes the label of every voxel into `mask`, and where asked each class' probability.

    Args:
        blocks: logits on the network's grid, as `sliding_window.slide` yields them.
        taps: one a spatial axis, from the network's grid to the cropped image's, network order.
        mask: integers of the cropped image's shape, network order; may be a view into a larger, permuted array.
        values: the value that each output paints; None means the output's index.
        regions: outputs are regions, which may overlap: each is painted in turn. Else exactly one output wins a voxel.
        probabilities: float array of shape (outputs, *mask.shape), or None; gets the logits' softmax, of regions their sigmoid.
    """
    lookup = None if values is None or list(values) == list(range(len(values))) else np.asarray(values, mask.dtype)
    for index, logits in enumerate(resample_planes(blocks, taps)):
        if regions:
            mask[index] = paint_regions(logits, range(len(logits)) if values is None else values).cpu().numpy()
        else:
            winner = logits.argmax(0).to(torch.uint8 if logits.shape[0] <= 256 else torch.int32).cpu().numpy()
            mask[index] = winner if lookup is None else lookup[winner]
        if probabilities is not None:
            probabilities[:, index] = (logits.sigmoid() if regions else logits.softmax(0)).cpu().numpy()


def paint_regions(logits: Tensor, values: Sequence[int]) -> Tensor:
    """Region after region painted with its value where its logit is positive, over what is there; 0 where none is.

    Args:
        logits: (regions, *spatial).
        values: one a region.

    Returns:
        int32 (*spatial).
    """
    painted = torch.zeros(logits.shape[1:], dtype=torch.int32, device=logits.device)
    for region, value in zip(logits, values, strict=True):
        painted.masked_fill_(region > 0, value)
    return painted


def certain_background(probabilities: np.ndarray, regions: bool) -> None:
    """Fills probabilities (outputs, ...) with those of voxels that are background for sure: regions have no output for it."""
    probabilities[...] = 0
    if not regions:
        probabilities[0] = 1


def label_dtype(values: Iterable[int]) -> np.dtype:
    """The smallest unsigned integer type that holds every label value: uint8 up to 255, else uint16.

    Raises:
        ValueError: a value is negative or above 65535.
    """
    low, high = min(values := list(values)), max(values)
    if low < 0 or high > np.iinfo(np.uint16).max:
        raise ValueError(f"label values must lie in 0 to 65535, found {low} to {high}")
    return np.dtype(np.uint8 if high <= np.iinfo(np.uint8).max else np.uint16)
