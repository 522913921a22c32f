"""A plan like a trained model's: the model's weights fit the network of a dataset that would be planned otherwise."""

import json

import pytest
from tiny import TinyDataset

from autoseg.errors import ModelError, PlanError
from autoseg.inference.model_documents import ModelDataset
from autoseg.inference.model_folder import ModelFolder
from autoseg.inference.model_writing import write_model_folder
from autoseg.networks.build import build_network
from autoseg.planning.planning import plan
from autoseg.training.initial_weights import open_weights, starting_network
from planners.fingerprint import CaseFingerprint, merge, sketch
from planners.plan import PlanInvalid
from planners.planner import plan as planned


@pytest.fixture
def model(tmp_path):
    """A model folder of random weights, planned with a network that nothing would plan."""
    dataset = TinyDataset(tmp_path / "First", cases=5)
    made = plan(dataset.folder, preset="laptop", workers=0).plan
    spec = made.configuration("3d_fullres")
    widths = [2 * width for width in spec.network.features]
    settings = {"configurations.3d_fullres.network.features": widths, "configurations.3d_fullres.spacing": [2.5, 1.25, 1.25]}
    made = plan(dataset.folder, preset="laptop", settings=settings, name="own", workers=0).plan
    spec = made.configuration("3d_fullres")
    described = ModelDataset("First", made.channels, dict(made.labels), ".nii.gz", "3d_fullres")
    weights = build_network(spec.network, 2, made.label_scheme.heads, 3).state_dict()
    return write_model_folder(tmp_path / "model", plan=made, dataset=described, weights={"0": weights}), spec


def test_weights_fit_a_plan_like_their_model(model, tmp_path):
    folder, spec = model
    other = TinyDataset(tmp_path / "Other", cases=5, shape=(10, 24, 24))
    other.describe(channel_names={"0": "PET", "1": "MR"}, labels={"background": 0, "lesion": 1})
    usual = plan(other.folder, preset="laptop", workers=0).plan
    source = open_weights(folder, None, "0")
    with pytest.raises(ModelError, match=rf"autoseg_plan --like {folder} --name fine-tuned"):
        starting_network(source, usual, "3d_fullres")
    made = plan(
        other.folder, preset="laptop", like=folder, name="fine-tuned", settings={"configurations.3d_fullres.batch_size": 3}, workers=0
    ).plan
    starting_network(source, made, "3d_fullres")
    found = made.configuration("3d_fullres")
    assert (found.network, found.patch_size, found.spacing, found.batch_size) == (spec.network, spec.patch_size, spec.spacing, 3)
    assert found.normalisation == (spec.normalisation[1], usual.configuration("3d_fullres").normalisation[1])
    again = plan(other.folder, name="fine-tuned", workers=0)
    assert again.kept
    asked = json.loads((other.work / "fine-tuned" / "planned.json").read_text())["asked"]
    assert asked["settings"]["configurations.3d_fullres.spacing"] == [2.5, 1.25, 1.25]


def test_the_weights_mean_the_axes_that_they_meant(model, tmp_path, caplog):
    """The images are coarse along x, the model's were along z: its axis order is taken, so that its spacing stays one of z, y and x."""
    folder, spec = model
    sagittal = TinyDataset(tmp_path / "Sagittal", cases=0, shape=(20, 20, 12))
    sagittal.spacing = (1.0, 1.5, 2.0)
    sagittal.names = [f"case{index}" for index in range(5)]
    for name in sagittal.names:
        sagittal.add(name)
    usual = plan(sagittal.folder, preset="laptop", workers=0).plan
    assert (ModelFolder.open(folder).plan.transpose, usual.transpose) == ((0, 1, 2), (2, 0, 1))
    with pytest.raises(PlanError, match=r"--like and --set transpose=\[0, 1, 2\] .*planned with transpose=\[2, 0, 1\]\).*--replan"):
        plan(sagittal.folder, like=folder, workers=0)
    made = plan(sagittal.folder, preset="laptop", like=folder, name="like", workers=0)
    found = made.plan.configuration("3d_fullres")
    assert (made.plan.transpose, found.spacing, found.patch_size) == ((0, 1, 2), spec.spacing, spec.patch_size)
    assert found.median_shape == (8.0, 24.0, 19.0)  # 20 x 1 / 2.5, 20 x 1.5 / 1.25, 12 x 2 / 1.25
    assert made.plan.reasons["transpose"].startswith("[0, 1, 2], as asked for; planned was [2, 0, 1]: array axis 2")
    assert plan(sagittal.folder, like=folder, name="like", workers=0).kept
    replanned = plan(sagittal.folder, name="like", replan=True, workers=0).plan
    assert replanned == made.plan
    caplog.clear()
    starting_network(open_weights(folder, None, "0"), made.plan, "3d_fullres")
    assert "axis order" not in caplog.text
    turned = made.plan.model_copy(update={"transpose": (2, 0, 1)})
    starting_network(open_weights(folder, None, "0"), turned, "3d_fullres")
    assert "trained with axis order (transpose) [0, 1, 2], the plan has [2, 0, 1]" in caplog.text


def test_a_plan_like_a_model_by_a_release_that_took_no_axis_order_stays_where_the_order_is_the_same(model, tmp_path):
    folder, _ = model
    other = TinyDataset(tmp_path / "Other", cases=5)
    made = plan(other.folder, preset="laptop", like=folder, workers=0)
    record = json.loads(made.workspace.planned.read_text())
    assert record["asked"]["settings"].pop("transpose") == [0, 1, 2]
    made.workspace.planned.write_text(json.dumps(record))
    assert plan(other.folder, like=folder, workers=0).kept
    with pytest.raises(PlanError) as refused:
        plan(other.folder, like=folder, settings={"training.epochs": 3}, workers=0)
    assert "--like and --set training.epochs=3 (it was planned with none). Replace it" in str(refused.value), "and nothing that is the same"


def test_images_in_another_orientation_than_the_models_are_told(model, tmp_path):
    folder, _ = model
    other = TinyDataset(tmp_path / "Other", cases=5)
    assert not any("orientation" in note for note in plan(other.folder, preset="laptop", like=folder, workers=0).notes)
    stored = plan(other.folder, preset="laptop", like=folder, orientation="as_stored", name="stored", workers=0)
    assert any("trained on images with orientation canonical, and this plan has as_stored" in note for note in stored.notes)


def test_slices_are_never_cut_across(slices):
    """Images of one slice along x, and a model whose network sees slices along z."""
    with pytest.raises(PlanInvalid, match="slices along array axis 2, which must come first"):
        planned(slices, transpose=(0, 1, 2))
    assert planned(slices, transpose=(2, 1, 0)).configurations["2d"].median_shape == (50.0, 40.0)


@pytest.fixture
def slices():
    values = (sketch([0.0, 1.0]),)
    shape = (40, 50, 1)
    case = CaseFingerprint("c", "c", "", (1.0, 1.0, 1.0), shape, shape, 1.0, "LPS", values, values, {1: 1}, {1: (1.0,)})
    return merge(("MR",), {"background": 0, "lesion": 1}, [case])


def test_a_configuration_that_is_not_planned(model, tmp_path):
    folder, _ = model
    flat = TinyDataset(tmp_path / "Flat", cases=5, shape=(1, 40, 40))
    with pytest.raises(PlanError, match="3d_fullres"):
        plan(flat.folder, preset="laptop", like=folder, workers=0)
