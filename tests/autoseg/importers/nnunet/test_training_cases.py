"""What nnU-Net left of its training cases comes into the model folder, and judges what is predicted."""

import json
import logging

import numpy as np
import pytest
import SimpleITK as sitk
from nnunet_model import NNUNetModel

from autoseg.importers.nnunet import import_nnunet_model
from autoseg.inference.model_exchange import export_model, import_model
from autoseg.inference.model_folder import ModelFolder
from autoseg.inference.predict import predict_folder

SPACINGS = [[3.0, 1.5, 1.25]] * 4 + [[4.0, 1.5, 1.25]]
SHAPES = [[5, 10, 9], [5, 10, 10], [5, 10, 9], [6, 10, 10], [5, 10, 9]]


@pytest.fixture
def model(tmp_path):
    """With the file that nnU-Net's training copies beside the plans, in which axes are as read, and medians that are transposed."""
    model = NNUNetModel(tmp_path / "results")
    model.plans |= {
        "transpose_forward": [1, 0, 2],
        "transpose_backward": [1, 0, 2],
        "original_median_spacing_after_transp": [1.5, 3.0, 1.25],
        "original_median_shape_after_transp": [10, 5, 9],
    }
    write_fingerprint(model)
    return model


def write_fingerprint(model, **changes):
    model.folder.mkdir(parents=True, exist_ok=True)
    properties = model.plans["foreground_intensity_properties_per_channel"]
    document = {
        "foreground_intensity_properties_per_channel": properties,
        "median_relative_size_after_cropping": 1.0,
        "shapes_after_crop": SHAPES,
        "spacings": SPACINGS,
    }
    (model.folder / "dataset_fingerprint.json").write_text(json.dumps(document | changes))


def imported(model, tmp_path, source=None):
    import_nnunet_model(source or model.folder, tmp_path / "out")
    return ModelFolder.open(tmp_path / "out")


def test_grids_and_intensities_are_taken_in(model, tmp_path):
    model.write()
    known = imported(model, tmp_path, model.zip(tmp_path / "model.zip")).partial
    assert known.spacings == tuple(map(tuple, SPACINGS))
    assert known.shapes_after_crop == tuple(map(tuple, SHAPES))
    assert [(one.mean, one.minimum, one.percentile_99_5) for one in known.foreground] == [(40, -900, 300), (3, -900, 300)]
    assert known.source == "nnU-Net's plans.json and dataset_fingerprint.json"
    export_model(tmp_path / "out", tmp_path / "packed.zip")
    import_model(tmp_path / "packed.zip", tmp_path / "again")
    assert ModelFolder.open(tmp_path / "again").partial == known


def test_plans_alone_tell_of_intensities(model, tmp_path, caplog):
    model.write()
    (model.folder / "dataset_fingerprint.json").unlink()
    del model.plans["foreground_intensity_properties_per_channel"]["1"]["std"]
    (model.folder / "plans.json").write_text(json.dumps(model.plans))
    known = imported(model, tmp_path).partial
    assert (known.spacings, known.shapes_after_crop) == ((), ())
    assert known.foreground[0].median == 35
    assert known.foreground[1] is None
    assert known.source == "nnU-Net's plans.json alone, without dataset_fingerprint.json"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spacings": [[3.0, 1.5, 2.0]] * 5}, "is of other cases: their original_median_spacing_after_transp is"),
        ({"shapes_after_crop": [[50, 10, 9]] * 5}, "is of other cases: their original_median_shape_after_transp is"),
        ({"spacings": SPACINGS[:3]}, "has 3 spacings and 5 shapes"),
        ({"spacings": [[1.0, 2.0]]}, "'spacings' must be a list of three numbers a case"),
        ({"spacings": "none"}, "'spacings' must be a list"),
        ({"shapes_after_crop": [[10**400, 10, 9]] * 5}, "'shapes_after_crop' must be a list of three numbers a case"),
    ],
)
def test_a_file_of_other_cases_is_left_out_and_said(model, tmp_path, changes, message, caplog):
    model.write()
    write_fingerprint(model, **changes)
    known = imported(model, tmp_path).partial
    assert known.spacings == ()
    assert known.foreground[0].mean == 40
    assert "dataset_fingerprint.json is not used to judge new cases" in caplog.text
    assert message in caplog.text


def test_a_case_is_judged_by_it(model, tmp_path):
    model.write()
    imported(model, tmp_path)
    (tmp_path / "in").mkdir()
    for name, spacing, scale in (("A", (1.25, 1.5, 3.0), 400), ("B", (1.25, 1.5, 6.0), 400), ("C", (1.25, 1.5, 3.0), 0.1)):
        for channel in (0, 1):
            values = np.random.default_rng(channel).normal(size=(5, 10, 9)) * (scale if channel == 0 else 1)
            image = sitk.GetImageFromArray(values.astype(np.float32))
            image.SetSpacing(spacing)
            sitk.WriteImage(image, str(tmp_path / "in" / f"{name}_{channel:04d}.nii.gz"))
    result = predict_folder([tmp_path / "in"], tmp_path / "masks", model=tmp_path / "out", device="cpu", mirroring=False, workers=0)
    found = {case.case: [(one.measure, one.channel) for one in case.review.findings] for case in result.cases}
    assert found == {"A": [], "B": [("spacing.z", "")], "C": [("window", "CT")]}
    (note,) = result.notes
    assert (
        "Cases are judged by: spacing, extent, missing CT or PET, unit of CT. Not judged: intensities, noise, sharpness, orientation"
        in note
    )
