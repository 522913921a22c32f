import shutil

import numpy as np
import pytest

from autoseg.evaluation import evaluate
from autoseg.evaluation.pictures import draw_cases
from autoseg.importers.generated import write_generated_dataset


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_generated_dataset(tmp_path_factory.mktemp("generated") / "set", cases=1, test_cases=2, shape=(12, 24, 24))


def test_a_picture_a_case_in_one_orientation(folder, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("autoseg.evaluation.pictures.draw_overlay", lambda path, *arrays, **words: drawn.append((path, arrays, words)))
    masks = folder / "labelsTs"
    result = draw_cases(evaluate(masks, masks, labels={"GTVp": 1}, centres={"south-501": "South"}), masks, masks, folder, tmp_path)
    assert sorted(result) == ["north-502", "south-501"]
    for _, (images, reference, _, _), words in drawn:
        # the airway lies in front of the spine, wherever a file starts to count: front is at low y
        middle = images[0, 6, :, 12]
        assert np.argmin(middle[4:20]) < np.argmax(middle)
        assert reference.shape == images.shape[1:]
        assert words["channels"] == ("CT", "PET")
    assert {words["title"] for *_, words in drawn} == {"south-501, South", "north-502"}
    assert drawn[0][2]["dice"] == {"GTVp": 1.0}


def test_what_cannot_be_drawn_is_said(folder, tmp_path, caplog):
    masks = tmp_path / "masks"
    shutil.copytree(folder / "labelsTs", masks)
    (masks / "south-501.nii.gz").rename(masks / "stranger.nii.gz")
    result = draw_cases(evaluate(masks, masks, labels={"GTVp": 1}), masks, masks, folder, tmp_path / "pictures")
    assert list(result) == ["north-502"]
    assert (tmp_path / "pictures" / "north-502.png").stat().st_size > 10_000
    assert "case stranger: no picture" in caplog.text


def test_a_broken_training_case_that_a_plan_leaves_out_is_in_nobodys_way(folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "set")
    next((tmp_path / "set" / "imagesTr").iterdir()).unlink()
    monkeypatch.setattr("autoseg.evaluation.pictures.draw_overlay", lambda path, *arrays, **words: path.touch())
    masks = folder / "labelsTs"
    result = draw_cases(evaluate(masks, masks, labels={"GTVp": 1}), masks, masks, tmp_path / "set", tmp_path)
    assert sorted(result) == ["north-502", "south-501"]
