from __future__ import annotations

import pytest

from planners.memory import TRAINING_MAPS, element_count, layers, multiply_adds, parameter_count, training_bytes
from planners.plan import ResidualUNetSpec, SegResNetSpec, UNetSpec
from planners.presets import PRESETS


def _uniform(kind, dimension, features, encoder, decoder):
    stages = len(features)
    blocks = {"convs_per_stage": encoder} if kind is UNetSpec else {"blocks_per_stage": encoder}
    return kind(
        features=features,
        strides=((1,) * dimension, *[(2,) * dimension] * (stages - 1)),
        kernels=((3,) * dimension,) * stages,
        convs_per_decoder_stage=(decoder,) * (stages - 1),
        **blocks,
    )


RESIDUAL_3D = _uniform(ResidualUNetSpec, 3, (32, 64, 128, 256, 320, 320), (1, 3, 4, 6, 6, 6), 1)
RESIDUAL_2D = _uniform(ResidualUNetSpec, 2, (32, 64, 128, 256, 512, 512, 512), (1, 3, 4, 6, 6, 6, 6), 1)
PLAIN_3D = UNetSpec(
    features=(32, 64, 128, 256, 320, 320),
    strides=((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2)),
    kernels=((1, 3, 3), *[(3, 3, 3)] * 5),
    convs_per_stage=(2,) * 6,
    convs_per_decoder_stage=(2,) * 5,
)
TINY = UNetSpec(features=(2, 3), strides=((1, 1), (2, 2)), kernels=((3, 3), (3, 3)), convs_per_stage=(2, 1), convs_per_decoder_stage=(1,))
TINY_RESIDUAL = ResidualUNetSpec(
    features=(2, 2), strides=((1, 1), (2, 2)), kernels=((3, 3), (3, 3)), blocks_per_stage=(1, 2), convs_per_decoder_stage=(1,)
)


@pytest.mark.parametrize(("network", "patch", "published"), [(RESIDUAL_3D, (128,) * 3, 558319104), (RESIDUAL_2D, (512,) * 2, 129793792)])
def test_published_totals_with_all_heads(network, patch, published):
    assert element_count(network, patch, 1, 3, heads=True) == published
    below = sum(3 * (patch[0] >> level) ** len(patch) for level in range(1, len(network.features) - 1))
    assert element_count(network, patch, 1, 3) == published - below


def test_a_plain_network_by_hand():
    """8x8: two convolutions to 2 channels, one to 3 on 4x4, one up to 2 on 8x8, one to 2, the head to 4."""
    assert element_count(TINY, (8, 8), 5, 4) == 64 * (2 + 2) + 16 * 3 + 64 * 2 + 64 * 2 + 64 * 4


def test_a_residual_network_by_hand():
    """The skip of the strided block counts though it only pools; the same block without stride has none."""
    skip = 16 * 2
    assert element_count(TINY_RESIDUAL, (8, 8), 5, 4) == 64 * 2 * 3 + 16 * 2 * 4 + skip + 64 * 2 + 64 * 2 + 64 * 4
    assert next(layer for layer in layers(TINY_RESIDUAL, (8, 8), 5, 4) if layer.name == "encoder 1.0 skip").parameters == 0


@pytest.mark.parametrize(
    ("network", "channels", "classes", "expected"),
    # Counted on dynamic_network_architectures' own networks.
    [(RESIDUAL_3D, 1, 3, 102350575), (RESIDUAL_2D, 1, 3, 105918322), (PLAIN_3D, 2, 4, 30705396)],
)
def test_parameters_equal_the_peers(network, channels, classes, expected):
    assert parameter_count(network, channels, classes) == expected


def test_parameters_by_hand():
    first, second, bottom = 5 * 2 * 9 + 2 + 4, 2 * 2 * 9 + 2 + 4, 2 * 3 * 9 + 3 + 6
    up, decoder, head = 3 * 2 * 4 + 2, 4 * 2 * 9 + 2 + 4, 2 * 4 + 4
    assert parameter_count(TINY, 5, 4) == first + second + bottom + up + decoder + head


def test_multiply_adds_by_hand_and_as_measured():
    by_hand = 64 * 9 * (5 * 2 + 2 * 2) + 16 * 9 * 2 * 3 + 64 * 3 * 2 + 64 * 9 * 4 * 2 + 64 * 2 * 4
    assert multiply_adds(TINY, (8, 8), 5, 4) == by_hand
    # 1052 GFLOP a 64x192x160 tile of the plain network, two operations a multiply-add, counted by torch.
    assert 2e-9 * multiply_adds(PLAIN_3D, (64, 192, 160), 2, 3) == pytest.approx(1052, rel=0.005)


# Myronenko's network (arXiv 1810.11654): 32 features, blocks 1, 2, 2, 4 down and one a level up.
SEGRESNET = SegResNetSpec(
    features=(32, 64, 128, 256),
    strides=((1, 1, 1), *[(2, 2, 2)] * 3),
    kernels=((3, 3, 3),) * 4,
    blocks_per_stage=(1, 2, 2, 4),
    blocks_per_decoder_stage=(1, 1, 1),
)


@pytest.mark.parametrize(("features", "published"), [(32, 18.8e6), (16, 4.7e6)])
def test_a_segresnet_has_the_published_parameters(features, published):
    """Published for one input channel and two classes; there 1x1x1 convolutions stand where here transposed ones of 8 taps do, and no
    heads but the finest."""
    network = SEGRESNET.model_copy(update={"features": tuple(features << stage for stage in range(4))})
    counted = sum(
        layer.parameters // layer.kernel if layer.name.startswith("up") else layer.parameters
        for layer in layers(network, (8, 8, 8), 1, 2)
        if layer.name not in {"head 1", "head 2"}
    )
    assert counted == pytest.approx(published, rel=0.003)


def test_a_segresnet_by_hand():
    """8x8: entry to 2 channels and a block of two; entry to 4 on 4x4 and two blocks; up to 2, a block; the head to 3."""
    network = SegResNetSpec(
        features=(2, 4),
        strides=((1, 1), (2, 2)),
        kernels=((3, 3), (3, 3)),
        blocks_per_stage=(1, 2),
        blocks_per_decoder_stage=(1,),
    )
    assert element_count(network, (8, 8), 5, 3) == 64 * 2 * 3 + 16 * 4 * 5 + 64 * 2 * 3 + 64 * 3
    block, wide = 2 * (2 * 2 * 9 + 2 * 2), 2 * (4 * 4 * 9 + 2 * 4)
    assert parameter_count(network, 5, 3) == 5 * 2 * 9 + block + 2 * 4 * 9 + 2 * wide + 4 * 2 * 4 + block + (2 * 3 + 3 + 2 * 2)


def test_training_memory_by_hand():
    """Three maps of two bytes for each of 3 samples' elements, and four numbers of four bytes for each weight."""
    elements, weights = element_count(TINY, (8, 8), 5, 4), parameter_count(TINY, 5, 4)
    found = training_bytes(TINY, (8, 8), 5, 4, samples=3, value_bytes=2, weight_copies=4)
    assert found == 3 * 2 * 3 * elements + 4 * 4 * weights


def test_published_memory_is_of_the_estimated_size():
    """Of the bounds that presets allow; measured on an A100 in mixed precision ("nnU-Net Revisited", MICCAI 2024)."""
    for name, published in (("default", 7.7), ("resenc-m", 9.1), ("resenc-l", 22.7), ("resenc-xl", 36.6)):
        size = PRESETS[name].three
        activations = TRAINING_MAPS * 2 * size.elements * size.batch_reference / 1e9
        assert activations == pytest.approx(published, rel=0.25)
