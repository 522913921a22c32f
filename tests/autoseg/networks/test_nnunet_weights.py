import zlib

import pytest
import torch

from autoseg.errors import ModelError
from autoseg.networks import build_network, weight_map_from_nnunet
from planners.plan import ResidualUNetSpec, UNetSpec

LAYOUT = {"features": (4, 8, 8), "strides": ((1, 1, 1), (2, 2, 2), (2, 2, 2)), "kernels": ((3, 3, 3),) * 3}
PLAIN = UNetSpec(**LAYOUT, convs_per_stage=(2, 2, 2), convs_per_decoder_stage=(2, 2))
RESIDUAL = ResidualUNetSpec(**LAYOUT, blocks_per_stage=(1, 2, 2), convs_per_decoder_stage=(1, 1))


def _layer(name, *, bias=True):
    """The names under which nnU-Net 2.8.1 stores one convolution with its norm, as printed by its own state dict."""
    convolution = ("weight", "bias") if bias else ("weight",)
    parts = [(part, kind) for part, kinds in (("conv", convolution), ("norm", ("weight", "bias"))) for kind in kinds]
    alias = {"conv": "all_modules.0", "norm": "all_modules.1"}
    return [f"{name}.{part}.{kind}" for part, kind in parts] + [f"{name}.{alias[part]}.{kind}" for part, kind in parts]


def _state(encoder, decoder_convs):
    names = encoder + [f"decoder.{name}" for name in encoder]
    for level in range(2):
        for index in range(decoder_convs):
            names += _layer(f"decoder.stages.{level}.convs.{index}")
        names += [f"decoder.{part}.{level}.{kind}" for part in ("transpconvs", "seg_layers") for kind in ("weight", "bias")]
    return {name: torch.tensor(float(number)) for number, name in enumerate(names)}


def _plain_state():
    return _state([name for stage in range(3) for index in range(2) for name in _layer(f"encoder.stages.{stage}.0.convs.{index}")], 2)


def _residual_state():
    names = _layer("encoder.stem.convs.0")
    for stage, blocks in enumerate((1, 2, 2)):
        for block in range(blocks):
            names += _layer(f"encoder.stages.{stage}.blocks.{block}.conv1") + _layer(f"encoder.stages.{stage}.blocks.{block}.conv2")
    names += _layer("encoder.stages.1.blocks.0.skip.1", bias=False)  # stage 2 keeps its 8 channels: pooled, not projected
    return _state(names, 1)


@pytest.mark.parametrize(("spec", "state"), [(PLAIN, _plain_state()), (RESIDUAL, _residual_state())], ids=["plain", "residual"])
def test_names_are_exactly_those_of_our_network(spec, state):
    assert weight_map_from_nnunet(state).keys() == build_network(spec, 1, 2, 3).state_dict().keys()


def test_tensors_go_to_the_layer_of_the_same_place():
    state = _residual_state()
    mapped = weight_map_from_nnunet(state)
    pairs = {
        "encoder.stem.convs.0.norm.bias": "encoder.stem.norm.bias",
        "encoder.stages.2.blocks.1.conv2.conv.weight": "encoder.stages.2.1.conv2.conv.weight",
        "encoder.stages.1.blocks.0.skip.1.norm.weight": "encoder.stages.1.0.skip.norm.weight",
        "decoder.transpconvs.1.bias": "decoder.upsamplings.1.bias",
        "decoder.seg_layers.0.weight": "decoder.heads.0.weight",
    }
    assert all(mapped[ours] is state[theirs] for theirs, ours in pairs.items())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_wrappers_of_parallel_training_and_compilation_are_peeled_off(prefix):
    wrapped = {prefix + name: tensor for name, tensor in _plain_state().items()}
    assert weight_map_from_nnunet(wrapped).keys() == weight_map_from_nnunet(_plain_state()).keys()


def test_an_unknown_weight_is_named():
    with pytest.raises(ModelError, match="encoder.attention.weight"):
        weight_map_from_nnunet({**_plain_state(), "encoder.attention.weight": torch.zeros(1)})


def _wave(shape, phase):
    return torch.sin(torch.arange(shape.numel(), dtype=torch.float64) * 0.7 + phase).reshape(shape)


# One voxel's logits and the mean absolute logit at each level, printed by dynamic_network_architectures 0.4.4 (nnunetv2 2.8.1) in float64
PEER_LOGITS = {
    "unet": [((-0.030013, 1.532545, -0.617311), 1.325376), ((-1.929763, 3.175506, 6.83866), 1.716017)],
    "residual_unet": [((0.182825, 0.534324, 1.050944), 1.229132), ((1.594158, 0.140363, -1.393165), 0.392792)],
}


@pytest.mark.parametrize("spec", [PLAIN, RESIDUAL], ids=["plain", "residual"])
def test_same_weights_give_the_peers_logits(spec):
    anisotropic = spec.model_copy(update={"kernels": ((1, 3, 3), (3, 3, 3), (3, 3, 3)), "strides": ((1, 1, 1), (1, 2, 2), (2, 2, 2))})
    network = build_network(anisotropic, 2, 3, 3).double()
    for name, parameter in network.named_parameters():
        parameter.data = _wave(parameter.shape, zlib.crc32(name.encode()) % 1000)
    outputs = network(_wave(torch.Size((2, 2, 4, 8, 12)), 0.5))
    for output, (voxel, mean) in zip(outputs, PEER_LOGITS[spec.kind], strict=True):
        assert output[1, :, 1, 2, 3].tolist() == pytest.approx(voxel, abs=1e-5)
        assert output.abs().mean().item() == pytest.approx(mean, abs=1e-5)
