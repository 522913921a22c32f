"""From a plan's network to a module with its starting weights."""

from __future__ import annotations

import torch
from torch import nn

from planners.plan import Network

from .blocks import SLOPE, ResidualBlock
from .norm import InstanceNorm
from .segresnet import SegResNet
from .unet import ResidualUNet, UNet

NETWORKS: dict[str, type[nn.Module]] = {"unet": UNet, "residual_unet": ResidualUNet, "segresnet": SegResNet}
"""Kind of network in the plan -> the class that is built from its spec."""

_WEIGHTED = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def build_network(spec: Network, in_channels: int, out_channels: int, dimension: int, *, seed: int | torch.Generator = 0) -> nn.Module:
    """The network of a plan on the CPU, initialised; the same seed gives the same weights, and torch's global random state stays untouched.

    Args:
        spec: the plan's network.
        in_channels: image channels.
        out_channels: classes with the background.
        dimension: 2 or 3, the length of the spec's strides and kernels.
        seed: a number, or a generator to draw from.

    Returns:
        A module, see `unet`: logits, or in training mode with deep supervision a list of them, full resolution first.

    Raises:
        ValueError: a spec of another dimension, or of a kind that no network is registered for.
    """
    network = network_without_weights(spec, in_channels, out_channels, dimension)
    network.to_empty(device="cpu")
    initialise(network, seed)
    return network


def network_without_weights(spec: Network, in_channels: int, out_channels: int, dimension: int) -> nn.Module:
    """The network of a plan on the meta device: names and shapes, no memory and no random numbers; arguments and errors as `build_network`.

    `load_state_dict(weights, assign=True)` gives it weights, once their shapes were found to be its own.
    """
    if spec.kind not in NETWORKS:
        raise ValueError(f"no network is registered as {spec.kind!r}; known: {', '.join(NETWORKS)}")
    lengths = {len(entry) for entry in (*spec.strides, *spec.kernels)}
    if lengths != {dimension}:
        raise ValueError(f"the network needs strides and kernels of {dimension} entries, found {sorted(lengths)}")
    with torch.device("meta"):
        return NETWORKS[spec.kind](spec, in_channels, out_channels)


def initialise(network: nn.Module, seed: int | torch.Generator = 0) -> None:
    """Draws all weights afresh: He-normal convolutions for the LeakyReLU's slope with bias 0, norms the identity; the last norm of each
    residual block starts at 0, so that the block starts as its shortcut.

    Source: He et al., "Delving deep into rectifiers", ICCV 2015; Goyal et al., "Accurate, large minibatch SGD", arXiv 1706.02677.
    """
    generator = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, _WEIGHTED):
            nn.init.kaiming_normal_(module.weight, a=SLOPE, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, InstanceNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, ResidualBlock):
            nn.init.zeros_(module.conv2.norm.weight)
