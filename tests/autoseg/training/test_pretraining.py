"""Pretraining on images without labels: what it learns from, that it resumes exactly, and that folds begin from it."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from stopping import STOP_REQUEST, Stopping
from tiny import TinyDataset

from autoseg.dataset.dataset import Dataset
from autoseg.dataset.unlabelled import find_unlabelled
from autoseg.errors import DatasetError, ModelError, PlanError, TrainingError
from autoseg.inference.trained_on import read_trained_on
from autoseg.planning.planning import plan
from autoseg.preprocessing.store import cases_key, open_case
from autoseg.training.batches import PLAIN, CaseCache
from autoseg.training.distributed import Ranks
from autoseg.training.initial_weights import open_weights
from autoseg.training.interrupt import Stopped
from autoseg.training.masked_images import MaskedImages
from autoseg.training.pretraining import autoencoder_configuration, pretrain
from autoseg.training.segmentation import train

OPTIONS = {"iterations": 3, "device": "cpu", "threads": 1, "workers": 0}


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """A planned dataset with two images without labels in imagesUn and one in imagesTr."""
    dataset = TinyDataset(tmp_path_factory.mktemp("pretraining") / "Tiny")
    for name in ("new0", "new1"):
        dataset.add(name, "imagesUn", label=False)
    dataset.add("unseen", label=False)
    plan(dataset.folder, preset="laptop", workers=0, exclude=["unseen"])
    return dataset


@pytest.fixture
def pretrained_in(planned, monkeypatch):
    threads = torch.get_num_threads()

    def call(work, *, stop_after=10**9, **options):
        if not work.exists():
            shutil.copytree(planned.work, work)
        monkeypatch.setattr(STOP_REQUEST, lambda: Stopping(stop_after))
        return pretrain(planned.folder, work=work, **{"epochs": 2} | OPTIONS | options)

    yield call
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    "key", ["training.epochs", "configurations.3d_fullres.training.optimiser.lr", "training", "augmentation.noise", "inference.step"]
)
def test_settings_that_pretraining_would_not_read_are_refused(planned, pretrained_in, tmp_path, key):
    with pytest.raises(PlanError, match=f"--set {key}: pretraining does not read"):
        pretrained_in(tmp_path / "work", settings={"pretraining.blocks": 4, key: 2})


def test_settings_that_a_fold_would_not_read_are_refused(planned, tmp_path):
    shutil.copytree(planned.work, tmp_path / "work")
    with pytest.raises(PlanError, match=r"--set pretraining.epochs: a fold does not read"):
        train(planned.folder, 0, work=tmp_path / "work", settings={"pretraining.epochs": 2}, **OPTIONS)
    assert not list((tmp_path / "work" / "default" / "3d_fullres").rglob("run.json"))


def test_visible_voxels_are_the_image_and_padding_counts_nothing(planned, tmp_path):
    made = plan(planned.folder, workers=0).plan
    spec = autoencoder_configuration(made.configuration("3d_fullres"))
    larger = spec.model_copy(update={"patch_size": tuple(2 * size for size in spec.patch_size)})  # than any image
    key = cases_key(made, "3d_fullres")
    source = MaskedImages(planned.work / "cases" / key, (planned.names[0],), larger, 1, "test")
    inputs, (images, counted) = source.batch("train", 0, 0, source.augmenter(PLAIN), CaseCache(source))
    hidden = (inputs == 0).all(dim=1)
    shown = ~hidden.unsqueeze(1).expand_as(images)
    assert torch.equal(inputs[shown], images[shown])
    assert not (counted & ~hidden).any()
    assert counted.any(dim=(1, 2, 3)).all()
    voxels = open_case(source.folder, planned.names[0]).data[0].size
    assert (counted.flatten(1).sum(1) < voxels).all()


def test_ranks_make_a_batch_together(planned):
    made = plan(planned.folder, workers=0).plan
    spec = autoencoder_configuration(made.configuration("3d_fullres")).model_copy(update={"batch_size": 3})
    source = MaskedImages(planned.work / "cases" / cases_key(made, "3d_fullres"), tuple(planned.names), spec, 1, "test")
    whole, *parts = (
        each.batch("train", 0, 0, source.augmenter(PLAIN), CaseCache(source))
        for each in (source, *(replace(source, share=Ranks(rank, 2).part(3)) for rank in range(2)))
    )
    for found, expected in zip(zip(*((a, *b) for a, b in parts), strict=True), (whole[0], *whole[1]), strict=True):
        assert torch.equal(torch.cat(found), expected)
    assert replace(source, share=range(2, 3)).blank(2)[0].shape == parts[1][0].shape


@pytest.mark.slow
def test_two_processes_learn_what_one_does(planned, pretrained_in, run, tmp_path):
    alone = pretrained_in(tmp_path / "alone", settings={"training.accumulation": 2})
    work = tmp_path / "two"
    shutil.copytree(planned.work, work)
    options = ("--work", work, "--device", "cpu", "--gpus", 2, "--threads", 1, "--workers", 0, "--epochs", 2, "--iterations", 3)
    done = run("pretrain", "-d", planned.folder, *options, "--json", tmp_path / "out.json")
    result = json.loads((tmp_path / "out.json").read_text())["result"]
    assert done.stdout.count("pretrained on 3 cases") == 1
    assert result["errors"] == pytest.approx(alone.errors, rel=1e-5)
    weights, expected = (load_file(Path(folder) / "model.safetensors") for folder in (result["folder"], alone.folder))
    for name, values in expected.items():
        torch.testing.assert_close(weights[name], values, rtol=1e-5, atol=2e-6, msg=name)


def test_what_is_unlabelled(planned, tmp_path):
    dataset = Dataset.open(planned.folder, exclude=["unseen"])
    assert [case.name for case in find_unlabelled(dataset)] == ["new0", "new1", "unseen"]
    left_out = Dataset.open(planned.folder, exclude=["unseen", planned.names[0]])
    assert [case.name for case in find_unlabelled(left_out)] == ["new0", "new1", "unseen"]  # left out, but not without a label
    more = tmp_path / "more"
    shutil.copytree(planned.folder / "imagesUn", more)
    with pytest.raises(DatasetError, match=r"case new0: stands in .*imagesUn and in .*more"):
        find_unlabelled(dataset, [more])
    shutil.copy(planned.image("new0", 0, "imagesUn"), more / f"{planned.names[1]}_0000.nii.gz")
    shutil.copy(planned.image("new0", 1, "imagesUn"), more / f"{planned.names[1]}_0001.nii.gz")
    with pytest.raises(DatasetError, match=f"case {planned.names[1]}: .*a labelled case has that name too"):
        find_unlabelled(dataset, [more])


def test_stopped_and_resumed_it_comes_to_the_same_weights(planned, pretrained_in, tmp_path):
    whole = pretrained_in(tmp_path / "whole")
    with pytest.raises(Stopped):
        pretrained_in(tmp_path / "again", stop_after=4)
    with pytest.raises(TrainingError, match="was begun with other pretraining"):
        pretrained_in(tmp_path / "again", settings={"pretraining.masked_share": 0.6})
    record = tmp_path / "again" / "default" / "3d_fullres" / "pretrained" / "unlabelled" / "run.json"
    run = json.loads(record.read_text())
    assert run["execution"] == "eager: training.compile is auto, which compiles for CUDA only"
    record.write_text(json.dumps(run | {"device": "cuda", "precision": "fp16"}))  # as if it had been begun on a GPU
    again = pretrained_in(tmp_path / "again")
    assert json.loads(record.read_text())["device"] == "cpu"
    assert (again.folder / "model.safetensors").read_bytes() == (whole.folder / "model.safetensors").read_bytes()
    assert (again.cases, len(again.errors)) == (3, 2)
    names = [("new0", "imagesUn"), ("new1", "imagesUn"), ("unseen", "imagesTr")]
    assert read_trained_on(whole.folder / "model.safetensors").images == {
        hashlib.sha256(planned.image(name, channel, folder).read_bytes()).hexdigest()[:16] for name, folder in names for channel in (0, 1)
    }


def test_a_fold_begins_from_it(planned, pretrained_in, tmp_path):
    result = pretrained_in(tmp_path / "work", epochs=1)
    found = open_weights(result.folder, None, "0")
    assert (found.ends.inputs, found.ends.activation) == (("CT", "PET"), "none")
    settings = {"training.validation_iterations": 0, "training.optimiser.lr": 1e-12}
    train(planned.folder, 0, work=tmp_path / "work", init=result.folder, epochs=1, settings=settings, **OPTIONS)
    fold = tmp_path / "work" / "default" / "3d_fullres" / "cv5" / "fold_0"
    weights, before = (load_file(folder / "model.safetensors") for folder in (fold, result.folder))
    for name, weight in weights.items():
        if "heads" not in name:
            assert torch.allclose(weight, before[name], atol=1e-7), name
    assert read_trained_on(fold / "model.safetensors").images > found.trained_on.images
    assert json.loads((fold / "summary.json").read_text())["out_of_fold"]
    with pytest.raises(ModelError, match="has no folds"):
        open_weights(result.folder, "0", "0")
    damaged = tmp_path / "damaged"
    shutil.copytree(result.folder, damaged)
    (damaged / "plan.json").write_text((damaged / "plan.json").read_text().replace("laptop", "Laptop"))
    with pytest.raises(ModelError, match=r"plan\.json has another SHA-256"):
        open_weights(damaged, None, "0")


def test_with_a_fold_it_suits_that_fold_alone(planned, pretrained_in, tmp_path):
    work = tmp_path / "work"
    result = pretrained_in(work, epochs=1, with_fold="0")
    folds = json.loads((work / "default" / "folds.json").read_text())["folds"]
    assert result.cases == 3 + len(folds["0"]["training"])
    assert result.folder.name == "cv5-fold_0"
    with pytest.raises(TrainingError, match=f"was trained on .* of the cases that this fold holds out: {folds['1']['validation'][0]}"):
        train(planned.folder, 1, work=work, init=result.folder, epochs=1, **OPTIONS)


def test_the_error_of_hidden_voxels_falls(pretrained_in, tmp_path):
    settings = {"augmentation.spatial": None, "pretraining.optimiser.kind": "adamw", "pretraining.optimiser.lr": 0.003}
    errors = pretrained_in(tmp_path / "work", epochs=5, iterations=8, settings=settings).errors
    assert errors[-1] < 0.9 * errors[0], errors


def test_nothing_to_learn_from(tmp_path):
    dataset = TinyDataset(tmp_path / "Tiny")
    plan(dataset.folder, preset="laptop", workers=0)
    with pytest.raises(DatasetError, match="there are no images without labels in .*imagesUn"):
        pretrain(dataset.folder, **OPTIONS)


def test_the_command(run, planned, tmp_path):
    work = tmp_path / "work"
    shutil.copytree(planned.work, work)
    done = run(
        "pretrain", "-d", planned.folder, "--work", work, "--epochs", 1, "--iterations", 1, "--workers", 0, "--json", tmp_path / "out.json"
    )
    result = json.loads((tmp_path / "out.json").read_text())["result"]
    assert f"autoseg_train FOLD --init {result['folder']}" in done.stdout
    assert result["cases"] == 3
