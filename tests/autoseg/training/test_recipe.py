"""Everything of a recipe at once, on a fold of real files: stopped, killed and resumed, it comes to the same weights bit for bit."""

import json
import shutil

import pytest
import torch
from stopping import STOP_REQUEST, Killed, Stopping
from tiny import TinyDataset

from autoseg.planning.planning import plan
from autoseg.training.interrupt import Stopped
from autoseg.training.segmentation import train

EVERYTHING = {
    "training.loss.kind": "cc_dice_ce",
    "training.optimiser.kind": "adamw",
    "training.schedule.kind": "cosine",
    "training.schedule.warmup_epochs": 1,
    "training.ema": 0.9,
    "training.accumulation": 2,
    "training.early_stopping": {"patience": 2, "iterations": 1, "fraction": 0.25, "measure": "loss"},
    "training.validation_iterations": 1,
}
FOLD = ("default", "3d_fullres", "cv5", "fold_0")


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    dataset = TinyDataset(tmp_path_factory.mktemp("recipe") / "Tiny")
    plan(dataset.folder, preset="laptop", workers=0)
    return dataset


@pytest.fixture
def train_in(planned, monkeypatch):
    """train_in(folder): the fold's folder after training there with EVERYTHING."""

    def call(work, interrupt=None, epochs=4, board=False, **settings):
        if not work.exists():
            shutil.copytree(planned.work, work)
        monkeypatch.setattr(STOP_REQUEST, lambda: interrupt or Stopping())
        arguments = {"epochs": epochs, "iterations": 2, "settings": EVERYTHING | settings, "device": "cpu", "threads": 1}
        train(planned.folder, 0, work=work, workers=0, tensorboard=board, **arguments)
        return work.joinpath(*FOLD)

    threads = torch.get_num_threads()
    yield call
    torch.set_num_threads(threads)


def test_interrupted_anywhere_it_comes_to_the_same_weights(train_in, tmp_path):
    whole = train_in(tmp_path / "whole")
    again = tmp_path / "again"
    with pytest.raises(Stopped):
        train_in(again, Stopping(3))
    with pytest.raises(Killed):
        train_in(again, Stopping(4, Killed()))
    with pytest.raises(Stopped, match="after the last epoch"):
        train_in(again, Stopping(3))  # two iterations are left; asked for while the last epoch was judged
    assert not (again.joinpath(*FOLD) / "model.safetensors").exists()
    found = train_in(again, board=True)
    for name in ("model.safetensors", "checkpoint-a.safetensors", "checkpoint-b.safetensors"):
        assert (found / name).read_bytes() == (whole / name).read_bytes(), name

    record = json.loads((found / "run.json").read_text())
    choice = record["early_stopping"]
    assert choice == json.loads((whole / "run.json").read_text())["early_stopping"]
    fold = json.loads((again / "default" / "folds.json").read_text())["folds"]["0"]
    assert set(choice["inner"]) < set(fold["training"])
    assert not set(choice["inner"]) & set(fold["validation"])
    assert list((found / "tensorboard").iterdir())
    rows = [json.loads(line) for line in (found / "logbook.jsonl").read_text().splitlines()]
    scores = [row["inner"]["score"] for row in rows]
    assert (choice["score"], choice["epoch"]) == (max(scores), scores.index(max(scores)))
    assert len(rows) == record["finished_epochs"]
    assert len({row["lr"] for row in rows}) == len(rows)
    assert sorted(p.name.removesuffix(".nii.gz") for p in (found / "masks").glob("*.nii.gz")) == fold["validation"]


def test_an_early_stop_is_the_end(train_in, tmp_path, caplog):
    settings = {
        "training.optimiser.lr": 1e-12,
        "training.ema": None,
        "training.early_stopping": {"patience": 1, "measure": "loss", "iterations": 1},
    }
    folder = train_in(tmp_path / "work", **settings)
    record = json.loads((folder / "run.json").read_text())
    stopped = record["finished_epochs"]
    assert stopped < 4
    assert record["early_stopping"]["stopped"]
    assert record["validated"]["epochs"] == stopped
    weights = (folder / "model.safetensors").read_bytes()
    caplog.set_level("INFO", "autoseg")
    train_in(tmp_path / "work", epochs=9, **settings)
    assert "fold 0 is finished" in caplog.text
    assert (folder / "model.safetensors").read_bytes() == weights
