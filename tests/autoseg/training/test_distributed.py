"""Two processes that share each batch train as one process does; when one ends, all end, and its reason is told."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import ranks as program
import torch
from safetensors.torch import load_file
from tiny import ONE_THREAD, TinyDataset, command_line

from autoseg.errors import DeviceError, TrainingError, WorkerError
from autoseg.inference.model_folder import ModelFolder
from autoseg.planning.planning import plan
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


def test_two_ranks_learn_what_one_process_learns(tmp_path, one_thread):
    assert launch(2, [str(PROGRAM), "learn", str(tmp_path)]) == 0
    for number, name in enumerate(program.CASES):
        weights, figures = program.learned(name, ALONE)
        first, second = (load_file(tmp_path / f"{number}-{rank}.safetensors") for rank in range(2))
        torch.testing.assert_close(
            first.pop("figures"), torch.tensor(figures), rtol=1e-5, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}"
        )
        second.pop("figures")
        for key, expected in weights.items():
            assert torch.equal(first[key], second[key]), (name, key)
            torch.testing.assert_close(first[key], expected, rtol=1e-5, atol=2e-6, msg=lambda m, name=name, key=key: f"{name}, {key}: {m}")
    for rank in range(2):
        assert (tmp_path / f"differ-{rank}").read_text().startswith("TrainingError: numbers differ between the ranks")


def test_a_rank_that_raises_ends_all_with_its_traceback(tmp_path, one_thread, capfd):
    assert launch(2, [str(PROGRAM), "raise", str(tmp_path)]) == 1
    told = capfd.readouterr().err
    assert "rank 1:" in told
    assert "ZeroDivisionError: a bug of its own" in told
    assert "in main" in told


def test_a_rank_that_is_killed_ends_all_and_is_named(tmp_path, one_thread):
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(WorkerError, match=r"rank 1 \(process \d+\) was killed by SIGKILL.*same command"):
        launch(2, [str(PROGRAM), "kill", str(tmp_path)])
    assert signal.getsignal(signal.SIGTERM) is handler


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    dataset = TinyDataset(tmp_path_factory.mktemp("ranks") / "Tiny")
    plan(dataset.folder, preset="laptop", settings={**SETTINGS, "training.epochs": 2, "training.iterations": 6}, workers=0)
    return dataset


@pytest.fixture(scope="module")
def trained(planned, tmp_path_factory):
    """A work folder in which folds 0 and 1 were trained by two jobs at once that both found no case prepared."""
    work = tmp_path_factory.mktemp("jobs") / "work"
    shutil.copytree(planned.work, work)
    for path in work.glob("cases/*/*"):
        path.unlink()
    threads = torch.get_num_threads()
    other = command_line("train", 1, "-d", planned.folder, "--work", work, "--device", "cpu", "--workers", 0, "--threads", 1)
    with subprocess.Popen(other, env=os.environ | ONE_THREAD, stderr=subprocess.PIPE, text=True) as job:
        train(planned.folder, 0, work=work, device="cpu", workers=0, threads=1)
        _, told = job.communicate(timeout=300)
    torch.set_num_threads(threads)
    assert job.returncode == 0, told
    return work


def test_two_jobs_share_a_work_folder(trained):
    assert ModelFolder.open(trained.joinpath(*MODEL)).folds == ("0", "1")
    for fold in "01":
        folder = trained.joinpath(*MODEL, f"fold_{fold}")
        assert json.loads((folder / "run.json").read_text())["finished_epochs"] == 2
        assert len(list((folder / "masks").glob("*.nii.gz"))) == len(json.loads((folder / "summary.json").read_text())["metric_per_case"])
    assert not list(trained.rglob(".autoseg-tmp-*"))
    assert not list(trained.rglob("lock.json"))


def test_a_fold_on_two_processes_stopped_and_resumed_is_that_of_one(planned, trained, tmp_path):
    work = tmp_path / "work"
    shutil.copytree(planned.work, work)
    command = command_line("train", 0, "-d", planned.folder, "--work", work, "--device", "cpu", "--gpus", 2, "--workers", 0, "--threads", 1)
    with subprocess.Popen(command, env=os.environ | ONE_THREAD, stderr=subprocess.PIPE, text=True) as process:
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

    done = subprocess.run(
        [*command, "--json", tmp_path / "result.json"], env=os.environ | ONE_THREAD, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("going on from epoch") == 1
    assert json.loads((tmp_path / "result.json").read_text())["status"] == 0
    assert json.loads((folder / "run.json").read_text())["ranks"] == 2
    reference = trained.joinpath(*MODEL, "fold_0")
    weights, expected = (load_file(where / "model.safetensors") for where in (folder, reference))
    for name, values in expected.items():
        torch.testing.assert_close(weights[name], values, rtol=1e-5, atol=1e-5, msg=name)
    rows, alone = ([json.loads(line) for line in (where / "logbook.jsonl").read_text().splitlines()] for where in (folder, reference))
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in alone], rel=1e-5)
    assert [row["validation_loss"] for row in rows] == pytest.approx([row["validation_loss"] for row in alone], rel=1e-4)
