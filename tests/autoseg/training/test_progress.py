import logging
from types import SimpleNamespace

import pytest

from autoseg.training import progress
from autoseg.training.logbook import Logbook
from autoseg.training.progress import Recorder, iteration_bar
from autoseg.training.state import Progress
from autoseg.training.tasks import Segmentation
from planners.labels import LabelScheme
from planners.plan import Training

LABELS = LabelScheme({"background": 0, "1": 1, "2": 2})

ROW = {"epoch": 0, "lr": 0.01, "loss": 0.5, "dice": {"1": 0.25, "2": None}, "seconds": 50.0, "validation_seconds": 10.0, "data_wait": 0.07}


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until `clock.now` is moved."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def drawn(monkeypatch):
    """What was drawn: (rows, file, title); no picture is made."""
    drawn = []
    monkeypatch.setattr(progress, "write_learning_curve", lambda rows, path, title: drawn.append((len(rows), path.name, title)))
    return drawn


@pytest.fixture
def recorder(tmp_path, drawn):
    return Recorder(
        Logbook(tmp_path / "logbook.jsonl", 0), tmp_path / "progress.png", "fold 3", Training(epochs=11), Segmentation(LABELS).told
    )


def test_a_row_goes_to_the_logbook_and_the_log(recorder, caplog):
    caplog.set_level(logging.INFO, "autoseg")
    recorder(ROW)
    assert recorder.logbook.rows == [ROW]
    line = caplog.messages[-1]
    for part in ("fold 3", "epoch 1/11", "loss 0.5000", "Dice 0.250 -,", "lr 0.01000", "60.0 s", "data 7 %", "10 min left"):
        assert part in line
    recorder(ROW | {"epoch": 10, "dice": {}})
    assert "Dice n/a" in caplog.messages[-1]
    assert ", 0 s left" in caplog.messages[-1]


def test_without_validation_there_is_still_a_line(recorder, caplog):
    caplog.set_level(logging.INFO, "autoseg")
    recorder({key: value for key, value in ROW.items() if key != "dice"})
    assert "Dice n/a" in caplog.messages[-1]


def test_the_curve_is_drawn_at_once_and_then_once_a_minute(recorder, clock, drawn):
    for now in (1000, 1030, 1059, 1061, 1100, 1122):
        clock.now = now
        recorder(ROW)
    assert drawn == [(count, "progress.png", "fold 3") for count in (1, 4, 6)]


def test_the_time_needed_is_told_once_without_the_slow_first_iteration(clock, caplog, capsys):
    caplog.set_level(logging.INFO, "autoseg")
    with iteration_bar(Training(epochs=1000, iterations=250), Progress()) as tick:
        for seconds in (70, 1, 2, 3, 50, 60):
            clock.now += seconds
            tick()
    assert len(caplog.messages) == 1
    assert "2.00 s an iteration: 138 h 53 min" in caplog.messages[0]  # 250 000 x 2 s
    assert capsys.readouterr().err == "", "no bar where there is no terminal"


def test_of_a_resumed_run_only_the_rest_is_counted(clock, caplog):
    caplog.set_level(logging.INFO, "autoseg")
    with iteration_bar(Training(epochs=1000, iterations=250), Progress(epoch=500, iteration=125)) as tick:
        for _ in range(4):
            clock.now += 2
            tick()
    assert "69 h 22 min" in caplog.messages[0]  # 124 875 x 2 s


def test_a_bar_that_ends_early_tells_nothing(caplog):
    caplog.set_level(logging.INFO, "autoseg")
    with iteration_bar(Training(epochs=1, iterations=3), Progress()) as tick:
        for _ in range(3):
            tick()
    assert caplog.messages == []
