import pytest
import torch

from autoseg.networks import NETWORKS, build_network, initialise
from autoseg.networks.blocks import ResidualBlock
from autoseg.networks.norm import InstanceNorm
from planners import memory
from planners.plan import ResidualUNetSpec, SegResNetSpec, UNetSpec

KERNELS = ((1, 3, 3), (3, 3, 3), (3, 3, 3))
STRIDES = ((1, 1, 1), (1, 2, 2), (2, 2, 2))
PLAIN = UNetSpec(features=(4, 8, 8), strides=STRIDES, kernels=KERNELS, convs_per_stage=(2, 2, 2), convs_per_decoder_stage=(2, 2))
RESIDUAL = ResidualUNetSpec(
    features=(4, 8, 8), strides=STRIDES, kernels=KERNELS, blocks_per_stage=(1, 2, 2), convs_per_decoder_stage=(1, 1)
)
PLAIN_2D = UNetSpec(
    features=(4, 8), strides=((1, 1), (2, 2)), kernels=((3, 3), (3, 3)), convs_per_stage=(1, 2), convs_per_decoder_stage=(1,)
)
SEGRESNET = SegResNetSpec(features=(4, 8, 8), strides=STRIDES, kernels=KERNELS, blocks_per_stage=(1, 2, 2), blocks_per_decoder_stage=(1, 1))
SPECS = {"plain": PLAIN, "residual": RESIDUAL, "segresnet": SEGRESNET}
ENTRY = {
    "unet": "encoder.stages.0.0.conv.weight",
    "residual_unet": "encoder.stages.0.0.conv1.conv.weight",
    "segresnet": "encoder.stages.0.0.weight",
}


