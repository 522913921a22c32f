"""Configurations beside 3d_fullres, by the installed commands: 2d, 3d_lowres, and the cascade that continues from its masks."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
from cascades import CASCADE, LOWRES, CascadeDataset
from tiny import QUICK

from autoseg.choosing.choose import choose
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.workspace import Workspace
from autoseg.errors import ModelError, TrainingError
from autoseg.images import read_image
from autoseg.inference.case_images import check_channels
from autoseg.inference.predictor import Predictor
from autoseg.preprocessing.prepare import prepare
from autoseg.preprocessing.resample import resample_labels
from prognosis.features.masks import out_of_fold_masks


@pytest.fixture(scope="module")
def trained(tmp_path_factory, run):
    """Both folds of 3d_lowres and fold 0 of the cascade, trained; `refused`: what was said before 3d_lowres was. Not to be written into."""
    dataset = CascadeDataset(tmp_path_factory.mktemp("cascade") / "Tiny")
    dataset.plan("cv2")
    refused = []
    for fold in (1, 0):
        with pytest.raises(TrainingError) as caught:
            dataset.train(0, CASCADE)
        refused.append(str(caught.value))
        dataset.train(fold, LOWRES)
    run("train", 0, "-c", CASCADE, "-d", dataset.folder, "--workers", 0)
    return SimpleNamespace(dataset=dataset, refused=refused)


@pytest.fixture
def copy(trained, tmp_path) -> CascadeDataset:
    """A copy of all that was trained."""
    shutil.copytree(trained.dataset.folder, tmp_path / "Tiny")
    copied = object.__new__(CascadeDataset)
    copied.__dict__ |= trained.dataset.__dict__ | {"folder": tmp_path / "Tiny"}
    return copied


def images(dataset, name, folder="imagesTr"):
    return [dataset.image(name, channel, folder) for channel in (0, 1)]


def mask_of(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def test_missing_folds_of_the_previous_stage_are_named_with_their_commands(trained):
    folder = trained.dataset.folder
    assert (
        f"these folds of the scheme 'cv2' are not finished: 0, 1. First run:\n  autoseg_train 0 -c 3d_lowres -d {folder}"
        in trained.refused[0]
    )
    assert f"this fold of the scheme 'cv2' is not finished: 0. First run:\n  autoseg_train 0 -c 3d_lowres -d {folder}" in trained.refused[1]


def test_the_model_folder_holds_the_previous_stage(trained):
    model = trained.dataset.fold(0, CASCADE).parent
    inner = model / "previous_stage"
    documents = {"plan.json", "dataset.json", "fingerprint.json", "manifest.json", "README.md"}
    assert documents | {"fold_0"} <= {path.name for path in inner.iterdir()}
    weights = (trained.dataset.fold(0, LOWRES) / "model.safetensors").read_bytes()
    assert (inner / "fold_0" / "model.safetensors").read_bytes() == weights
    assert "Continues from the masks of 3d_lowres" in (model / "README.md").read_text()


def test_the_whole_chain_is_predicted_by_itself(trained, run, tmp_path):
    """Against the two stages put together by hand: the first one's mask becomes a channel a class of the second one's input."""
    new = CascadeDataset(tmp_path / "New", cases=0, shape=(13, 22, 17), seed=5)
    new.add("a", "imagesTs")
    run("predict", "-d", trained.dataset.folder, "-c", CASCADE, "-i", *images(new, "a", "imagesTs"), "-o", tmp_path / "masks")
    found = mask_of(tmp_path / "masks" / "a.nii.gz")

    model = trained.dataset.fold(0, CASCADE).parent
    first, second = Predictor(model / "previous_stage", device="cpu"), Predictor(model, device="cpu")
    seen = first.predict(images(new, "a", "imagesTs")).mask
    read = check_channels([read_image(path) for path in images(new, "a", "imagesTs")], second.plan, "a")
    prepared = prepare(read.images, None, second.plan, CASCADE)
    properties, rule = prepared.properties, second.plan.configurations[CASCADE].resampling
    turned = seen.transpose(properties.transpose)[properties.crop_slices()].astype(np.int16)  # stored in the canonical orientation
    on_grid = resample_labels(turned, properties.shape_after_resampling, properties.spacing, properties.new_spacing, rule)
    stacked = np.concatenate([prepared.data, np.stack([on_grid == 1, on_grid == 2]).astype(np.float32)])
    assert np.array_equal(found, second.segmenter.segment(stacked, properties))
    assert seen.any()
    blind = np.concatenate([prepared.data, np.zeros((2, *on_grid.shape), np.float32)])
    assert not np.array_equal(found, second.segmenter.segment(blind, properties)), "the second stage does not look at the first one's masks"


def test_a_held_out_case_was_held_out_by_both_stages(trained):
    dataset = trained.dataset
    (case, *_) = dataset.held_out(0)
    model = dataset.fold(0, CASCADE).parent
    predictor = Predictor(model, folds=[0], device="cpu")
    again = predictor.predict(images(dataset, case)).mask
    assert np.array_equal(again, mask_of(dataset.fold(0, CASCADE) / "masks" / f"{case}.nii.gz"))
    first = predictor.stage.previous
    assert first.folds == ("0",)
    read = check_channels([read_image(path) for path in images(dataset, case)], predictor.plan, case)
    assert np.array_equal(first.segment(first.prepare(read), case), mask_of(dataset.fold(0, LOWRES) / "masks" / f"{case}.nii.gz"))


def test_a_zipped_cascade_predicts_the_same_and_resumes(trained, tmp_path):
    dataset = trained.dataset
    model = dataset.fold(0, CASCADE).parent
    archive = shutil.make_archive(tmp_path / "model", "zip", model)
    folder, zipped = Predictor(model, device="cpu"), Predictor(archive, device="cpu")
    paths = images(dataset, "case00")
    assert np.array_equal(zipped.predict(paths).mask, folder.predict(paths).mask)
    assert zipped.settings == folder.settings
    assert folder.settings["previous_stage"]["folds"] == ["0"]


def test_a_previous_stage_that_is_missing_damaged_or_another_is_refused(trained, copy):
    model = copy.fold(0, CASCADE).parent
    key = Predictor(model, device="cpu").settings["model"]
    dataset = model / "previous_stage" / "dataset.json"
    text = dataset.read_text()
    dataset.write_text(text.replace(LOWRES, "3d_fullres"))
    with pytest.raises(ModelError, match=r"previous_stage: not what manifest.json says: dataset.json"):
        Predictor(model, device="cpu")
    dataset.write_text(text)
    assert Predictor(model, device="cpu").settings["model"] == key
    shutil.rmtree(model / "previous_stage")
    with pytest.raises(ModelError, match="continues from 3d_lowres, but the folder previous_stage is missing"):
        Predictor(model, device="cpu")


def test_a_previous_stage_that_is_trained_again_makes_the_fold_outdated(copy, caplog):
    """Fold 1 of 3d_lowres made the masks that fold 0 of the cascade learned from."""
    masks = copy.work / "cases"
    before = set(masks.rglob("previous/*.npy"))
    copy.train(1, LOWRES, seed=7, restart=True)
    weights = (copy.fold(0, CASCADE) / "model.safetensors").read_bytes()
    copy.train(0, CASCADE)
    assert "fold_0 is finished, but was trained with other masks of 3d_lowres; train it anew with --restart" in caplog.text
    assert (copy.fold(0, CASCADE) / "model.safetensors").read_bytes() == weights
    run = copy.fold(0, CASCADE) / "run.json"
    document = json.loads(run.read_text())
    run.write_text(json.dumps(document | {"finished_epochs": 1}))
    with pytest.raises(TrainingError, match="was begun with other masks of 3d_lowres. Give the same settings to go on, or --restart"):
        copy.train(0, CASCADE)
    copy.train(0, CASCADE, restart=True)
    assert (copy.fold(0, CASCADE) / "model.safetensors").read_bytes() != weights
    assert set(masks.rglob("previous/*.npy")) > before, "a running fold keeps the masks that it began with"


def test_a_mask_that_is_not_what_was_predicted_is_refused(copy):
    (case, *_) = copy.held_out(1)
    path = copy.fold(1, LOWRES) / "masks" / f"{case}.nii.gz"
    path.write_bytes((copy.fold(1, LOWRES) / "masks" / f"{copy.held_out(1)[1]}.nii.gz").read_bytes())
    with pytest.raises(
        TrainingError, match=rf"case {case}: .*not what was predicted\nPredict them anew:\n  rm .*summary.json; autoseg_train 1"
    ):
        copy.train(0, CASCADE)
    (copy.fold(1, LOWRES) / "summary.json").unlink()
    copy.train(1, LOWRES)
    copy.train(0, CASCADE)


def test_out_of_fold_means_out_of_fold_in_a_cascade(copy):
    """A held-out case's label corrupted and the first stage's masks held: nothing of it reaches the second stage."""
    (corrupt, *_) = copy.held_out(0)

    def result():
        folder = copy.fold(0, CASCADE)
        return [path.read_bytes() for path in (folder / "model.safetensors", *sorted((folder / "masks").glob("*.nii.gz")))]

    clean = result()
    *_, mask = copy.arrays(corrupt)
    copy.write((2 - mask).astype(np.uint8), copy.label(corrupt))
    copy.train(0, CASCADE, restart=True)
    assert result() == clean


@pytest.mark.slow
def test_nested_masks_leave_no_trace_of_a_held_out_case(tmp_path):
    """A case's label corrupted and everything trained anew, both stages: its own cascade mask stays bit for bit."""
    dataset = CascadeDataset(tmp_path / "Tiny")
    dataset.plan("cv3")
    nested = {"training.previous_masks": "nested"}
    with pytest.raises(TrainingError, match="not finished: 0, 0\\+1, 0\\+2. First run:\n  autoseg_train 0 -c 3d_lowres"):
        dataset.train(0, CASCADE, settings=nested)
    corrupt = dataset.held_out(0)[0]

    def result():
        for fold in ("0", "0+1", "0+2"):
            dataset.train(fold, LOWRES, restart=True)
        dataset.train(0, CASCADE, restart=True, settings=nested, iterations=2)
        folder = dataset.fold(0, CASCADE, "cv3")
        return [path.read_bytes() for path in (folder / "model.safetensors", *sorted((folder / "masks").glob("*.nii.gz")))]

    clean = result()
    *_, mask = dataset.arrays(corrupt)
    dataset.write((2 - mask).astype(np.uint8), dataset.label(corrupt))
    assert result() == clean
    assert [path.name for path in (dataset.work / "default" / LOWRES / "cv3").glob("fold_*")] == ["fold_0"], (
        "joint folds are never ensembled"
    )


