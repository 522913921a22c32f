"""Convolutions and pooling that stay channels-last where PyTorch's CPU kernels would leave it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .norm import fold, is_channels_last


def convolution(channels_in: int, channels_out: int, kernel: Sequence[int], stride: Sequence[int], *, bias: bool = True) -> nn.Module:
    """A 2-D or 3-D convolution whose centred, odd kernel leaves the size to `stride`."""
    dimension = len(kernel)
    if math.prod(kernel) == math.prod(stride) == 1:
        return {2: Pointwise2d, 3: Pointwise3d}[dimension](channels_in, channels_out, 1, bias=bias)
    padding = tuple((size - 1) // 2 for size in kernel)
    return {2: nn.Conv2d, 3: nn.Conv3d}[dimension](channels_in, channels_out, tuple(kernel), tuple(stride), padding, bias=bias)


class Pointwise2d(nn.Conv2d):
    """1x1 convolution as a matrix product over channels-last voxels; on one thread PyTorch's own takes an unvectorised path."""

    def forward(self, x: Tensor) -> Tensor:
        return _voxelwise_linear(x, self.weight, self.bias) if _on_cpu_channels_last(x) else super().forward(x)


class Pointwise3d(nn.Conv3d):
    """1x1x1 convolution, see `Pointwise2d`."""

    def forward(self, x: Tensor) -> Tensor:
        return _voxelwise_linear(x, self.weight, self.bias) if _on_cpu_channels_last(x) else super().forward(x)


def average_pool(x: Tensor, stride: Sequence[int]) -> Tensor:
    """Means of blocks of `stride` voxels, in the memory format of `x`.

    Args:
        x: shape (n, c, *spatial); each spatial size a multiple of the stride.
    """
    if len(stride) == 2:
        return F.avg_pool2d(x, tuple(stride))
    if not _on_cpu_channels_last(x):
        return F.avg_pool3d(x, tuple(stride))
    # avg_pool3d gives up channels-last, avg_pool2d does not: slices first, then pairs of slices
    n, c, z, *_ = x.shape
    slices = F.avg_pool2d(x.movedim(2, 1).flatten(0, 1), tuple(stride[1:]))
    voxels = slices.movedim(1, -1).unflatten(0, (n, z // stride[0], stride[0]))
    return voxels.mean(2).movedim(-1, 1)


def _on_cpu_channels_last(x: Tensor) -> bool:
    return x.device.type == "cpu" and is_channels_last(x)


def _voxelwise_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Matrix products of blocks of voxels with one weight; their gradients are as many partial sums.

    One product over all voxels has its weight gradient summed into a single running float32: over 600 000 voxels that was wrong by 0.1 %.
    """
    voxels = x.movedim(1, -1)
    blocks = voxels.reshape(len(x) * fold(x), -1, x.shape[1])
    shared = weight.flatten(1).t().expand(len(blocks), -1, -1)
    product = torch.bmm(blocks, shared) if bias is None else torch.baddbmm(bias, blocks, shared)
    return product.view(*voxels.shape[:-1], -1).movedim(-1, 1)
