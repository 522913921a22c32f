"""Two processes that share each batch train as one process does; when one ends, all end, and its reason is told."""

import json
import os
import shutil
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import ranks as program
import torch
from safetensors.torch import load_file
from tiny import ONE_THREAD, TinyDataset, command_line

from autoseg.dataset.dataset import Dataset
from autoseg.dataset.workspace import Workspace
from autoseg.errors import DeviceError, TrainingError, WorkerError
from autoseg.planning.planning import plan
from autoseg.preprocessing.cases import prepare_cases
from autoseg.preprocessing.store import case_damage
from autoseg.training.distributed import ALONE, Ranks, joined_ranks
from autoseg.training.launch import launch, require_gpus
from autoseg.training.segmentation import train

PROGRAM = Path(program.__file__)
MODEL = ("default", "3d_fullres", "cv5")
SETTINGS = {"training.validation_iterations": 1, "training.loss.batch_dice": True, "training.ema": 0.9}


class TestShares:
    def test_every_sample_is_one_ranks(self):
        for batch_size in range(3, 9):
            parts = [list(Ranks(rank, 3).part(batch_size)) for rank in range(3)]
            assert sum(parts, []) == list(range(batch_size))
            assert {len(part) for part in parts} <= {-(-batch_size // 3), batch_size // 3}

    def test_more_ranks_than_samples_are_refused(self):
        with pytest.raises(TrainingError, match=r"a batch of 2 samples cannot be shared by 3 processes: start at most 2"):
            Ranks(0, 3).part(2)

    def test_alone_nothing_is_changed(self):
        x = torch.randn(5, requires_grad=True)
        assert ALONE.summed(x) is x
        assert ALONE.joined(x) is x
        assert torch.equal(ALONE.mean(x), x.mean())
        assert ALONE.any(True)
        assert list(ALONE.part(2)) == [0, 1]


class TestDevices:
    def test_too_few_gpus(self, monkeypatch):
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        with pytest.raises(DeviceError, match=r"--gpus 2: this machine shows 0 CUDA devices"):
            require_gpus(2, "auto")
        require_gpus(2, "cpu")

    def test_each_rank_takes_the_gpu_of_its_number(self, monkeypatch):
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.setenv(name, "2")
        with pytest.raises(DeviceError, match=r"--device cuda:1: 2 processes train together"), joined_ranks("cuda:1"):
            pass


@pytest.fixture
def one_thread(monkeypatch):
    for name, value in {**ONE_THREAD, "PYTHONPATH": f"{PROGRAM.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}.items():
        monkeypatch.setenv(name, value)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_two_ranks_learn_what_one_process_learns_and_a_rank_that_raises_ends_all(tmp_path, one_thread, capfd):
    """Weights after ten steps, the losses of all steps, and what a validation batch gives; the ranks' weights bit for bit alike. Then one
    raises."""
    assert launch(2, [str(PROGRAM), "learn", str(tmp_path)]) == 1
    for number, name in enumerate(program.CASES):
        weights, figures = program.learned(name, ALONE)
        first, second = (load_file(tmp_path / f"{number}-{rank}.safetensors") for rank in range(2))
        assert all(torch.equal(first[key], second[key]) for key in weights), name
        for key, expected in {**weights, "figures": torch.tensor(figures)}.items():
            torch.testing.assert_close(first[key], expected, rtol=1e-5, atol=2e-6, msg=f"{name}, {key}: {first[key]} and {expected}")
    for rank in range(2):
        assert (tmp_path / f"differ-{rank}").read_text().startswith("TrainingError: numbers differ between the ranks")
    told = capfd.readouterr().err
    assert "rank 1:" in told
    assert "in main" in told
    assert "ZeroDivisionError: a bug of its own" in told


def test_a_rank_that_is_killed_ends_all_and_is_named(tmp_path, one_thread):
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(WorkerError, match=r"rank 1 \(process \d+\) was killed by SIGKILL.*same command"):
        launch(2, [str(PROGRAM), "kill", str(tmp_path)])
    assert signal.getsignal(signal.SIGTERM) is handler


@pytest.fixture
def planned(tmp_path):
    dataset = TinyDataset(tmp_path / "Tiny")
    plan(dataset.folder, preset="laptop", settings={**SETTINGS, "training.epochs": 2, "training.iterations": 10}, workers=0)
    return dataset


def test_two_jobs_that_want_the_same_cases_at_once(planned):
    """One prepares them, the other waits and finds them done."""
    for path in planned.work.glob("cases/*/*"):
        path.unlink()
    workspace = Workspace.of(planned.folder)
    together = threading.Barrier(2)

    def prepare(_):
        dataset, spec = Dataset.open(planned.folder), workspace.read_plan()
        together.wait()
        return prepare_cases(dataset, spec, "3d_fullres", workspace, workers=0, verify=True)

    with ThreadPoolExecutor(2) as jobs:
        found = list(jobs.map(prepare, range(2)))
    assert sorted(prepared.made for prepared in found) == [0, len(planned.names)]
    assert [case_damage(found[0].folder, name) for name in planned.names] == [None] * len(planned.names)
    assert not [path for path in planned.work.rglob("*") if path.name.startswith(".autoseg-")]


def test_a_fold_on_two_processes_stopped_and_resumed_is_that_of_one(planned, tmp_path, one_thread):
    """The one process computes sample by sample as the two do: then nothing but the order of sums is left to differ."""
    alone, work = tmp_path / "alone", planned.work
    shutil.copytree(work, alone)
    options = {"device": "cpu", "workers": 0, "threads": 1}
    command = command_line("train", 0, "-d", planned.folder, "--device", "cpu", "--gpus", 2, "--workers", 0, "--threads", 1)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        told = ""
        while "an iteration:" not in told:
            line = process.stderr.readline()
            assert line, told
            told += line
        process.send_signal(signal.SIGTERM)
        told += process.communicate(timeout=120)[1]
    assert process.returncode == 130, told
    assert told.count("the checkpoint is written") == 1, told
    folder = work.joinpath(*MODEL, "fold_0")
    assert json.loads((folder / "run.json").read_text())["finished_epochs"] == 0

    result = tmp_path / "result.json"
    done = subprocess.run([*command, "--json", result], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("going on from epoch 0, iteration") == 1
    assert json.loads(result.read_text())["status"] == 0
    run = json.loads((folder / "run.json").read_text())
    assert (run["ranks"], run["execution"]) == (2, "eager: training.compile is auto, which compiles for CUDA only")
    assert not [path for path in work.rglob("*") if path.name.startswith(".autoseg-tmp-") or path.name == "lock.json"]

    train(planned.folder, 0, work=alone, settings={"training.accumulation": 2}, **options)
    reference = alone.joinpath(*MODEL, "fold_0")
    weights, expected = (load_file(where / "model.safetensors") for where in (folder, reference))
    for name, values in expected.items():
        torch.testing.assert_close(weights[name], values, rtol=1e-5, atol=2e-6, msg=name)
    rows, others = ([json.loads(line) for line in (where / "logbook.jsonl").read_text().splitlines()] for where in (folder, reference))
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in others], rel=1e-5)
    assert [row["validation_loss"] for row in rows] == pytest.approx([row["validation_loss"] for row in others], rel=1e-4)