def test_2d_is_trained_and_predicted_slice_by_slice(trained, run, tmp_path):
    dataset = trained.dataset
    run("train", 0, "-c", "2d", "-d", dataset.folder, *QUICK, "--workers", 0)
    run("predict", "-c", "2d", "-d", dataset.folder, "-i", *images(dataset, "case00"), "-o", tmp_path)
    found = mask_of(tmp_path / "case00.nii.gz")
    assert found.shape == dataset.shape
    alone = Predictor(dataset.fold(0, "2d").parent, device="cpu").predict(
        np.stack([mask_of(path)[4:5] for path in images(dataset, "case00")]), spacing=dataset.spacing
    )
    assert alone.mask.shape == (1, *dataset.shape[1:])


def test_a_cascade_is_compared_as_two_networks(copy):
    """Both stages' networks see an image; on the cases of the one fold that is trained."""
    found = choose(copy.folder, configurations=[LOWRES, CASCADE], workers=0, device="cpu", take=CASCADE)
    assert list(found.judged.decision.scores) == [LOWRES, CASCADE, f"{LOWRES}+{CASCADE}"]
    own = {name: sum(member.networks for member in members) for name, members in found.judged.candidates.items()}
    assert own == {LOWRES: 1, CASCADE: 2, f"{LOWRES}+{CASCADE}": 3}
    low, full = (found.judged.candidates[name][0] for name in (LOWRES, CASCADE))
    assert full.parameters > low.parameters
    assert found.judged.cases == tuple(copy.held_out(0))
    summary = json.loads((copy.fold(0, CASCADE) / "summary.json").read_text())
    assert found.judged.decision.scores[CASCADE] == pytest.approx(summary["dice"]["mean"])
    (note,) = [note for note in found.notes if "know the held-out cases" in note]
    assert note.startswith(f"{CASCADE}: ")
    (note,) = [note for note in found.notes if "its lead may be smaller than it looks" in note]
    assert note.startswith(f"{CASCADE} is chosen with a score that may be too high")
    assert f"and {LOWRES} had no such help" in note
    written = json.loads(found.path.read_text())["found"]
    assert written["notes"] == list(found.notes)
    assert {name: one.get("traced_through") for name, one in written["candidates"].items()} == {
        LOWRES: None,
        CASCADE: [LOWRES],
        f"{LOWRES}+{CASCADE}": [LOWRES],
    }
    alone = choose(copy.folder, configurations=[LOWRES, CASCADE], workers=0, device="cpu", take=LOWRES, pairs=False, postprocessing=False)
    assert not [note for note in alone.notes if "its lead" in note]
    assert f"(3d_cascade_fullres had learned from masks by networks of {LOWRES} that had been)" in found.methods
    opened, work = Dataset.open(copy.folder), Workspace.of(copy.folder)
    assert [out_of_fold_masks(opened, work, name).saw_patients for name in (LOWRES, CASCADE)] == [False, True], "prognosis knows it too"
