"""A folder of models as a container has it, and input folders as the challenges' platform makes them."""

import shutil
from types import SimpleNamespace

import pytest
from challenge_input import Input
from fitted import ready_dataset
from segmented import CONFIGURATION


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """`dataset`: the workspace; `models`: what of it goes into a container."""
    folder = tmp_path_factory.mktemp("challenge")
    dataset = ready_dataset(folder / "D").dataset
    models = folder / "models"
    shutil.copytree(dataset.work.model(CONFIGURATION, dataset.scheme), models / "segmentation")
    for target in ("rfs", "hpv"):
        place = models / "prognosis" / target / "model.json"
        place.parent.mkdir(parents=True)
        shutil.copy(dataset.work.root / "default" / "prognosis" / target / "model.json", place)
    return SimpleNamespace(dataset=dataset, models=models)


@pytest.fixture
def patient(tmp_path) -> Input:
    return Input(tmp_path / "input")
