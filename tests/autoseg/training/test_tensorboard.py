"""What TensorBoard itself reads back."""

import sys

import pytest

from autoseg.errors import TrainingError
from autoseg.training.logbook import Logbook
from autoseg.training.tensorboard import FOLDER, TensorBoard


def row(epoch, loss):
    return {
        "epoch": epoch,
        "lr": 0.01,
        "loss": loss,
        "iterations": 2,
        "dice": {"ball": 0.25, "rare": None},
        "inner": {"dice": {"ball": 0.5}},
    }


def scalars(folder):
    """name -> [(epoch, value)]"""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / FOLDER))
    events.Reload()
    return {name: [(point.step, point.value) for point in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_every_number_of_a_row_is_a_point(tmp_path):
    with TensorBoard(tmp_path, []) as board:
        board(row(0, 0.5))
    assert scalars(tmp_path) == {
        "lr": [(0, pytest.approx(0.01))],
        "loss": [(0, 0.5)],
        "iterations": [(0, 2)],
        "dice/ball": [(0, 0.25)],
        "inner/dice/ball": [(0, 0.5)],
    }


def test_a_resumed_run_has_no_point_twice_and_none_that_a_kill_undid(tmp_path):
    logbook = Logbook(tmp_path / "logbook.jsonl", 0)
    with TensorBoard(tmp_path, logbook.rows) as board:
        for epoch in range(3):
            logbook.append(row(epoch, 1.0 + epoch))
            board(row(epoch, 1.0 + epoch))
    resumed = Logbook(tmp_path / "logbook.jsonl", 2)  # the checkpoint is behind the logbook
    with TensorBoard(tmp_path, resumed.rows) as board:
        board(row(2, 9.0))
    assert scalars(tmp_path)["loss"] == [(0, 1.0), (1, 2.0), (2, 9.0)]


def test_without_tensorboard_the_extra_is_named(tmp_path, monkeypatch):
    for name in list(sys.modules):
        if name.startswith(("tensorboard", "torch.utils.tensorboard")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(TrainingError, match=r"pip install 'autoseg\[tensorboard\]'"):
        TensorBoard(tmp_path, [])
    assert not (tmp_path / FOLDER).exists()
