"""How a run goes on: as it was begun, where this device can."""

from contextlib import nullcontext

import pytest
import torch
from segmented import SegmentedDataset

from autoseg.errors import PlanError, TrainingError
from autoseg.training import run
from autoseg.training.distributed import ALONE, Ranks
from autoseg.training.record import RunRecord
from autoseg.training.run import go_on_as_begun, run_facts
from autoseg.training.segmentation import train

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def native(monkeypatch):
    """native(precision): what devices compute natively in from then on."""
    return lambda precision: monkeypatch.setattr(run, "choose_precision", lambda device: precision)


def begun(folder, **facts):
    return RunRecord(folder, {}, 2, {}, {"device": "cuda", "precision": "bf16", "threads": 2, "ranks": 1} | facts)


@pytest.mark.parametrize(
    ("device", "precision", "here", "own", "expected"),
    [
        ("cuda", "bf16", GPU, "bf16", ("cuda", "bf16")),
        ("cuda", "bf16", GPU, "fp16", ("cuda", "fp16")),
        ("cuda", "fp16", GPU, "bf16", ("cuda", "bf16")),
        ("cuda", "fp32", GPU, "bf16", ("cuda", "fp32")),
        ("cuda", "fp16", CPU, "fp32", ("cpu", "fp32")),
        ("cpu", "bf16", CPU, "fp32", ("cpu", "fp32")),
        ("cpu", "fp32", CPU, "bf16", ("cpu", "fp32")),
    ],
)
def test_the_precision_stays_where_the_device_computes_natively_in_it(tmp_path, native, caplog, device, precision, here, own, expected):
    native(own)
    record = begun(tmp_path, device=device, precision=precision)
    go_on_as_begun(record, "fold 3", here, ALONE, None)
    assert (record["device"], record["precision"]) == expected
    told = f"fold 3 was begun on {device} in {precision} and goes on on {expected[0]} in {expected[1]}"
    assert (told in caplog.text) == (expected != (device, precision))


def test_threads_stay_and_another_number_of_processes_is_told(tmp_path, native, caplog):
    native("bf16")
    record = begun(tmp_path)
    go_on_as_begun(record, "fold 3", GPU, Ranks(0, 4), 7)
    assert (record["threads"], record["ranks"]) == (2, 4)
    assert "goes on with the 2 compute threads it was begun with" in caplog.text
    assert "begun with 1 processes and goes on with 4" in caplog.text
    caplog.clear()
    go_on_as_begun(record, "fold 3", GPU, Ranks(0, 4), 2)
    assert not caplog.records


def test_processes_share_the_cores(native, monkeypatch):
    native("fp32")
    monkeypatch.setattr(run, "usable_cores", lambda: 8)
    monkeypatch.setattr("torch.get_num_threads", lambda: 6)
    found = [run_facts(CPU, ranks, threads)["threads"] for ranks, threads in ((ALONE, None), (Ranks(0, 4, 4), None), (ALONE, 3))]
    assert found == [6, 2, 3]


@pytest.fixture
def segmented(tmp_path):
    return SegmentedDataset(tmp_path / "Tiny")


def test_a_configuration_that_the_plan_does_not_have_leaves_no_folder(segmented):
    with pytest.raises(PlanError, match="3d_lowres"):
        train(segmented.folder, "A", configuration="3d_lowres", device="cpu")
    assert not list(segmented.work.root.rglob("*lowres*"))


def test_too_many_processes_are_refused_before_cases_are_prepared(segmented, monkeypatch):
    monkeypatch.setattr("autoseg.training.segmentation.joined_ranks", lambda device: nullcontext((Ranks(0, 3), CPU)))
    with pytest.raises(TrainingError, match="a batch of 2 samples cannot be shared by 3 processes"):
        train(segmented.folder, "A")
    assert not (segmented.work.root / "cases").exists()
