"""Choosing by the installed commands: two configurations trained for a moment, compared alone and together, and what predicts then."""

import json
import logging
import shutil

import numpy as np
import pytest
import SimpleITK as sitk
from cascades import CascadeDataset

from autoseg.choosing.choose import choose
from autoseg.errors import FoldNotFinished, ModelError, PlanError, TrainingError
from autoseg.inference.predict import predict_folder
from autoseg.inference.predictor import Predictor

FLAT, FULL, BOTH = "2d", "3d_fullres", "2d+3d_fullres"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Both folds of 3d_fullres and fold 0 of 2d. Not to be written into."""
    dataset = CascadeDataset(tmp_path_factory.mktemp("choose") / "Tiny", cases=7)
    dataset.plan("cv2")
    for fold, configuration in ((0, FLAT), (0, FULL), (1, FULL)):
        dataset.train(fold, configuration)
    return dataset


@pytest.fixture(scope="module")
def chosen(trained, run):
    """The same with the pair chosen; `done` is the finished command."""
    trained.done = run("choose", "-d", trained.folder, "--take", BOTH, "--workers", 0)
    return trained


@pytest.fixture
def copy(chosen, tmp_path) -> CascadeDataset:
    shutil.copytree(chosen.folder, tmp_path / "Tiny")
    copied = object.__new__(CascadeDataset)
    copied.__dict__ |= chosen.__dict__ | {"folder": tmp_path / "Tiny"}
    return copied


def images(dataset, name):
    return [dataset.image(name, channel) for channel in (0, 1)]


def document(dataset) -> dict:
    return json.loads((dataset.work / "default" / "chosen.json").read_text())


def mask_of(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def masks_of_pair(dataset):
    return dataset.work / "default" / "choosing" / BOTH / "masks"


def predict(dataset, out, name="case00", **options):
    return predict_folder(images(dataset, name), out, dataset=dataset.folder, device="cpu", workers=0, **options)


def test_the_command_says_what_it_compared_and_what_was_missing(chosen):
    text = chosen.done.stdout
    held_out = chosen.held_out(0)
    assert f"{len(held_out)} cases of {len(held_out)} patients, out of fold" in text
    assert "note: 2d: folds 1 of cv2 are not finished; 0 are used" in text
    rest = [name for name in chosen.names if name not in held_out]
    assert f"note: {len(rest)} cases are not compared, since not all candidates have them out of fold: {', '.join(rest)}" in text
    for part in ("Rule: A candidate's score is", "- 2d+3d_fullres was asked for.", "Postprocessing: ", "For a paper:", "research use only"):
        assert part in text
    assert f"autoseg_predict -d {chosen.folder} -i IMAGES -o MASKS" in text
    assert f"1 pairs on {len(held_out)} cases: each case is predicted once by each of 2 models" in chosen.done.stderr


def test_the_choice_is_written(chosen):
    found = document(chosen)
    assert found["name"] == BOTH
    assert [(model["name"], model["folder"], sorted(model["folds"])) for model in found["models"]] == [
        (FLAT, "2d/cv2", ["0"]),
        (FULL, "3d_fullres/cv2", ["0", "1"]),
    ]
    scores = {name: candidate["score"] for name, candidate in found["found"]["candidates"].items()}
    assert set(scores) == {FLAT, FULL, BOTH}
    summary = json.loads((chosen.fold(0, FLAT) / "summary.json").read_text())
    assert scores[FLAT] == pytest.approx(summary["dice"]["mean"]), "as the fold's own summary has it"
    assert found["found"]["methods"] in chosen.done.stdout


def test_the_mask_is_the_winner_of_the_mean_probabilities(chosen, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        together = predict(chosen, tmp_path / "both", save_probabilities=True)
    assert "chosen.json: the mean probabilities of 2d+3d_fullres; postprocessing: none. -c NAME takes one configuration" in caplog.text
    parts = []
    for name in (FLAT, FULL):
        predict(chosen, tmp_path / name, configuration=name, save_probabilities=True)
        parts.append(np.load(tmp_path / name / "case00.probabilities.npy").astype(np.float32))
    mean = (parts[0] + parts[1]) / 2
    found = mask_of(together.cases[0].path)
    assert np.array_equal(found, mean.argmax(0))
    assert len(np.unique(found)) > 1
    assert not np.array_equal(found, parts[0].argmax(0)) or not np.array_equal(found, parts[1].argmax(0))
    assert np.array_equal(np.load(tmp_path / "both" / "case00.probabilities.npy"), mean.astype(np.float16))
    left = {path.name for path in (tmp_path / "both").iterdir()}
    assert left == {"case00.nii.gz", "case00.probabilities.npy", "predictions.jsonl", "review.csv"}, "nothing of the models' own is left"


def test_a_pairs_masks_are_out_of_fold(chosen):
    """Fold 0 of both held the case out."""
    name = chosen.held_out(0)[0]
    assert sorted(path.name for path in masks_of_pair(chosen).glob("*.nii.gz")) == [f"{case}.nii.gz" for case in chosen.held_out(0)]
    parts = [
        Predictor(chosen.fold(0, configuration).parent, folds=[0], device="cpu").predict(images(chosen, name), probabilities=True)
        for configuration in (FLAT, FULL)
    ]
    mean = sum(part.probabilities.astype(np.float32) for part in parts) / 2
    assert np.array_equal(mask_of(masks_of_pair(chosen) / f"{name}.nii.gz"), mean.argmax(0))


def test_what_is_done_is_kept_and_what_is_damaged_is_done_again(copy):
    masks = sorted(masks_of_pair(copy).glob("*.nii.gz"))
    damaged, content = masks[0], masks[0].read_bytes()
    damaged.write_bytes(b"cut short")
    before = {path: path.stat().st_mtime_ns for path in masks}
    again = choose(copy.folder, workers=0, device="cpu")
    assert damaged.read_bytes() == content
    assert [path for path in masks if path.stat().st_mtime_ns != before[path]] == [damaged]
    assert again.judged.decision.scores == pytest.approx({name: c["score"] for name, c in document(copy)["found"]["candidates"].items()})


def test_the_rule_decides_unless_asked_otherwise(copy):
    """Four patients: too few for more networks than one."""
    found = choose(copy.folder, workers=0, device="cpu")
    scores = found.judged.decision.scores
    assert found.choice.name == max((FLAT, FULL), key=scores.get)
    assert "too few patients" in found.judged.decision.reasons[1]
    alone = choose(copy.folder, pairs=False, configurations=[FULL], postprocessing=False, workers=0)
    assert (list(alone.judged.decision.scores), alone.choice.rules, alone.found) == ([FULL], (), None)
    assert len(alone.judged.cases) == 7, "every case that this one has"
    assert document(copy)["models"] == [document(copy)["models"][0]]


def test_rules_are_applied_to_the_mask_on_the_images_grid(copy, tmp_path):
    plain = mask_of(predict(copy, tmp_path / "out", save_probabilities=True).cases[0].path)
    probabilities = np.load(tmp_path / "out" / "case00.probabilities.npy")
    path = copy.work / "default" / "chosen.json"
    path.write_text(json.dumps(document(copy) | {"postprocessing": [{"rule": "minimum_size", "of": ["ball"], "mm3": 1e6}]}))
    again = predict(copy, tmp_path / "out", resume=True, save_probabilities=True)
    assert not again.cases[0].skipped, "made by other rules"
    found = mask_of(again.cases[0].path)
    assert (plain == 1).any()
    assert np.array_equal(found, np.where(plain == 1, 0, plain))
    assert np.array_equal(np.load(tmp_path / "out" / "case00.probabilities.npy"), probabilities)
    assert predict(copy, tmp_path / "out", resume=True).cases[0].skipped
    path.write_text(json.dumps(document(copy) | {"postprocessing": [{"rule": "largest_component", "of": ["liver"]}]}))
    with pytest.raises(ModelError, match=r"chosen\.json: a rule is about liver; the model has: ball, core"):
        predict(copy, tmp_path / "out")


def test_a_model_that_is_trained_anew_or_gone_is_told(copy, tmp_path, caplog):
    path = copy.work / "default" / "chosen.json"
    found = document(copy)
    found["models"][0]["folds"]["0"] = "0" * 64
    path.write_text(json.dumps(found))
    predict(copy, tmp_path / "out")
    assert "2d was trained anew since it was chosen (folds 0): compare again with autoseg_choose" in caplog.text
    shutil.rmtree(copy.fold(0, FLAT).parent)
    with pytest.raises(
        ModelError, match=r"was made of 2d\+3d_fullres: .*there is no model folder here.*\nChoose again with autoseg_choose"
    ):
        predict(copy, tmp_path / "out")
    assert predict(copy, tmp_path / "out", configuration=FULL).model == copy.fold(0, FULL).parent
    path.write_text("{}")
    with pytest.raises(ModelError, match="'schema' must be 'autoseg-choice/1'"):
        predict(copy, tmp_path / "out")


def test_a_fold_that_is_not_there_is_no_reason_to_choose_again(copy, tmp_path):
    message = r"chose 2d\+3d_fullres.*2d/cv2: no finished fold 1; finished: 0.*Without folds \(-f\)"
    with pytest.raises(FoldNotFinished, match=message) as caught:
        predict(copy, tmp_path / "out", folds=["1"])
    assert "Choose again" not in str(caught.value)
    assert predict(copy, tmp_path / "out", folds=["1"], configuration=FULL).folds == ("1",)


def test_plans_side_by_side(copy):
    """The second plan is a copy of the first one: all scores are equal, and the simplest name wins."""
    shutil.copytree(copy.work / "default", copy.work / "other")
    found = choose(copy.folder, names=["default", "other"], configurations=[FULL], workers=0, device="cpu")
    assert found.judged.decision.scores == pytest.approx(
        dict.fromkeys(
            ["default-3d_fullres", "other-3d_fullres", "default-3d_fullres+other-3d_fullres"],
            found.judged.decision.scores["default-3d_fullres"],
        )
    )
    assert found.choice.name == "default-3d_fullres"
    other = choose(copy.folder, names=["default", "other"], configurations=[FULL], pairs=False, take="other-3d_fullres", workers=0)
    assert document(copy)["models"][0]["folder"] == "../other/3d_fullres/cv2"
    assert other.path == copy.work / "default" / "chosen.json"
    assert predict(copy, copy.folder / "out").cases


def test_what_cannot_be_compared_is_told(copy):
    with pytest.raises(PlanError, match="-c 4d: no plan has such a configuration; there are: 2d, 3d_fullres"):
        choose(copy.folder, configurations=["4d"], workers=0)
    with pytest.raises(
        TrainingError, match=r"--take 3d_fullres\+2d: there is no such candidate; there are: 2d, 3d_fullres, 2d\+3d_fullres"
    ):
        choose(copy.folder, take="3d_fullres+2d", workers=0)
    for case in copy.held_out(0):
        (copy.fold(0, FULL) / "masks" / f"{case}.nii.gz").unlink()
    with pytest.raises(TrainingError, match="no case was held out and predicted by all of these"):
        choose(copy.folder, workers=0)
    shutil.rmtree(copy.fold(0, FLAT))
    with pytest.raises(TrainingError, match="no fold of 2d is finished with its held-out cases predicted"):
        choose(copy.folder, configurations=[FLAT], workers=0)
