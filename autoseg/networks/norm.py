"""Instance normalisation with its LeakyReLU, kept in channels-last memory on the CPU.

PyTorch's own instance norm folds the batch into the channels, which forces the activations out of channels-last and costs a copy in each
direction; the CPU's convolutions are fastest in channels-last. Here each sample's channels-last memory is read as a matrix of voxels times
channels: its batch statistics are the sample's instance statistics, and what remains is one multiply-add with the activation behind it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def channels_last(dimension: int) -> torch.memory_format:
    """The channels-last memory format of a 2-D or 3-D image batch."""
    return torch.channels_last if dimension == 2 else torch.channels_last_3d


def is_channels_last(x: Tensor) -> bool:
    """Whether a batch of images lies in memory voxel by voxel, its channels together."""
    return x.is_contiguous(memory_format=channels_last(x.ndim - 2))


def instance_norm_leaky_relu(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5, slope: float = 0.01) -> Tensor:
    """LeakyReLU of the instance normalisation of `x`, in the memory format of `x`.

    Args:
        x: shape (n, c, y, x) or (n, c, z, y, x).
        weight, bias: the affine part, shape (c,).
        eps: added to the variance.
        slope: of the LeakyReLU for negative values; 0 makes it a ReLU, 1 stands for no activation.

    Raises:
        ValueError: a negative slope (the backward pass reads the sign of the input off the output), or a single voxel a channel, which
            has no variance.

    Source: Ulyanov et al., "Instance normalization", arXiv 1607.08022.
    """
    if slope < 0:
        raise ValueError(f"slope must be 0 or more, found {slope}")
    if x[0, 0].numel() < 2:
        raise ValueError(f"instance normalisation needs more than one voxel a channel, found the shape {tuple(x.shape)}")
    if x.device.type == "cpu" and is_channels_last(x):
        return _ChannelsLastNorm.apply(x, weight, bias, eps, slope)
    normalised = F.instance_norm(x, weight=weight, bias=bias, eps=eps)
    return normalised if slope == 1 else F.leaky_relu(normalised, slope, inplace=True)


class _ChannelsLastNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, slope: float) -> Tensor:
        y = torch.empty_like(x, memory_format=channels_last(x.ndim - 2))
        rows_x, rows_y, parts = _rows(x), _rows(y), fold(x)
        statistics = []
        for n in range(len(x)):
            mean, variance = _mean_and_variance(rows_x[n], parts)
            inverse_std = torch.rsqrt(variance + eps)
            scale = inverse_std * weight
            torch.addcmul(_spread(bias - mean * scale, parts, x), rows_x[n], _spread(scale, parts, x), out=rows_y[n])
            if slope != 1:  # here, sample by sample, what was just written is still in the cache
                F.leaky_relu(rows_y[n], slope, inplace=True)
            statistics.append(torch.stack((mean, inverse_std)))
        ctx.save_for_backward(x, y, weight, torch.stack(statistics))
        ctx.slope = slope
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, y, weight, statistics = ctx.saved_tensors
        grad_y = grad_y.contiguous(memory_format=channels_last(x.ndim - 2))
        grad_x = torch.empty_like(x, memory_format=channels_last(x.ndim - 2))
        rows_x, rows_y, rows_grad_y, rows_grad_x, parts = _rows(x), _rows(y), _rows(grad_y), _rows(grad_x), fold(x)
        count = x[0, 0].numel()
        grad_weight, grad_bias = torch.zeros_like(statistics[0, 0]), torch.zeros_like(statistics[0, 0])
        for n, (mean, inverse_std) in enumerate(statistics):
            grad = rows_grad_y[n]
            if ctx.slope != 1:
                # the output is positive just where the normalised value was
                grad = torch.ops.aten.leaky_relu_backward(grad, rows_y[n], ctx.slope, True)
            total, projection = _sums(grad, rows_x[n], mean, inverse_std, parts)
            grad_bias += total
            grad_weight += projection
            # weight / std * (grad - mean(grad) - normalised * mean(grad * normalised)), gathered by what multiplies x and grad
            scale = inverse_std * weight
            slope_of_x = -scale * inverse_std * projection / count
            offset = -scale * total / count - mean * slope_of_x
            torch.addcmul(_spread(offset, parts, x), rows_x[n], _spread(slope_of_x, parts, x), out=rows_grad_x[n])
            rows_grad_x[n].addcmul_(grad, _spread(scale, parts, x))
        return grad_x, grad_weight.to(weight.dtype), grad_bias.to(weight.dtype), None, None


def fold(x: Tensor) -> int:
    """Into how many equal parts a channel's voxels are dealt before they are summed up: a power of 2, at most 64.

    The CPU's kernels add a channel into one running float32, whose rounding grows with the number of voxels: with 90 000 of them the
    network's gradients came out wrong by a percent. Shorter sums stay accurate, and joining them in float64 costs nothing.
    """
    return math.gcd(x[0, 0].numel(), 64)


def _rows(x: Tensor) -> Tensor:
    """The channels-last memory of `x` as (n, voxels / fold, fold * c): neighbouring voxels side by side as if they were channels."""
    return x.movedim(1, -1).view(len(x), -1, fold(x) * x.shape[1])


def _spread(values: Tensor, parts: int, like: Tensor) -> Tensor:
    """One value a channel (c,) -> (parts * c,) in the type of `like`."""
    return values.to(like.dtype).repeat(parts)


def _mean_and_variance(rows: Tensor, parts: int) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance of each channel in float64, joined from those of `parts` equal parts."""
    means, variances = (values.double().unflatten(0, (parts, -1)) for values in torch.batch_norm_update_stats(rows, None, None, 0.0))
    return means.mean(0), variances.mean(0) + means.var(0, correction=0)


def _sums(grad: Tensor, rows: Tensor, mean: Tensor, inverse_std: Tensor, parts: int) -> tuple[Tensor, Tensor]:
    """Sums over voxels of the gradient and of gradient * normalised value, each (c,) in float64."""
    wide = torch.promote_types(rows.dtype, torch.float32)
    statistics = [value.to(wide).repeat(parts) for value in (mean, inverse_std)]
    _, projections, totals = torch.ops.aten.native_batch_norm_backward(
        grad, rows, None, None, None, *statistics, True, 0.0, [False, True, True]
    )
    return totals.double().unflatten(0, (parts, -1)).sum(0), projections.double().unflatten(0, (parts, -1)).sum(0)


class InstanceNorm(nn.Module):
    """Affine instance normalisation followed by LeakyReLU; `slope=0` makes it a ReLU, `slope=1` leaves the activation out."""

    def __init__(self, channels: int, *, eps: float = 1e-5, slope: float = 0.01):
        super().__init__()
        self.eps = eps
        self.slope = slope
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return instance_norm_leaky_relu(x, self.weight, self.bias, self.eps, self.slope)

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, eps={self.eps}, slope={self.slope}"
