"""How much a network holds and computes, before it is built."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from planners.plan import Network, ResidualUNetSpec, SegResNetSpec, UNetSpec


@dataclass(frozen=True)
class Layer:
    """One convolution (or the pooling on a residual skip, which has no weights).

    `kernel`: weights an input channel reaches an output voxel through; for a transposed convolution with kernel = stride that is one
    of its `kernel` positions, hence `taps`. `norm`: an instance norm stands behind it; `norm_before`: one stands before it.
    """

    name: str
    inputs: int
    outputs: int
    kernel: int
    voxels: int
    taps: int
    bias: bool = True
    norm: bool = True
    weights: bool = True
    norm_before: bool = False

    @property
    def elements(self) -> int:
        """Numbers in its output for one sample."""
        return self.outputs * self.voxels

    @property
    def parameters(self) -> int:
        """Trainable numbers, the affine instance norm behind or before it included."""
        if not self.weights:
            return 0
        before = 2 * self.inputs if self.norm_before else 0
        return before + self.outputs * (self.inputs * self.kernel + (1 if self.bias else 0) + (2 if self.norm else 0))

    @property
    def multiply_adds(self) -> int:
        """Multiplications (each with an addition) for one sample."""
        return self.inputs * self.taps * self.elements if self.weights else 0


def layers(network: Network, patch_size: Sequence[int], in_channels: int, out_channels: int) -> Iterator[Layer]:
    """Every convolution of a network in order of computation; heads are named "head 0" (full resolution) and up."""
    sizes = _stage_sizes(network, patch_size)
    if isinstance(network, SegResNetSpec):
        yield from _segresnet(network, sizes, in_channels, out_channels)
        return
    if isinstance(network, UNetSpec):
        yield from _plain_encoder(network, sizes, in_channels)
    else:
        yield from _residual_encoder(network, sizes, in_channels)
    yield from _decoder(network, sizes, out_channels)


def element_count(network: Network, patch_size: Sequence[int], in_channels: int, out_channels: int, *, heads: bool = False) -> int:
    """Numbers in the outputs of all convolutions for one sample: what planning takes as the measure of memory.

    Norms and activations are not counted, nor the deep-supervision heads below full resolution unless `heads`.

    Args:
        network: its architecture.
        patch_size: voxels, network order.
        in_channels: image channels (convolutions' inputs are not counted, so it changes nothing for a plain network).
        out_channels: classes, background included.
        heads: count the heads of all decoder levels.

    Source: nnU-Net's estimate; its published totals for residual encoders (558319104, 129793792) include all heads.
    """
    return sum(
        layer.elements
        for layer in layers(network, patch_size, in_channels, out_channels)
        if heads or not layer.name.startswith("head") or layer.name == "head 0"
    )


def parameter_count(network: Network, in_channels: int, out_channels: int) -> int:
    """Trainable numbers of a network, heads at every decoder level included (they are always built)."""
    smallest = [math.prod(stride[axis] for stride in network.strides) for axis in range(len(network.strides[0]))]
    return sum(layer.parameters for layer in layers(network, smallest, in_channels, out_channels))


TRAINING_MAPS = 3
"""Copies of a convolution's output that a training step holds at once, rounded up. Two last until the backward pass: the output, for the
norm behind it, and what norm and activation make of it, for the next convolution. With the gradients on their way, 2.3 to 2.6 were
measured in float32 (plain, residual, SegResNet)."""


def training_bytes(
    network: Network,
    patch_size: Sequence[int],
    in_channels: int,
    out_channels: int,
    *,
    samples: int,
    value_bytes: int = 4,
    weight_copies: int = 4,
) -> int:
    """Estimate of the memory that one training step takes.

    Args:
        samples: how many are computed at once.
        value_bytes: of a number in a feature map, 2 in mixed precision.
        weight_copies: float32 numbers kept for each weight: itself, its gradient, the optimiser's memory, and what else lasts.
    """
    elements = element_count(network, patch_size, in_channels, out_channels)
    weights = parameter_count(network, in_channels, out_channels)
    return TRAINING_MAPS * value_bytes * elements * samples + 4 * weight_copies * weights


def multiply_adds(network: Network, patch_size: Sequence[int], in_channels: int, out_channels: int) -> int:
    """Multiply-adds of one forward pass of one sample, without deep supervision; a training step costs about three times that."""
    return sum(
        layer.multiply_adds
        for layer in layers(network, patch_size, in_channels, out_channels)
        if not layer.name.startswith("head") or layer.name == "head 0"
    )


def _stage_sizes(network: Network, patch_size: Sequence[int]) -> list[int]:
    size, sizes = list(patch_size), []
    for stride in network.strides:
        size = [math.ceil(length / step) for length, step in zip(size, stride, strict=True)]
        sizes.append(math.prod(size))
    return sizes


def _convolution(name: str, inputs: int, outputs: int, kernel: int, voxels: int, bias: bool = True, norm: bool = True) -> Layer:
    return Layer(name, inputs, outputs, kernel, voxels, taps=kernel, bias=bias, norm=norm)


def _plain_encoder(network: UNetSpec, sizes: Sequence[int], in_channels: int) -> Iterator[Layer]:
    channels = in_channels
    for stage, (features, kernel) in enumerate(zip(network.features, network.kernels, strict=True)):
        for index in range(network.convs_per_stage[stage]):
            yield _convolution(f"encoder {stage}.{index}", channels, features, math.prod(kernel), sizes[stage])
            channels = features


def _residual_encoder(network: ResidualUNetSpec, sizes: Sequence[int], in_channels: int) -> Iterator[Layer]:
    channels = network.features[0]
    yield _convolution("stem", in_channels, channels, math.prod(network.kernels[0]), sizes[0])
    for stage, (features, kernel) in enumerate(zip(network.features, network.kernels, strict=True)):
        taps = math.prod(kernel)
        strided = any(step != 1 for step in network.strides[stage])
        for block in range(network.blocks_per_stage[stage]):
            name = f"encoder {stage}.{block}"
            yield _convolution(f"{name} first", channels, features, taps, sizes[stage])
            yield _convolution(f"{name} second", features, features, taps, sizes[stage])
            if channels != features:
                yield _convolution(f"{name} skip", channels, features, 1, sizes[stage], bias=False)
            elif strided and block == 0:
                yield Layer(f"{name} skip", channels, features, 0, sizes[stage], taps=0, weights=False)
            channels = features


def _decoder(network: UNetSpec | ResidualUNetSpec, sizes: Sequence[int], out_channels: int) -> Iterator[Layer]:
    for level in reversed(range(len(sizes) - 1)):
        features, below = network.features[level], network.features[level + 1]
        up = math.prod(network.strides[level + 1])
        yield Layer(f"up {level}", below, features, up, sizes[level], taps=1, norm=False)
        channels = 2 * features
        for index in range(network.convs_per_decoder_stage[len(sizes) - 2 - level]):
            yield _convolution(f"decoder {level}.{index}", channels, features, math.prod(network.kernels[level]), sizes[level])
            channels = features
        yield _convolution(f"head {level}", features, out_channels, 1, sizes[level], norm=False)


def _segresnet(network: SegResNetSpec, sizes: Sequence[int], in_channels: int, out_channels: int) -> Iterator[Layer]:
    channels = in_channels
    for stage, (features, kernel) in enumerate(zip(network.features, network.kernels, strict=True)):
        yield _convolution(f"encoder {stage} entry", channels, features, math.prod(kernel), sizes[stage], bias=False, norm=False)
        yield from _pre_activation_blocks(f"encoder {stage}", network.blocks_per_stage[stage], features, math.prod(kernel), sizes[stage])
        channels = features
    for level in reversed(range(len(sizes) - 1)):
        features, below = network.features[level], network.features[level + 1]
        up, blocks = math.prod(network.strides[level + 1]), network.blocks_per_decoder_stage[len(sizes) - 2 - level]
        yield Layer(f"up {level}", below, features, up, sizes[level], taps=1, bias=False, norm=False)
        yield from _pre_activation_blocks(f"decoder {level}", blocks, features, math.prod(network.kernels[level]), sizes[level])
        yield Layer(f"head {level}", features, out_channels, 1, sizes[level], taps=1, norm=False, norm_before=True)


def _pre_activation_blocks(name: str, count: int, features: int, taps: int, voxels: int) -> Iterator[Layer]:
    for block in range(count):
        for part in ("first", "second"):
            yield Layer(f"{name}.{block} {part}", features, features, taps, voxels, taps, bias=False, norm=False, norm_before=True)