def _input(seed=0, shape=(2, 2, 4, 8, 12)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
class TestShapes:
    def test_training_gives_one_output_a_decoder_level_full_resolution_first(self, spec):
        outputs = build_network(spec, 2, 3, 3)(_input())
        assert [tuple(output.shape) for output in outputs] == [(2, 3, 4, 8, 12), (2, 3, 4, 4, 6)]

    def test_evaluation_gives_the_full_resolution_alone(self, spec):
        network = build_network(spec, 2, 3, 3)
        trained = network(_input())
        network.eval()
        computed = []
        for head in network.decoder.heads:
            head.register_forward_hook(lambda head, *_: computed.append(head))
        output = network(_input())
        assert torch.equal(output, trained[0])
        assert computed == [network.decoder.heads[-1]]

    def test_without_deep_supervision_training_gives_one_tensor(self, spec):
        network = build_network(spec.model_copy(update={"deep_supervision": False}), 2, 3, 3)
        assert tuple(network(_input()).shape) == (2, 3, 4, 8, 12)

    def test_stays_channels_last_throughout(self, spec):
        network = build_network(spec, 2, 3, 3)
        strays = []

        def note(module, _, output):
            if isinstance(output, torch.Tensor) and not output.is_contiguous(memory_format=torch.channels_last_3d):
                strays.append(module)

        for module in network.modules():
            module.register_forward_hook(note)
        network(_input())
        assert strays == []


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
class TestWeights:
    def test_same_seed_same_weights_and_the_global_random_state_stays(self, spec):
        before = torch.get_rng_state()
        first, second, other = (build_network(spec, 1, 2, 3, seed=seed).state_dict() for seed in (5, 5, 6))
        assert torch.equal(before, torch.get_rng_state())
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert not torch.equal(first[ENTRY[spec.kind]], other[ENTRY[spec.kind]])
        assert any(not torch.equal(first[name], other[name]) for name in first)

    def test_a_generator_is_drawn_from(self, spec):
        generator = torch.Generator().manual_seed(5)
        first, second = build_network(spec, 1, 2, 3, seed=generator).state_dict(), build_network(spec, 1, 2, 3, seed=5).state_dict()
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert not torch.equal(generator.get_state(), torch.Generator().manual_seed(5).get_state())

    def test_parameters_are_as_many_as_the_planner_counts(self, spec):
        network = build_network(spec, 2, 3, 3)
        assert sum(parameter.numel() for parameter in network.parameters()) == memory.parameter_count(spec, 2, 3)

    def test_convolution_outputs_are_as_many_as_the_planner_counts(self, spec):
        counted = []
        network = build_network(spec, 2, 3, 3)
        for module in network.modules():
            if isinstance(module, torch.nn.Conv3d | torch.nn.ConvTranspose3d):
                module.register_forward_hook(lambda _module, _inputs, output: counted.append(output.numel()))
        network(_input(shape=(1, 2, 4, 8, 12)))
        # on a residual skip that is pooled but not projected the planner counts the pooled values, as nnU-Net does
        pooled = 8 * 2 * 2 * 3 if spec is RESIDUAL else 0
        assert sum(counted) + pooled == memory.element_count(spec, (4, 8, 12), 2, 3, heads=True)

    def test_weights_are_contiguous_so_that_files_do_not_depend_on_the_layout(self, spec):
        network = build_network(spec, 2, 3, 3)
        network(_input())[0].sum().backward()
        assert all(tensor.is_contiguous() for tensor in network.state_dict().values())

    def test_nothing_is_left_uninitialised(self, spec, monkeypatch):
        network = build_network(spec, 2, 3, 3)
        for parameter in network.parameters():
            parameter.data.fill_(float("nan"))
        initialise(network, 0)
        expected = build_network(spec, 2, 3, 3, seed=0).state_dict()
        assert all(torch.equal(expected[name], tensor) for name, tensor in network.state_dict().items())


def test_starting_weights_are_he_normal_and_biases_zero():
    wide = PLAIN.model_copy(update={"features": (32, 64, 64)})
    network = build_network(wide, 1, 3, 3)
    convolution = network.encoder.stages[2][1].conv  # 64 inputs x 27 taps
    gain = (2 / (1 + 0.01**2)) ** 0.5
    assert convolution.weight.std().item() == pytest.approx(gain / (64 * 27) ** 0.5, rel=0.01)
    assert abs(convolution.weight.mean().item()) < 1e-3
    assert not convolution.bias.any()
    norms = [module for module in network.modules() if isinstance(module, InstanceNorm)]
    assert all((norm.weight == 1).all() and not norm.bias.any() for norm in norms)


def test_residual_blocks_start_as_their_shortcut():
    block = next(module for module in build_network(RESIDUAL, 2, 3, 3).modules() if isinstance(module, ResidualBlock))
    x = _input(shape=(1, 4, 4, 8, 8)).abs().contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(block(x), x)


def test_two_dimensional_network():
    network = build_network(PLAIN_2D, 1, 2, 2)
    assert [tuple(output.shape) for output in network(_input(shape=(2, 1, 8, 12)))] == [(2, 2, 8, 12)]


def test_one_channel_gives_the_same_as_the_contiguous_path():
    network = build_network(PLAIN_2D, 1, 2, 2).eval()
    x = _input(shape=(2, 1, 8, 12))
    expected = network.decoder(network.encoder(x.contiguous()), False)[0]
    torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_training_step_repeats_bit_for_bit(spec):
    grads = []
    for _ in range(2):
        network = build_network(spec, 2, 3, 3)
        sum(output.square().mean() for output in network(_input())).backward()
        grads.append([parameter.grad for parameter in network.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_autocast_to_bfloat16_gives_finite_gradients():
    network = build_network(RESIDUAL, 2, 3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = network(_input())
    sum(output.float().square().mean() for output in outputs).backward()
    assert outputs[0].dtype == torch.bfloat16
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


def test_refuses_a_spec_of_another_dimension():
    with pytest.raises(ValueError, match="needs strides and kernels of 2 entries"):
        build_network(PLAIN, 1, 2, 2)


def test_registry_covers_every_kind_in_the_schema():
    assert set(NETWORKS) == {spec.model_fields["kind"].default for spec in (UNetSpec, ResidualUNetSpec, SegResNetSpec)}


def test_refuses_an_unregistered_kind(monkeypatch):
    monkeypatch.delitem(NETWORKS, "unet")
    with pytest.raises(ValueError, match="no network is registered as 'unet'; known: residual_unet, segresnet"):
        build_network(PLAIN, 1, 2, 3)
