"""SegResNet against what its papers say, and its blocks against stock layers."""

import pytest
import torch
import torch.nn.functional as F

from autoseg.networks import build_network
from autoseg.networks.segresnet import PreActivationBlock
from planners.plan import SegResNetSpec


def spec(features=2, blocks=(1, 2, 2, 4), strides=None, kernels=None):
    stages = len(blocks)
    return SegResNetSpec(
        features=tuple(features << stage for stage in range(stages)),
        strides=strides or ((1, 1, 1), *[(2, 2, 2)] * (stages - 1)),
        kernels=kernels or ((3, 3, 3),) * stages,
        blocks_per_stage=blocks,
        blocks_per_decoder_stage=(1,) * (stages - 1),
    )


def test_the_encoder_ends_an_eighth_as_large_with_eight_times_the_features():
    """The paper's table: 160x192x128 comes out of the encoder as 20x24x16 with 256 features, and 80x96x64 and 40x48x32 lie between."""
    network = build_network(spec(features=32), 4, 3, 3).to("meta")
    found = [tuple(level.shape[1:]) for level in network.encoder(torch.empty(1, 4, 160, 192, 128, device="meta"))]
    assert found == [(32, 160, 192, 128), (64, 80, 96, 64), (128, 40, 48, 32), (256, 20, 24, 16)]


def test_a_block_is_norm_relu_convolution_twice_around_an_identity():
    block = PreActivationBlock(3, (1, 3, 3))
    torch.manual_seed(0)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 3, 4, 6, 5)
    y = x
    for norm, convolution in ((block.norm1, block.conv1), (block.norm2, block.conv2)):
        y = F.relu(F.instance_norm(y, weight=norm.weight, bias=norm.bias))
        y = F.conv3d(y, convolution.weight, padding=(0, 1, 1))
    torch.testing.assert_close(block(x), x + y)


def test_the_encoder_is_added_to_the_decoder():
    """What comes from below is silenced: the decoder then sees the encoder's finest features alone."""
    network = build_network(spec(blocks=(1, 1)), 1, 2, 3).eval()
    decoder = network.decoder
    torch.nn.init.zeros_(decoder.upsamplings[0].weight)
    image = torch.randn(1, 1, 4, 8, 6, generator=torch.Generator().manual_seed(0))
    skip = network.encoder(image)[0]
    torch.testing.assert_close(network(image), decoder.heads[0](decoder.norms[0](decoder.stages[0](skip))))


def test_anisotropic_strides_and_kernels():
    flat = spec(blocks=(1, 1, 2), strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)), kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)))
    network = build_network(flat, 2, 3, 3)
    outputs = network(torch.randn(1, 2, 4, 8, 12, generator=torch.Generator().manual_seed(0)))
    assert [tuple(output.shape) for output in outputs] == [(1, 3, 4, 8, 12), (1, 3, 4, 4, 6)]


def test_two_dimensions_and_gradients_for_every_weight():
    flat = spec(blocks=(1, 1, 1), strides=((1, 1), (2, 2), (2, 2)), kernels=((3, 3),) * 3)
    network = build_network(flat, 1, 2, 2)
    outputs = network(torch.randn(2, 1, 16, 24, generator=torch.Generator().manual_seed(0)))
    sum(output.square().mean() for output in outputs).backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_a_convolution_carries_no_bias_that_a_norm_would_remove():
    names = [name for name, _ in build_network(spec(), 1, 2, 3).named_parameters() if name.endswith("bias")]
    assert all("norm" in name or "heads" in name for name in names)


def test_lists_of_another_length_are_refused():
    with pytest.raises(ValueError, match="4 stages needs lists of 4"):
        spec(strides=((1, 1, 1), (2, 2, 2)))
