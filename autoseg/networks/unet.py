"""The plain U-Net and the one with a residual encoder.

Source: Ronneberger et al., "U-Net", MICCAI 2015; Isensee et al., "nnU-Net", Nature Methods 2021, and "nnU-Net revisited", MICCAI 2024.
"""

from __future__ import annotations

from torch import Tensor, nn

from planners.plan import ResidualUNetSpec, UNetSpec

from .blocks import ConvStage, Decoder, Encoder, ResidualStage
from .norm import channels_last


class EncoderDecoder(nn.Module):
    """A U-Net of an encoder and a decoder that are given.

    The encoder turns images into features, finest first; the decoder turns these into logits of the finest level or of all.

    Calling it with images of shape (n, channels, *spatial), each spatial size a multiple of the product of its strides, returns logits of
    shape (n, classes, *spatial); in training mode with deep supervision a list of them, full resolution first, one a decoder level.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, deep_supervision: bool):
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.deep_supervision = deep_supervision

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        if x.device.type == "cpu":  # the CPU's convolutions are fastest so; on CUDA the stock instance norm would undo it layer by layer
            x = _to_channels_last(x)
        every_level = self.training and self.deep_supervision
        logits = self.decoder(self.encoder(x), every_level)
        return logits if every_level else logits[0]


def _to_channels_last(x: Tensor) -> Tensor:
    """The same values with channels-last strides, also where one channel makes both layouts look alike and `contiguous` does nothing."""
    x = x.contiguous(memory_format=channels_last(x.ndim - 2))
    spatial = x.shape[2:]
    if x.shape[1] > 1:
        return x
    steps = [1]
    for size in reversed(spatial[1:]):
        steps.insert(0, steps[0] * size)
    return x.as_strided(x.shape, (spatial.numel(), 1, *steps))


class UNet(EncoderDecoder):
    """Plain convolutional U-Net of a plan's `UNetSpec`."""

    def __init__(self, spec: UNetSpec, in_channels: int, out_channels: int):
        encoder = Encoder(ConvStage, in_channels, spec.features, spec.kernels, spec.strides, spec.convs_per_stage, stem=False)
        decoder = Decoder(spec.features, spec.kernels, spec.strides, spec.convs_per_decoder_stage, out_channels)
        super().__init__(encoder, decoder, spec.deep_supervision)


class ResidualUNet(EncoderDecoder):
    """U-Net with a residual encoder of a plan's `ResidualUNetSpec`."""

    def __init__(self, spec: ResidualUNetSpec, in_channels: int, out_channels: int):
        encoder = Encoder(ResidualStage, in_channels, spec.features, spec.kernels, spec.strides, spec.blocks_per_stage, stem=True)
        decoder = Decoder(spec.features, spec.kernels, spec.strides, spec.convs_per_decoder_stage, out_channels)
        super().__init__(encoder, decoder, spec.deep_supervision)
