"""Compiled where that is possible, with the same result and the same names; else as written, and the reason is told."""

import functools
import logging

import pytest
import ranks as program
import torch

from autoseg.networks.build import build_network
from autoseg.training.kernels import compiled_where_possible, cuda_kernels, why_eager
from autoseg.training.losses import segmentation_loss
from autoseg.training.state import TrainState
from autoseg.training.step import Step
from planners.plan import DiceCELoss, Training

CPU, GPU = torch.device("cpu"), torch.device("cuda")
WANTED = Training(compile=True)


def fresh():
    """(step, state) of a small network."""
    network = build_network(program.NETWORK, 1, 3, 2, seed=3)
    state = TrainState(network, torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9))
    return Step(segmentation_loss(DiceCELoss(), 1, program.LABELS), CPU), state


def blank():
    inputs, labels = program.batch(0, 2)
    return torch.zeros_like(inputs), torch.zeros_like(labels)


def weights_after_steps(step, state):
    for number in range(3):
        step(state, *program.batch(number, 2))
    return state.model.state_dict()


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # raised inside torch while it traces
def test_a_compiled_network_learns_the_same_under_the_same_names():
    step, state = fresh()
    before = {name: value.clone() for name, value in state.model.state_dict().items()}
    random = torch.get_rng_state()
    compiled, execution = compiled_where_possible(step, state, WANTED, blank, functools.partial(torch.compile, backend="eager"))
    assert (execution, compiled.call is step.call) == ("compiled", False)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in state.model.state_dict().items())
    assert not state.optimiser.state
    found, expected = weights_after_steps(compiled, state), weights_after_steps(*fresh())
    assert list(found) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "at the first call"])
def test_a_compiler_that_fails_leaves_all_as_it_was(at_once, caplog):
    def compiler(function, **_):
        if at_once:
            raise RuntimeError("no C++ compiler here\nand much else")

        def call(model, inputs):
            raise NotImplementedError

        return call

    caplog.set_level(logging.INFO, "autoseg")
    step, state = fresh()
    found, execution = compiled_where_possible(step, state, WANTED, blank, compiler)
    reason = "no C++ compiler here" if at_once else "NotImplementedError"
    assert found is step
    assert execution == f"eager: {reason}"
    assert caplog.text.count(f"the network is not compiled, which changes nothing but the speed: {reason}\n") == 1
    found, expected = weights_after_steps(step, state), weights_after_steps(*fresh())
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def test_a_compiled_step_without_room_is_not_taken():
    def compiler(function, **_):
        def call(model, inputs):
            raise torch.OutOfMemoryError("CUDA out of memory")

        return call

    step, state = fresh()
    assert compiled_where_possible(step, state, WANTED, blank, compiler) == (step, "eager: the compiled step does not fit into the memory")


@pytest.mark.parametrize(
    ("settings", "device", "platform", "capability", "reason"),
    [
        ({}, CPU, "linux", None, "for CUDA only"),
        ({}, GPU, "linux", (9, 0), ""),
        ({}, GPU, "win32", (9, 0), "Windows"),
        ({}, GPU, "linux", (6, 1), "older than CUDA capability 7.0"),
        ({"compile": False}, GPU, "linux", (9, 0), "is false"),
        ({"compile": True}, CPU, "win32", None, ""),
        ({"compile": True, "deterministic": True}, GPU, "linux", (9, 0), "by timing"),
    ],
)
def test_when_to_compile(settings, device, platform, capability, reason, monkeypatch):
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _: capability)
    found = why_eager(Training(**settings), device, platform=platform)
    assert reason in found
    assert bool(reason) == bool(found)


@pytest.mark.parametrize(("choice", "deterministic"), [("fastest", False), ("deterministic", True)])
def test_cuda_kernels_are_chosen_and_given_back(choice, deterministic, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)

    def flags():
        return torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark

    before = flags()
    with cuda_kernels(choice, GPU):
        assert flags() == (deterministic, not deterministic)
    assert flags() == before
    with cuda_kernels(choice, CPU):
        assert flags() == before
