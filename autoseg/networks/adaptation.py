"""A trained network's weights for a network of the same build with other image channels or other classes.

Everything between the first convolution (the stem) and the 1x1 convolutions that make logits (the heads) must agree in name and shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from autoseg.networks.build import NETWORKS
from planners.plan import Network


@dataclass(frozen=True)
class Ends:
    """What goes into a network and what comes out of it.

    Attributes:
        inputs: name of each input channel.
        outputs: name of each output.
        activation: what its outputs are made for: "softmax", "sigmoid" or "none" (images). Outputs of different kinds share nothing.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    activation: str


@dataclass(frozen=True)
class OuterLayers:
    """Names of the weights whose shape depends on the number of input channels (`stem`) or of outputs (`heads`)."""

    stem: frozenset[str]
    heads: frozenset[str]


def outer_layers(spec: Network) -> OuterLayers:
    """Stem and heads of a plan's network, found by building it (without memory) with one channel or output more."""

    def shapes(channels: int, outputs: int) -> dict[str, tuple[int, ...]]:
        with torch.device("meta"):
            return {name: tuple(weight.shape) for name, weight in NETWORKS[spec.kind](spec, channels, outputs).state_dict().items()}

    one, wider, richer = shapes(1, 1), shapes(2, 1), shapes(1, 2)
    return OuterLayers(
        frozenset(name for name in one if one[name] != wider[name]), frozenset(name for name in one if one[name] != richer[name])
    )


def misfits(weights: Mapping[str, Tensor], fresh: Mapping[str, Tensor], layers: OuterLayers) -> list[str]:
    """What keeps weights out of a network, one sentence a layer; [] where they fit.

    Args:
        weights: the trained network's.
        fresh: those of the network that they are for.
        layers: its stem and heads, whose channels or outputs may differ in number.
    """
    found = []
    for name, wanted in fresh.items():
        if name not in weights:
            found.append(f"{name} is missing")
        elif _inner_shape(name, weights[name], layers) != _inner_shape(name, wanted, layers):
            found.append(f"{name} has shape {_plain(weights[name])} where the plan's network has {_plain(wanted)}")
    return found + [f"{name} has no counterpart in the plan's network" for name in weights if name not in fresh]


def adapt(weights: Mapping[str, Tensor], fresh: Mapping[str, Tensor], layers: OuterLayers, source: Ends, target: Ends) -> dict[str, Tensor]:
    """The weights of a network that begins from trained ones; see `adapt_stem` and `adapt_head` for its ends.

    Args:
        weights, layers: as for `misfits`, which found nothing.
        fresh: the network's freshly drawn weights; what no trained weight is for stays.
        source, target: of the trained network and of the new one.
    """
    adapted = {}
    for name, own in fresh.items():
        taken = weights[name].to(own.dtype)
        if name in layers.stem:
            taken = adapt_stem(taken, source.inputs, target.inputs)
        elif name in layers.heads:
            taken = adapt_head(taken, own, source, target)
        adapted[name] = taken.clone()
    return adapted


def adapt_stem(weight: Tensor, source: Sequence[str], target: Sequence[str]) -> Tensor:
    """The first convolution's weight for other input channels.

    A channel whose name the trained network knows keeps its weights, wherever it stands. Any other gets the mean over the trained
    channels times (trained channels / channels): where no name is known, an image that is shown in all channels gives the same answer
    in both networks. Where no name is known and the number is the same, channels are taken by position.

    Args:
        weight: shape (features, trained channels, *kernel).
        source, target: names of the trained channels and of the new ones; capitals do not matter.

    Returns:
        Shape (features, channels, *kernel).
    """
    known = {name.casefold(): index for index, name in enumerate(source)}
    places = [known.get(name.casefold()) for name in target]
    if len(source) == len(target) and not any(place is not None for place in places):
        return weight
    unknown = weight.mean(dim=1) * (len(source) / len(target))
    return torch.stack([unknown if place is None else weight[:, place] for place in places], dim=1)


def adapt_head(weight: Tensor, fresh: Tensor, source: Ends, target: Ends) -> Tensor:
    """A head's weight or bias for other classes: a class whose name the trained network knows keeps its own, any other stays fresh.

    Args:
        weight, fresh: (trained outputs, ...) and (outputs, ...).
        source, target: between outputs of different activations nothing is taken.
    """
    if source.activation != target.activation:
        return fresh
    known = {name: index for index, name in enumerate(source.outputs)}
    return torch.stack([weight[known[name]] if name in known else fresh[index] for index, name in enumerate(target.outputs)])


def _inner_shape(name: str, weight: Tensor, layers: OuterLayers) -> tuple[int, ...]:
    """The shape without the axis that the ends decide."""
    shape = tuple(weight.shape)
    if name in layers.stem:
        return (*shape[:1], *shape[2:])
    return shape[1:] if name in layers.heads else shape


def _plain(weight: Tensor) -> str:
    return "x".join(map(str, weight.shape)) or "one number"
