"""Fine-tuning a fold from a trained model: what is taken, what is refused, and that going on needs nothing but the fold's folder."""

import hashlib
import json
import logging
import shutil

import pytest
import SimpleITK as sitk
import torch
from safetensors.torch import load_file, save_file
from stopping import STOP_REQUEST, Stopping
from tiny import TinyDataset

from autoseg.dataset.dataset import Dataset
from autoseg.dataset.workspace import Workspace
from autoseg.errors import ModelError, TrainingError
from autoseg.inference.model_writing import update_model_folder
from autoseg.inference.trained_on import read_trained_on
from autoseg.planning.planning import plan
from autoseg.training.initial_weights import open_weights, starting_network
from autoseg.training.interrupt import Stopped
from autoseg.training.record import RunRecord
from autoseg.training.segmentation import train
from planners.plan import Plan
from planners.settings import override
from prognosis.features.masks import out_of_fold_masks

SETTINGS = {"training.validation_iterations": 0}
FROZEN = SETTINGS | {"training.optimiser.lr": 1e-12}


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A dataset with fold 0 trained for a few steps; tests work in copies of its work folder."""
    dataset = TinyDataset(tmp_path_factory.mktemp("finetune") / "Tiny")
    plan(dataset.folder, preset="laptop", workers=0)
    train(dataset.folder, 0, epochs=1, iterations=2, settings=SETTINGS, device="cpu", threads=1, workers=0)
    return dataset


@pytest.fixture
def fold(first, tmp_path, monkeypatch):
    """fold(number, ...): the folder of a fold that is trained in a work folder of its own, without what was trained before."""
    work = tmp_path / "work"
    shutil.copytree(first.work, work, ignore=shutil.ignore_patterns("3d_fullres"))
    threads = torch.get_num_threads()

    def call(number, *, stop_after=10**9, **options):
        monkeypatch.setattr(STOP_REQUEST, lambda: Stopping(stop_after))
        keywords = {"epochs": 1, "iterations": 2, "settings": FROZEN, "device": "cpu", "threads": 1, "workers": 0}
        train(first.folder, number, work=work, **keywords | options)
        return work / "default" / "3d_fullres" / "cv5" / f"fold_{number}"

    yield call
    torch.set_num_threads(threads)


def model_of(dataset):
    return dataset.work / "default" / "3d_fullres" / "cv5"


def test_the_reasons_in_a_model_folder_are_those_of_its_run(first):
    """What stands in them is the plan as it was trained, not as it was planned."""
    planned, trained = (Plan.from_json((folder / "plan.json").read_text()) for folder in (first.work / "default", model_of(first)))
    asked = {"training.epochs": "1", "training.iterations": "2", "training.validation_iterations": "0"}
    before = planned.configurations["3d_fullres"].training
    for path, value in asked.items():
        was = getattr(before, path.partition(".")[2])
        assert trained.reasons[f"3d_fullres.{path}"] == f"{value}, as asked for; planned was {was}"
    others = {f"3d_fullres.{path}" for path in asked}
    assert {key: why for key, why in trained.reasons.items() if key not in others} == {
        key: why for key, why in planned.reasons.items() if key not in others
    }


def voxels(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def held_out(dataset, number):
    return json.loads((dataset.work / "default" / "folds.json").read_text())["folds"][str(number)]["validation"]


def test_weights_carry_the_hashes_of_the_images_they_were_trained_on(first):
    known = read_trained_on(model_of(first) / "fold_0" / "model.safetensors")
    training = set(first.names) - set(held_out(first, 0))
    assert known.complete
    assert known.images == {
        hashlib.sha256(first.image(name, channel).read_bytes()).hexdigest()[:16] for name in training for channel in (0, 1)
    }


def test_a_model_fine_tuned_with_hardly_any_rate_predicts_the_same(first, fold):
    before = model_of(first) / "fold_0"
    after = fold(0, init=model_of(first))
    old, new = (load_file(folder / "model.safetensors") for folder in (before, after))
    assert all(torch.allclose(new[name], old[name], atol=1e-7) for name in old)
    for name in held_out(first, 0):
        assert (voxels(after / "masks" / f"{name}.nii.gz") == voxels(before / "masks" / f"{name}.nii.gz")).all()
    run, summary = (json.loads((after / name).read_text()) for name in ("run.json", "summary.json"))
    weights = hashlib.sha256((before / "model.safetensors").read_bytes()).hexdigest()
    assert run["initial_weights"]["source"] == {"path": str(model_of(first)), "fold": "0", "sha256": weights}
    assert summary["out_of_fold"]
    assert read_trained_on(after / "model.safetensors") == read_trained_on(before / "model.safetensors")


def test_a_run_goes_on_without_its_model(first, fold, tmp_path):
    options = {"epochs": 2, "settings": SETTINGS}
    model = tmp_path / "model"
    shutil.copytree(model_of(first), model)
    with pytest.raises(Stopped):
        fold(0, init=model, stop_after=3, **options)
    shutil.rmtree(model)
    other = tmp_path / "other"
    shutil.copytree(model_of(first), other)
    weights = load_file(other / "fold_0" / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, other / "fold_0" / "model.safetensors")
    (other / "manifest.json").unlink()
    update_model_folder(other)
    with pytest.raises(TrainingError, match="begun with other initial weights"):
        fold(0, init=other, **options)
    stopped = fold(0, **options)
    found = (stopped / "model.safetensors").read_bytes()
    whole = fold(0, init=model_of(first), restart=True, **options)
    assert (whole / "model.safetensors").read_bytes() == found
    fresh = fold(0, restart=True, **options)
    assert "initial_weights" not in json.loads((fresh / "run.json").read_text())


def test_a_run_killed_before_its_first_checkpoint_reads_its_model_again(first, fold, monkeypatch, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(model_of(first), model)
    save = RunRecord.update

    def killed(record, **fields):
        save(record, **fields)
        raise KeyboardInterrupt

    monkeypatch.setattr(RunRecord, "update", killed)
    with pytest.raises(KeyboardInterrupt):
        fold(0, init=model)
    monkeypatch.setattr(RunRecord, "update", save)
    moved = model.rename(tmp_path / "moved")
    with pytest.raises(TrainingError, match=r"stopped before it had a checkpoint.*Give --init again"):
        fold(0)
    moved.rename(model)
    old, new = (load_file(folder / "model.safetensors") for folder in (model_of(first) / "fold_0", fold(0)))
    assert all(torch.allclose(new[name], old[name], atol=1e-7) for name in old)


def test_a_model_that_has_seen_held_out_cases_is_refused(first, fold, tmp_path, caplog):
    seen = sorted(set(held_out(first, 1)) - set(held_out(first, 0)))
    with pytest.raises(
        TrainingError, match=rf"fold 0: was trained on {len(seen)} of the cases that this fold holds out: {', '.join(seen)}"
    ):
        fold(1, init=model_of(first))
    assert not (tmp_path / "work" / "default" / "3d_fullres" / "cv5" / "fold_1" / "run.json").exists()

    folder = fold(1, init=model_of(first), init_despite_leak=True)
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["out_of_fold"], summary["seen_by_initial_weights"]) == (False, seen)
    everything = read_trained_on(folder / "model.safetensors").images
    assert everything > read_trained_on(model_of(first) / "fold_0" / "model.safetensors").images

    caplog.set_level(logging.INFO, "autoseg")
    fold(1)
    assert "fold 1 is finished" in caplog.text

    workspace = Workspace.of(first.folder, tmp_path / "work")
    shutil.copytree(model_of(first) / "fold_0", folder.parent / "fold_0")
    masks = out_of_fold_masks(Dataset.open(first.folder), workspace)
    assert not {mask.case.name for mask in masks.masks} & set(seen)
    assert "began (--init) from weights that had been trained on this case" in masks.missing[seen[0]]


def test_a_model_that_does_not_tell_is_taken_with_a_warning(first, fold, tmp_path, caplog):
    model = tmp_path / "model"
    shutil.copytree(model_of(first), model)
    path = model / "fold_0" / "model.safetensors"
    save_file(load_file(path), path)
    (model / "manifest.json").unlink()
    update_model_folder(model)
    with pytest.raises(Stopped):
        fold(1, init=model, stop_after=1)
    assert "does not tell which images it was trained on" in caplog.text
    assert not json.loads((tmp_path / "work/default/3d_fullres/cv5/fold_1/run.json").read_text())["initial_weights"]["leaked"]


def test_other_channels_and_labels(first, caplog):
    caplog.set_level(logging.INFO, "autoseg")
    source = open_weights(model_of(first), None, "3")
    assert source.fold == "0"  # the model has no fold 3
    before = Plan.from_json((first.work / "default" / "plan.json").read_text())
    document = override(before, {"labels": {"background": 0, "cyst": 1, "ball": 2}}).model_dump(mode="json", by_alias=True)
    document["channels"] = ["PET", "CT"]
    other = Plan.from_json(json.dumps(document))
    weights = starting_network(source, other, "3d_fullres").state_dict()
    stem = next(name for name in weights if name.startswith("encoder."))
    assert torch.equal(weights[stem][:, 0], source.weights[stem][:, 1])
    head = weights["decoder.heads.0.weight"]
    assert torch.equal(head[[0, 2]], source.weights["decoder.heads.0.weight"])
    assert "head fresh for cyst" in caplog.text


def test_another_network_is_refused_and_its_layers_named(first):
    source = open_weights(model_of(first), "0", "0")
    plan = Plan.from_json((first.work / "default" / "plan.json").read_text())
    widths = [2 * width for width in plan.configuration("3d_fullres").network.features]
    with pytest.raises(ModelError, match=r"its network is not the plan's.*encoder\.stages\.0\.0\.conv\.bias has shape .* and \d+ more"):
        starting_network(source, override(plan, {"network.features": widths}), "3d_fullres")
    with pytest.raises(ModelError, match="no finished fold 7"):
        open_weights(model_of(first), "7", "0")
