"""Instance normalisation with its LeakyReLU, kept in channels-last memory on the CPU.

PyTorch's own instance norm folds the batch into the channels, which forces the activations out of channels-last and costs a copy in each
direction; the CPU's convolutions are fastest in channels-last. Batch normalisation of one sample *is* its instance normalisation, and its
CPU kernel reads and writes channels-last. So the normalisation goes sample by sample through that kernel, straight into one output.
"""

from __future__ import annotations

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
        slope: of the LeakyReLU for negative values, above 0; 1 stands for no activation.

    Raises:
        ValueError: a slope that is not positive (the backward pass reads the sign of the input off the output), or a single voxel a
            channel, which has no variance.

    Source: Ulyanov et al., "Instance normalization", arXiv 1607.08022.
    """
    if slope <= 0:
        raise ValueError(f"slope must be positive, found {slope}")
    if x[0, 0].numel() < 2:
        raise ValueError(f"instance normalisation needs more than one voxel a channel, found the shape {tuple(x.shape)}")
    if x.device.type == "cpu" and is_channels_last(x):
        return _ChannelsLastNorm.apply(x, weight, bias, eps, slope)
    normalised = F.instance_norm(x, weight=weight, bias=bias, eps=eps)
    return normalised if slope == 1 else F.leaky_relu(normalised, slope, inplace=True)


class _ChannelsLastNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, slope: float) -> Tensor:
        statistics = x.new_empty((2, *x.shape[:2]), dtype=weight.dtype)
        mean, inverse_std = statistics
        y = torch.empty_like(x, memory_format=channels_last(x.ndim - 2))
        for n in range(len(x)):
            out = (y[n : n + 1], mean[n], inverse_std[n])
            torch.native_batch_norm(x[n : n + 1], weight, bias, None, None, True, 0.0, eps, out=out)
            if slope != 1:  # here, sample by sample, what was just written is still in the cache
                F.leaky_relu(out[0], slope, inplace=True)
        ctx.save_for_backward(x, y, weight, statistics)
        ctx.eps, ctx.slope = eps, slope
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, y, weight, (mean, inverse_std) = ctx.saved_tensors
        layout = channels_last(x.ndim - 2)
        grad_y = grad_y.contiguous(memory_format=layout)
        grad_x = torch.empty_like(x, memory_format=layout)
        grad_weight, grad_bias = torch.zeros_like(weight), torch.zeros_like(weight)
        for n in range(len(x)):
            one = slice(n, n + 1)
            # a positive slope keeps the sign, so the output tells which side of 0 the normalised value lay on
            grad = grad_y[one] if ctx.slope == 1 else torch.ops.aten.leaky_relu_backward(grad_y[one], y[one], ctx.slope, True)
            grads = torch.ops.aten.native_batch_norm_backward(
                grad, x[one], weight, None, None, mean[n], inverse_std[n], True, ctx.eps, [True, True, True]
            )
            grad_x[one] = grads[0]
            grad_weight += grads[1]
            grad_bias += grads[2]
        return grad_x, grad_weight, grad_bias, None, None


class InstanceNorm(nn.Module):
    """Affine instance normalisation followed by LeakyReLU; `slope=1` leaves the activation out."""

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
