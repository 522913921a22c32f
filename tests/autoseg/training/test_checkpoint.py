"""Old or new checkpoint, never neither: whatever fails while saving, and whatever is damaged afterwards."""

import json
import os
import re

import pytest
import torch
from torch import nn

from autoseg.errors import AutosegError, CheckpointError
from autoseg.training import checkpoint
from autoseg.training.state import Progress, TrainState


def state_at(epoch, iteration=0, value=None):
    torch.manual_seed(0)
    model = nn.Conv3d(2, 3, 3).to(memory_format=torch.channels_last_3d)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
    model(torch.randn(1, 2, 4, 4, 4)).sum().backward()
    optimiser.step()
    if value is not None:
        nn.init.constant_(model.weight, value)
    return TrainState(model, optimiser, progress=Progress(epoch, iteration))


def momentum(state):
    return [state.optimiser.state[p]["momentum_buffer"] for p in state.model.parameters()]


def test_round_trip_of_weights_momentum_and_progress(tmp_path):
    saved = state_at(3)
    checkpoint.save(tmp_path, saved)
    loaded = state_at(0, value=7.0)
    assert checkpoint.load(tmp_path, loaded)
    assert loaded.progress == Progress(epoch=3)
    assert all(torch.equal(a, b) for a, b in zip(saved.model.parameters(), loaded.model.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(momentum(saved), momentum(loaded), strict=True))
    assert loaded.model.weight.is_contiguous(memory_format=torch.channels_last_3d)


def test_nothing_there():
    assert not checkpoint.load(__import__("pathlib").Path("/nonexistent"), state_at(0))


def test_same_state_gives_the_same_bytes_and_neither_clock_nor_host(tmp_path):
    first, second = tmp_path / "1", tmp_path / "2"
    first.mkdir(), second.mkdir()
    a, b = checkpoint.save(first, state_at(2)).read_bytes(), checkpoint.save(second, state_at(2)).read_bytes()
    assert a == b
    header = a[8 : 8 + int.from_bytes(a[:8], "little")].decode()
    assert os.uname().nodename not in header
    assert not re.search(r"20\d\d-\d\d", header)


def test_two_are_kept_and_the_furthest_is_loaded(tmp_path):
    for epoch in (1, 2, 3):
        checkpoint.save(tmp_path, state_at(epoch, value=epoch))
    assert len(list(tmp_path.iterdir())) == 2
    state = state_at(0)
    checkpoint.load(tmp_path, state)
    assert (state.progress.epoch, state.model.weight.mean().item()) == (3, 3)


def test_in_mid_epoch_the_older_one_is_replaced(tmp_path):
    for epoch, iteration in ((1, 0), (2, 0), (2, 5), (2, 9)):
        checkpoint.save(tmp_path, state_at(epoch, iteration))
        state = state_at(0)
        checkpoint.load(tmp_path, state)
        assert state.progress == Progress(epoch, iteration)


@pytest.mark.parametrize("damage", ["cut", "flip header", "flip tensor", "empty", "text"])
def test_a_damaged_newest_one_falls_back_to_the_one_before_and_says_so(tmp_path, caplog, damage):
    checkpoint.save(tmp_path, state_at(1))
    newest = checkpoint.save(tmp_path, state_at(2))
    data = bytearray(newest.read_bytes())
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "flip header":
        data[40] ^= 1
    elif damage == "flip tensor":
        data[-5] ^= 1
    else:
        data = b"" if damage == "empty" else b"not a checkpoint"
    newest.write_bytes(bytes(data))
    state = state_at(0)
    assert checkpoint.load(tmp_path, state)
    assert state.progress.epoch == 1
    assert newest.name in caplog.text
    assert "Falling back" in caplog.text


def test_both_damaged_is_an_error_that_names_both(tmp_path):
    for epoch in (1, 2):
        checkpoint.save(tmp_path, state_at(epoch)).write_bytes(b"x")
    with pytest.raises(CheckpointError, match="checkpoint-a.*checkpoint-b.*--restart"):
        checkpoint.load(tmp_path, state_at(0))


def test_another_network_is_refused(tmp_path):
    checkpoint.save(tmp_path, state_at(1))
    model = nn.Conv3d(2, 4, 3)
    with pytest.raises(CheckpointError, match="does not fit the plan's network"):
        checkpoint.load(tmp_path, TrainState(model, torch.optim.SGD(model.parameters(), lr=0.1)))


def test_a_pickle_is_never_read(tmp_path):
    torch.save({"weights": 1}, tmp_path / checkpoint.NAMES[0])
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        checkpoint.load(tmp_path, state_at(0))


class FailingCall:
    """A function whose `nth` call fails as on a full disk."""

    def __init__(self, function, nth):
        self.function, self.nth, self.seen = function, nth, 0

    def __call__(self, *arguments, **keywords):
        self.seen += 1
        if self.seen == self.nth:
            raise OSError(28, "No space left on device")
        return self.function(*arguments, **keywords)


CALLS = ("open", "write", "fsync", "replace")


@pytest.mark.parametrize("mid_epoch", [False, True])
@pytest.mark.parametrize("call", CALLS)
def test_failure_of_every_nth_call_inside_a_save_leaves_the_old_or_the_new(tmp_path, monkeypatch, call, mid_epoch):
    """Fails the first, second, third ... open, write, fsync and rename in turn, until a save passes."""
    checkpoint.save(tmp_path, state_at(1, value=1.0))
    checkpoint.save(tmp_path, state_at(2, value=2.0))
    original = getattr(os, call)
    failures = 0
    for nth in range(1, 50):
        failing = FailingCall(original, nth)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, failing)
            try:
                checkpoint.save(tmp_path, state_at(3, 1, value=3.0) if mid_epoch else state_at(3, value=3.0))
                passed = True
            except (OSError, AutosegError):
                passed, failures = False, failures + 1
        if failing.seen < nth:
            break
        state = state_at(0)
        assert checkpoint.load(tmp_path, state)
        assert state.model.weight.mean().item() == (state.progress.epoch) in (2, 3)
        assert passed <= (state.progress.epoch == 3)
    else:
        pytest.fail("a save that never passes")
    assert failures > 0, f"os.{call} is not used by a save, so this test shows nothing"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(checkpoint.NAMES)


def test_document_is_json(tmp_path):
    data = checkpoint.save(tmp_path, state_at(4)).read_bytes()
    metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    document = json.loads(json.loads(metadata["autoseg"])["document"])
    assert document["schema"] == "autoseg-checkpoint/1"
    assert document["optimiser"][0]["momentum"] == 0.9
