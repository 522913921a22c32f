"""Models that earlier releases wrote still open, and still predict what they did; see tests/golden/README.md."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from golden.write_golden import patch_logits

from autoseg.inference.model_folder import ModelFolder
from autoseg.inference.predictor import Predictor

FOLDER = Path(__file__).parents[2] / "golden"
GOLDEN = sorted(path.name for path in FOLDER.glob("model-*"))


def case_images(golden):
    return [str(path) for path in sorted((golden / "images").iterdir())]


def test_there_are_golden_models_and_each_is_described():
    described = (FOLDER / "README.md").read_text()
    assert GOLDEN[0] == "model-1"
    assert [name for name in GOLDEN if f"| `{name}` |" not in described] == []


@pytest.mark.parametrize("name", GOLDEN)
def test_the_model_opens_and_its_network_computes_what_it_did(name):
    opened = ModelFolder.open(FOLDER / name / "model")
    expected = np.load(FOLDER / name / "logits.npy", allow_pickle=False)
    assert opened.fingerprint is not None
    assert np.abs(patch_logits(opened, opened.folds[0]) - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize("name", GOLDEN)
def test_the_mask_is_the_same_voxel_for_voxel(name):
    expected = sitk.ReadImage(str(FOLDER / name / "mask.nii.gz"))
    found = Predictor(FOLDER / name / "model", device="cpu", precision="fp32").predict(case_images(FOLDER / name))
    assert np.array_equal(found.mask, sitk.GetArrayFromImage(expected))
    assert len(np.unique(found.mask)) == len(json.loads((FOLDER / name / "model" / "dataset.json").read_text())["labels"])


@pytest.mark.parametrize("name", GOLDEN)
def test_the_command_predicts_it_whatever_number_format_this_processor_prefers(name, run, tmp_path):
    run("predict", "-m", FOLDER / name / "model", "-i", FOLDER / name / "images", "-o", tmp_path, "--workers", 0)
    expected, found = (sitk.ReadImage(str(path)) for path in (FOLDER / name / "mask.nii.gz", tmp_path / "new.nii.gz"))
    assert found.GetSize() == expected.GetSize()
    assert np.allclose(found.GetDirection(), expected.GetDirection())
    assert (sitk.GetArrayFromImage(found) == sitk.GetArrayFromImage(expected)).mean() > 0.999
