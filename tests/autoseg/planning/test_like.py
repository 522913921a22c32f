"""A plan like a trained model's: the model's weights fit the network of a dataset that would be planned otherwise."""

import json

import pytest
from tiny import TinyDataset

from autoseg.errors import ModelError, PlanError
from autoseg.inference.model_documents import ModelDataset
from autoseg.inference.model_writing import write_model_folder
from autoseg.networks.build import build_network
from autoseg.planning.planning import plan
from autoseg.training.initial_weights import open_weights, starting_network


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


def test_a_configuration_that_is_not_planned(model, tmp_path):
    folder, _ = model
    flat = TinyDataset(tmp_path / "Flat", cases=5, shape=(1, 40, 40))
    with pytest.raises(PlanError, match="3d_fullres"):
        plan(flat.folder, preset="laptop", like=folder, workers=0)
