"""The parts that the U-Nets are made of. Sizes are (channels, ...) without the batch; strides and kernels stand in network axis order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .norm import InstanceNorm
from .pointwise import average_pool, convolution

SLOPE = 0.01
TRANSPOSED_CONVOLUTION = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


class ConvBlock(nn.Module):
    """Convolution, instance norm and, unless `slope` is 1, LeakyReLU. The kernel is centred, so that only `stride` changes the size."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: Sequence[int], stride: Sequence[int], *, bias: bool = True, slope: float = SLOPE
    ):
        super().__init__()
        self.conv = convolution(channels_in, channels_out, kernel, stride, bias=bias)
        self.norm = InstanceNorm(channels_out, slope=slope)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class ConvStage(nn.Sequential):
    """`count` convolution blocks; the first has the stride."""

    def __init__(self, channels_in: int, channels_out: int, kernel: Sequence[int], stride: Sequence[int], count: int):
        ones = [1] * len(kernel)
        first = ConvBlock(channels_in, channels_out, kernel, stride)
        super().__init__(first, *(ConvBlock(channels_out, channels_out, kernel, ones) for _ in range(count - 1)))


class ResidualBlock(nn.Module):
    """LeakyReLU of (conv-norm-act-conv-norm of x) + (x, average-pooled where strided and projected where the channels change).

    Source: He et al., "Bag of tricks for image classification with convolutional neural networks", CVPR 2019 (ResNet-D).
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: Sequence[int], stride: Sequence[int]):
        super().__init__()
        ones = [1] * len(kernel)
        self.stride = tuple(stride)
        self.conv1 = ConvBlock(channels_in, channels_out, kernel, stride)
        self.conv2 = ConvBlock(channels_out, channels_out, kernel, ones, slope=1)
        self.skip = ConvBlock(channels_in, channels_out, ones, ones, bias=False, slope=1) if channels_in != channels_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        if any(step != 1 for step in self.stride):
            shortcut = average_pool(shortcut, self.stride)
        return F.leaky_relu(self.conv2(self.conv1(x)) + self.skip(shortcut), SLOPE, inplace=True)


class ResidualStage(nn.Sequential):
    """`count` residual blocks; the first has the stride."""

    def __init__(self, channels_in: int, channels_out: int, kernel: Sequence[int], stride: Sequence[int], count: int):
        ones = [1] * len(kernel)
        first = ResidualBlock(channels_in, channels_out, kernel, stride)
        super().__init__(first, *(ResidualBlock(channels_out, channels_out, kernel, ones) for _ in range(count - 1)))


class Encoder(nn.Module):
    """Stages from the finest to the coarsest; returns the output of each.

    Args:
        stage: `ConvStage` or `ResidualStage`.
        counts: blocks a stage.
        stem: a convolution block at full resolution before the first stage.
    """

    def __init__(
        self,
        stage: type[nn.Module],
        channels_in: int,
        features: Sequence[int],
        kernels: Sequence[Sequence[int]],
        strides: Sequence[Sequence[int]],
        counts: Sequence[int],
        *,
        stem: bool,
    ):
        super().__init__()
        ones = [1] * len(kernels[0])
        self.stem = ConvBlock(channels_in, features[0], kernels[0], ones) if stem else nn.Identity()
        widths = [features[0] if stem else channels_in, *features]
        self.stages = nn.ModuleList(stage(*arguments) for arguments in zip(widths[:-1], features, kernels, strides, counts, strict=True))

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        outputs = []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return outputs


class Decoder(nn.Module):
    """From the coarsest features back to full resolution, one level after another: transposed convolution, concatenation of the
    encoder's features behind it, convolutions. A 1x1 convolution at every level makes logits; which are computed is the caller's choice.

    Lists run from the coarsest level to the finest.
    """

    def __init__(
        self,
        features: Sequence[int],
        kernels: Sequence[Sequence[int]],
        strides: Sequence[Sequence[int]],
        counts: Sequence[int],
        channels_out: int,
    ):
        super().__init__()
        dimension = len(kernels[0])
        ones = [1] * dimension
        levels = range(len(features) - 2, -1, -1)
        self.upsamplings = nn.ModuleList(
            TRANSPOSED_CONVOLUTION[dimension](features[i + 1], features[i], tuple(strides[i + 1]), tuple(strides[i + 1])) for i in levels
        )
        self.stages = nn.ModuleList(
            ConvStage(2 * features[i], features[i], kernels[i], ones, count) for i, count in zip(levels, counts, strict=True)
        )
        self.heads = nn.ModuleList(convolution(features[i], channels_out, ones, ones) for i in levels)

    def forward(self, skips: list[Tensor], all_levels: bool) -> list[Tensor]:
        """Logits, full resolution first: of all levels, or of the finest alone."""
        x = skips[-1]
        logits = []
        finest = len(self.stages) - 1
        for level, (up, stage, head) in enumerate(zip(self.upsamplings, self.stages, self.heads, strict=True)):
            x = stage(torch.cat((up(x), skips[-2 - level]), dim=1))
            if all_levels or level == finest:
                logits.append(head(x))
        return logits[::-1]
