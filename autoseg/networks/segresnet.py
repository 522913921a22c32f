"""SegResNet: residual blocks that normalise first, and a decoder that adds the encoder's features in place of concatenating them.

Differences from the papers are the project's: instance norm (Myronenko 2018: group norm), strides and kernels from the plan's topology,
and transposed convolutions up (2018: 1x1x1 convolution and trilinear interpolation, whose gradient has no deterministic CUDA kernel).

Source: Myronenko, "3D MRI brain tumor segmentation using autoencoder regularization", BrainLes 2018; Myronenko et al., "Automated head
and neck tumor segmentation from 3D PET/CT", HECKTOR 2022; He et al., "Identity mappings in deep residual networks", ECCV 2016.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from planners.plan import SegResNetSpec

from .blocks import TRANSPOSED_CONVOLUTION, Encoder
from .norm import InstanceNorm
from .pointwise import convolution
from .unet import EncoderDecoder

RELU = 0.0
"""The slope that makes a norm's LeakyReLU a ReLU."""


class PreActivationBlock(nn.Module):
    """x + (norm, ReLU, convolution, norm, ReLU, convolution of x). Convolutions have no bias: the next norm would take it out again."""

    def __init__(self, channels: int, kernel: Sequence[int]):
        super().__init__()
        ones = [1] * len(kernel)
        self.norm1 = InstanceNorm(channels, slope=RELU)
        self.conv1 = convolution(channels, channels, kernel, ones, bias=False)
        self.norm2 = InstanceNorm(channels, slope=RELU)
        self.conv2 = convolution(channels, channels, kernel, ones, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.norm2(self.conv1(self.norm1(x))))


class PreActivationStage(nn.Sequential):
    """A convolution that has the stride and widens to `channels_out`, then `count` blocks."""

    def __init__(self, channels_in: int, channels_out: int, kernel: Sequence[int], stride: Sequence[int], count: int):
        entry = convolution(channels_in, channels_out, kernel, stride, bias=False)
        super().__init__(entry, *(PreActivationBlock(channels_out, kernel) for _ in range(count)))


class AdditiveDecoder(nn.Module):
    """From the coarsest features back to full resolution: transposed convolution, the encoder's features added, blocks.

    A norm with ReLU and a 1x1 convolution at every level make logits; which are computed is the caller's choice. Lists run from the
    coarsest level to the finest.
    """

    def __init__(self, spec: SegResNetSpec, channels_out: int):
        super().__init__()
        features, kernels, strides = spec.features, spec.kernels, spec.strides
        ones = [1] * len(kernels[0])
        transposed = TRANSPOSED_CONVOLUTION[len(ones)]
        levels = range(len(features) - 2, -1, -1)
        self.upsamplings = nn.ModuleList(
            transposed(features[i + 1], features[i], tuple(strides[i + 1]), tuple(strides[i + 1]), bias=False) for i in levels
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*(PreActivationBlock(features[i], kernels[i]) for _ in range(count)))
            for i, count in zip(levels, spec.blocks_per_decoder_stage, strict=True)
        )
        self.norms = nn.ModuleList(InstanceNorm(features[i], slope=RELU) for i in levels)
        self.heads = nn.ModuleList(convolution(features[i], channels_out, ones, ones) for i in levels)

    def forward(self, skips: list[Tensor], all_levels: bool) -> list[Tensor]:
        """Logits, full resolution first: of all levels, or of the finest alone."""
        x = skips[-1]
        logits = []
        finest = len(self.stages) - 1
        for level, (up, stage) in enumerate(zip(self.upsamplings, self.stages, strict=True)):
            x = stage(up(x) + skips[-2 - level])
            if all_levels or level == finest:
                logits.append(self.heads[level](self.norms[level](x)))
        return logits[::-1]


class SegResNet(EncoderDecoder):
    """SegResNet of a plan's `SegResNetSpec`."""

    def __init__(self, spec: SegResNetSpec, in_channels: int, out_channels: int):
        encoder = Encoder(PreActivationStage, in_channels, spec.features, spec.kernels, spec.strides, spec.blocks_per_stage, stem=False)
        super().__init__(encoder, AdditiveDecoder(spec, out_channels), spec.deep_supervision)
