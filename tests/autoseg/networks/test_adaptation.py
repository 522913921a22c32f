"""Stem and head for other channels and classes, against values worked out by hand."""

import pytest
import torch

from autoseg.networks.adaptation import Ends, OuterLayers, adapt, adapt_head, adapt_stem, misfits, outer_layers
from autoseg.networks.build import build_network
from planners.plan import ResidualUNetSpec, SegResNetSpec, UNetSpec

SHAPE = {"features": (4, 8), "strides": ((1, 1, 1), (2, 2, 2)), "kernels": ((3, 3, 3), (3, 3, 3))}
SPECS = {
    "unet": UNetSpec(**SHAPE, convs_per_stage=(1, 1), convs_per_decoder_stage=(1,)),
    "residual_unet": ResidualUNetSpec(**SHAPE, blocks_per_stage=(1, 1), convs_per_decoder_stage=(1,)),
    "segresnet": SegResNetSpec(**SHAPE, blocks_per_stage=(1, 1), blocks_per_decoder_stage=(1,)),
}
STEMS = {
    "unet": {"encoder.stages.0.0.conv.weight"},
    "residual_unet": {"encoder.stem.conv.weight"},
    "segresnet": {"encoder.stages.0.0.weight"},
}


def stem(*channels):
    """A stem of one feature and a kernel of one voxel: one number a channel."""
    return torch.tensor(channels, dtype=torch.float32).reshape(1, -1, 1, 1, 1)


@pytest.mark.parametrize(
    ("weight", "source", "target", "expected"),
    [
        (stem(2, 6), ("CT", "PET"), ("CT", "PET"), [2, 6]),
        (stem(2, 6), ("CT", "PET"), ("pet", "CT"), [6, 2]),
        (stem(2, 6), ("CT", "PET"), ("PET",), [6]),
        (stem(6), ("CT",), ("CT", "PET"), [6, 3]),  # mean 6 x 1/2
        (stem(6), ("CT",), ("T1",), [6]),
        (stem(2, 6), ("CT", "PET"), ("T1", "T2"), [2, 6]),  # nothing known, as many: by position
        (stem(2, 6), ("CT", "PET"), ("CT", "T2"), [2, 4]),  # mean 4 x 2/2
        (stem(2, 6), ("CT", "PET"), ("T1",), [8]),  # mean 4 x 2/1
        (stem(6), ("CT",), ("T1", "T2", "T3"), [2, 2, 2]),
    ],
)
def test_stem(weight, source, target, expected):
    assert adapt_stem(weight, source, target).flatten().tolist() == expected


def test_stem_of_unknown_channels_answers_an_image_in_all_of_them_alike():
    weight = torch.randn(4, 2, 3, 3, 3)
    image = torch.randn(1, 1, 5, 5, 5)
    before = torch.nn.functional.conv3d(image.expand(-1, 2, -1, -1, -1), weight)
    after = torch.nn.functional.conv3d(image.expand(-1, 3, -1, -1, -1), adapt_stem(weight, ("a", "b"), ("c", "d", "e")))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


def test_head_keeps_the_classes_that_it_knows():
    trained, fresh = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([-1.0, -2.0, -3.0])
    source = Ends(("CT",), ("background", "liver", "tumour"), "softmax")
    assert adapt_head(trained, fresh, source, Ends(("CT",), ("background", "tumour", "cyst"), "softmax")).tolist() == [1, 3, -3]
    assert adapt_head(trained, fresh, source, Ends(("CT",), ("background", "liver", "tumour"), "sigmoid")).tolist() == [-1, -2, -3]


@pytest.mark.parametrize("kind", SPECS)
def test_only_the_ends_are_adapted(kind):
    layers = outer_layers(SPECS[kind])
    assert layers.stem == STEMS[kind]
    assert layers.heads == {"decoder.heads.0.weight", "decoder.heads.0.bias"}
    source, target = Ends(("CT",), ("background", "a"), "softmax"), Ends(("CT", "PET"), ("background", "b", "a"), "softmax")
    trained = build_network(SPECS[kind], 1, 2, 3, seed=1)
    network = build_network(SPECS[kind], 2, 3, 3, seed=2)
    drawn = {name: weight.clone() for name, weight in network.state_dict().items()}
    assert misfits(trained.state_dict(), drawn, layers) == []
    network.load_state_dict(adapt(trained.state_dict(), drawn, layers, source, target))
    for name, weight in trained.state_dict().items():
        if name not in layers.stem | layers.heads:
            assert torch.equal(network.state_dict()[name], weight), name
    head = network.state_dict()["decoder.heads.0.weight"]
    assert torch.equal(head[0], trained.state_dict()["decoder.heads.0.weight"][0])
    assert torch.equal(head[1], drawn["decoder.heads.0.weight"][1])
    assert torch.equal(head[2], trained.state_dict()["decoder.heads.0.weight"][1])


def test_misfits_name_layers():
    layers = OuterLayers(frozenset({"stem"}), frozenset({"head"}))
    fresh = {"stem": torch.zeros(4, 2, 3), "body": torch.zeros(4, 4), "more": torch.zeros(1), "head": torch.zeros(3, 4)}
    weights = {"stem": torch.zeros(4, 9, 3), "body": torch.zeros(8, 4), "head": torch.zeros(7, 4), "extra": torch.zeros(1)}
    assert misfits(weights, fresh, layers) == [
        "body has shape 8x4 where the plan's network has 4x4",
        "more is missing",
        "extra has no counterpart in the plan's network",
    ]
    assert misfits({**fresh, "stem": torch.zeros(5, 2, 3)}, fresh, layers) == ["stem has shape 5x2x3 where the plan's network has 4x2x3"]
