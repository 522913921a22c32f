"""One pass of all folds and mirrored views over an image, which gives averaged logits plane by plane.

Only a slab of logits is ever held: as many planes along the first axis as a tile is deep. The tiles come in rows along that axis; once a
row is done, the planes that no later row touches are complete and leave the slab.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from autoseg.errors import ModelError
from autoseg.inference.agreement import Agreement
from autoseg.inference.tiles import TileGrid, flips, tile_grid
from autoseg.networks.precision import Precision, autocast
from planners.plan import Configuration


@dataclass(frozen=True)
class Window:
    """How an image is covered. `patch` has three entries; a 2-D configuration looks at single slices: (1, height, width).

    `dimension` is the network's, `mirror_axes` count its spatial axes, `step` and `sigma` are shares of the patch.
    """

    patch: tuple[int, int, int]
    dimension: int
    step: float = 0.5
    sigma: float = 0.125
    mirror_axes: tuple[int, ...] = ()

    @staticmethod
    def of(configuration: Configuration, *, mirroring: bool = True, step: float | None = None) -> Window:
        """The window that a configuration asks for, with mirroring switched off or another step where told."""
        patch = (1,) * (3 - configuration.dimension) + tuple(configuration.patch_size)
        inference = configuration.inference
        return Window(
            patch,  # type: ignore[arg-type]
            configuration.dimension,
            inference.step if step is None else step,
            inference.gaussian_sigma,
            inference.mirror_axes if mirroring else (),
        )

    def grid(self, shape: Sequence[int]) -> TileGrid:
        """The tiles over an image of `shape` (voxels, network order)."""
        first, second, third = shape
        return tile_grid((first, second, third), self.patch, self.step, self.sigma)

    def passes(self, shape: Sequence[int], networks: int) -> int:
        """How many times a network runs for an image of `shape`."""
        return len(self.grid(shape)) * networks << len(self.mirror_axes)


@torch.inference_mode()
def slide(
    networks: Sequence[nn.Module],
    data: np.ndarray,
    classes: int,
    window: Window,
    *,
    device: torch.device,
    precision: Precision = "fp32",
    slab_device: torch.device | None = None,
    progress: Callable[[], None] = lambda: None,
    agreement: Agreement | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Blocks of complete planes of the averaged logits, in order along the first axis.

    Args:
        networks: one a fold, in evaluation mode, on `device`; each gives logits of shape (1, classes, *patch).
        data: float32 of shape (channels, depth, height, width), network order; may be a memory map.
        classes: number of logit maps.
        window: how the image is covered.
        device: where the networks run.
        precision: what they compute in; logits are added up in float32 whatever it is.
        slab_device: where the slab lies; None means `device`.
        progress: called after each tile.
        agreement: is told what folds or flips make of each tile.

    Yields:
        (first plane, float32 of shape (classes, planes, height, width)). The tensor is the slab itself: use or copy it before the next.

    Raises:
        ModelError: a network gives logits that are not finite.
    """
    grid = window.grid(data.shape[1:])
    depth_axis = grid.axes[0]
    depth = min(depth_axis.patch, depth_axis.length)
    slab = torch.zeros((classes, depth, *data.shape[2:]), device=slab_device or device)
    first_plane = 0
    for row, tiles in grid.rows():
        for tile in tiles:
            logits = _tile_logits(networks, _read_tile(data, grid, tile, device), window, precision, agreement)
            _add(slab, first_plane, logits, grid, tile, agreement)
            progress()
        is_last = row + 1 == len(depth_axis.starts)
        complete = depth_axis.length if is_last else depth_axis.starts[row + 1]
        count = complete - first_plane
        if not bool(torch.isfinite(slab[:, :count]).all()):
            raise ModelError(
                f"the network gives values that are not finite in planes {first_plane} to {complete - 1} (computed in {precision}). "
                "Predict in fp32; if that does not help, the weights are damaged: train this fold again."
            )
        yield first_plane, slab[:, :count]
        if not is_last:
            _advance(slab, count)
            first_plane = complete


def _read_tile(data: np.ndarray, grid: TileGrid, tile: tuple[int, int, int], device: torch.device) -> Tensor:
    places = [axis.inside(index) for axis, index in zip(grid.axes, tile, strict=True)]
    values = torch.zeros((1, data.shape[0], *(axis.patch for axis in grid.axes)))
    (z, tz), (y, ty), (x, tx) = places
    values[0, :, tz, ty, tx] = torch.from_numpy(np.ascontiguousarray(data[:, z, y, x]))
    return values.to(device)


def _tile_logits(
    networks: Sequence[nn.Module], values: Tensor, window: Window, precision: Precision, agreement: Agreement | None
) -> Tensor:
    """Mean over networks and mirrored views: float32 of shape (classes, *patch)."""
    if window.dimension == 2:
        values = values[:, :, 0]
    layout = torch.channels_last_3d if window.dimension == 3 else torch.channels_last
    views = flips(window.mirror_axes)
    total: Tensor | None = None
    with autocast(values.device, precision):
        for view in views:
            dims = [axis + 2 for axis in view]
            mirrored = (values.flip(dims) if dims else values).contiguous(memory_format=layout)
            for network in networks:
                logits = network(mirrored).float()
                logits = logits.flip(dims) if dims else logits
                if agreement is not None and (len(networks) == 1 or not dims):
                    agreement.vote(logits[0])
                total = logits if total is None else total.add_(logits)
    assert total is not None
    if len(views) * len(networks) > 1:
        total = total.mul_(1 / (len(views) * len(networks)))
    return total[0] if window.dimension == 3 else total[0].unsqueeze(1)


def _add(slab: Tensor, first_plane: int, logits: Tensor, grid: TileGrid, tile: tuple[int, int, int], agreement: Agreement | None) -> None:
    places = [axis.inside(index) for axis, index in zip(grid.axes, tile, strict=True)]
    (z, tz), (y, ty), (x, tx) = places
    wz, wy, wx = (
        torch.from_numpy(axis.weights[index][inside]).to(logits.device)
        for axis, index, (_, inside) in zip(grid.axes, tile, places, strict=True)
    )
    weight = wz[:, None, None] * wy[:, None] * wx
    if agreement is not None:
        agreement.add(logits, weight, (tz, ty, tx))
    weighted = logits[:, tz, ty, tx] * weight
    slab[:, z.start - first_plane : z.stop - first_plane, y, x] += weighted.to(slab.device)


def _advance(slab: Tensor, count: int) -> None:
    """Moves the planes from `count` on to the front and clears the rest."""
    kept = slab.shape[1] - count
    for plane in range(kept):  # one by one: source and target overlap, and a copy of the slab would double it
        slab[:, plane] = slab[:, plane + count]
    slab[:, kept:] = 0
