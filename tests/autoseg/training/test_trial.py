"""Cutting a batch until a step fits, with devices that are made up; and that a trial leaves no trace in what is trained."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import TinyDataset
from torch import nn

from autoseg.errors import ResourceError
from autoseg.networks import build_network
from autoseg.networks.precision import choose_precision
from autoseg.planning.planning import plan
from autoseg.training.batches import SampleSource
from autoseg.training.segmentation import train
from autoseg.training.state import TrainState
from autoseg.training.step import Step
from autoseg.training.trial import CPU_SHARE, fit_into_memory, lack_of_memory, micro_batches, settle_accumulation, step_bytes, try_out
from planners.plan import Configuration, Plan, UNetSpec, ZScoreNormalisation

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("batch", "begun", "largest", "expected", "tried"),
    [
        (9, 1, 9, 1, [1]),
        (9, 1, 4, 4, [1, 2, 4]),
        (9, 1, 1, 9, [1, 2, 4, 8, 9]),
        (8, 1, 3, 4, [1, 2, 4]),
        (8, 3, 2, 6, [3, 6]),
        (2, 1, 0, None, [1, 2]),
        (1, 1, 0, None, [1]),
    ],
)
def test_parts_are_doubled_until_a_part_fits(batch, begun, largest, expected, tried):
    asked = []

    def fits(parts):
        asked.append(parts)
        return -(-batch // parts) <= largest

    assert micro_batches(batch, begun, fits) == expected
    assert asked == tried


class TestSettling:
    def settle(self, device, *, batch=8, begun=1, free=100e9, per_sample=10e9, trial=None):
        return settle_accumulation(
            batch, begun, device, estimate=lambda samples: int(samples * per_sample), trial=trial, free=lambda _: int(free)
        )

    def test_a_cpu_goes_by_the_estimate_and_tries_nothing(self, caplog):
        def trial(parts):
            raise AssertionError("a step on the CPU is never tried out")

        assert self.settle(CPU, trial=trial) == 1
        assert caplog.text == ""
        assert self.settle(CPU, free=45e9, trial=trial) == 2, "four samples are 40 GB, nine tenths of 45 are 40.5"
        assert (
            "a batch of 8 samples in 1 parts does not fit into the 45.0 GB that are free on cpu: it is computed in 2 parts" in caplog.text
        )
        assert self.settle(CPU, free=44e9, trial=trial) == 4

    def test_a_gpu_goes_by_the_trial_and_not_by_the_estimate(self):
        assert self.settle(GPU, free=1, trial=lambda parts: True) == 1
        assert self.settle(GPU, trial=lambda parts: parts >= 4) == 4

    def test_never_fewer_than_the_run_was_begun_with(self, caplog):
        assert self.settle(GPU, begun=4, trial=lambda parts: True) == 4
        assert self.settle(CPU, begun=4, free=900e9) == 4
        assert self.settle(CPU, begun=12) == 8
        assert caplog.records == []

    @pytest.mark.parametrize(("device", "remedy"), [(GPU, "--device cpu"), (CPU, "a machine with more memory")])
    def test_where_one_sample_is_too_much_the_remedies_are_named(self, device, remedy):
        with pytest.raises(ResourceError) as caught:
            self.settle(device, free=6.4e9, trial=lambda parts: False)
        for part in ("even with one sample at a time", "estimated at 10.0 GB", "6.4 GB are free", "--memory", "--preset", remedy):
            assert part in str(caught.value)


class Memory:
    """A loss on a device that has no room for more than `samples` at once."""

    def __init__(self, samples):
        self.samples, self.seen = samples, []

    def __call__(self, outputs, targets):
        self.seen.append(len(outputs))
        if len(outputs) > self.samples:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return nn.functional.mse_loss(outputs, targets)


def new_state(optimiser="sgd"):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8, momentum=0.5), nn.Dropout(0.5), nn.Linear(8, 1))
    if optimiser == "sgd":
        return TrainState(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True))
    return TrainState(model, torch.optim.AdamW(model.parameters(), lr=0.1))


def batch(number):
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(number))
    return x, x.sum(1, keepdim=True)


def trial_of(step, state):
    """As training makes it: a fresh batch, of which nothing is kept."""
    inputs, targets = torch.zeros(8, 3), torch.zeros(8, 1)
    return lambda parts: try_out(lambda: replace(step, accumulation=parts).gradient(state, inputs, targets), state, CPU, optimiser_copies=2)


def test_a_step_that_runs_out_of_memory_is_halved():
    loss = Memory(samples=3)
    state = new_state()
    step = Step(loss, CPU, couples_samples=False)
    assert settle_accumulation(8, 1, GPU, estimate=lambda samples: 0, trial=trial_of(step, state), free=lambda _: 0) == 4
    assert loss.seen == [8, 4, 2, 2, 2, 2]
    assert all(parameter.grad is None for parameter in state.model.parameters())


@pytest.mark.parametrize("couples_samples", [False, True])
def test_the_planned_batch_is_tried_on_the_device(couples_samples):
    """On a device without memory of its own: every size is the real one, and nothing is computed."""
    meta = torch.device("meta")
    network = UNetSpec(
        features=(4, 8), strides=((1, 1, 1), (2, 2, 2)), kernels=((3, 3, 3),) * 2, convs_per_stage=(1, 1), convs_per_decoder_stage=(1,)
    )
    spec = Configuration(
        dimension=3,
        spacing=(1, 1, 1),
        median_shape=(8, 8, 8),
        patch_size=(8, 8, 8),
        batch_size=6,
        normalisation=(ZScoreNormalisation(),) * 2,
        network=network,
    )
    model = build_network(network, 2, 3, 3).to(meta)
    state = TrainState(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    tried = []

    def loss(outputs, targets):
        tried.append((tuple(outputs[0].shape), tuple(targets.shape)))
        if len(outputs[0]) > 3 and not couples_samples:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return sum(output.float().mean() for output in outputs)

    step = Step(loss, meta, couples_samples=couples_samples, prepare=lambda inputs: inputs.to(meta))
    source = SampleSource(Path(), (), spec, seed=0, fold="0")
    found = fit_into_memory(step, state, spec, 2, 3, lambda: source.blank(2))
    whole, half = ((6, 3, 8, 8, 8), (6, 8, 8, 8)), ((3, 3, 8, 8, 8), (3, 8, 8, 8))
    assert (found.accumulation, tried) == ((1, [whole]) if couples_samples else (2, [whole, half, half]))
    assert replace(found, accumulation=1) == step


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    ],
)
def test_a_lack_of_memory_that_torchs_allocator_does_not_tell(said):
    def gradient():
        raise RuntimeError(said)

    assert not try_out(gradient, new_state(), CPU)
    with pytest.raises(ResourceError, match=r"cuda:0 has run out of memory.*same command goes on.*accumulation"), lack_of_memory(GPU):
        gradient()


def test_another_error_is_not_taken_for_a_lack_of_memory():
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        try_out(lambda: torch.ones(2, 3) @ torch.ones(2, 3), new_state(), CPU)
    with pytest.raises(RuntimeError, match="illegal memory access"), lack_of_memory(GPU):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    state = new_state()
    with pytest.raises(ZeroDivisionError):
        try_out(lambda: 1 // 0, state, CPU)


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
@pytest.mark.parametrize("before", [0, 2])
def test_a_trial_leaves_no_trace(optimiser, before, caplog):
    """Bit for bit the same weights, buffers, optimiser and random state, with dropout and batch statistics, at the start and later; one
    of two trials fails."""
    caplog.set_level(logging.WARNING)

    def train(tried):
        state, step = new_state(optimiser), Step(nn.functional.mse_loss, CPU)
        for number in range(5):
            if tried and number == before:
                state.model.eval()
                assert not trial_of(Step(Memory(0), CPU), state)(1)
                assert trial_of(step, state)(1)
                assert not state.model.training
            state.model.train()
            step(state, *batch(number))
        return state, torch.get_rng_state()

    (plain, random), (tried, random_after_trials) = train(tried=False), train(tried=True)
    assert torch.equal(random, random_after_trials)
    for found, expected in zip(tried.model.state_dict().values(), plain.model.state_dict().values(), strict=True):
        assert torch.equal(found, expected)
    memories = [[value for memory in state.optimiser.state.values() for value in memory.values()] for state in (plain, tried)]
    assert all(torch.equal(a, b) for a, b in zip(*memories, strict=True))


def test_a_fold_resumes_as_it_was_begun_and_less_room_is_told(tmp_path, monkeypatch, caplog):
    """A fold of real files, on a CPU with as much memory as a share of what the planned batch is estimated to take."""
    tiny = TinyDataset(tmp_path / "Tiny")
    plan(tiny.folder, preset="laptop", settings={"training.iterations": 1, "training.validation_iterations": 1}, workers=0)
    spec = Plan.from_json((tiny.work / "default" / "plan.json").read_text()).configuration("3d_fullres")
    monkeypatch.setattr("autoseg.training.segmentation.FoldRun.finish", lambda *_: None)
    needed = step_bytes(spec, 2, 2, choose_precision("cpu"), spec.batch_size)

    def parts(share, epochs):
        monkeypatch.setattr("autoseg.training.trial.available_memory", lambda: int(share * needed / CPU_SHARE) + 1)
        caplog.clear()
        train(tiny.folder, 0, epochs=epochs, device="cpu", workers=0)
        run = json.loads((tiny.work / "default" / "3d_fullres" / "cv5" / "fold_0" / "run.json").read_text())
        return run["accumulation"], "does not fit" in caplog.text

    with pytest.raises(ResourceError, match=r"even with one sample at a time.*--memory"):
        parts(0.01, 1)
    assert parts(1.0, 1) == (1, False)
    assert parts(0.9, 2) == (2, True)
    assert parts(1.0, 3) == (2, False), "with room again it goes on as it was"


def test_judging_computes_by_micro_batches_too():
    seen = []

    class Model(nn.Module):
        def forward(self, x):
            seen.append(len(x))
            return [x, 2 * x]

    x = torch.arange(5.0).view(5, 1)
    found = Step(nn.functional.mse_loss, CPU, accumulation=3).outputs(Model(), x)
    assert seen == [2, 2, 1]
    assert torch.equal(found[0], x)
    assert torch.equal(found[1], 2 * x)
