import pytest
from fitted import ready_dataset

from autoseg import files


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    return ready_dataset(tmp_path_factory.mktemp("ready") / "D")


@pytest.fixture
def document(tmp_path):
    """Reads predictions.json of an output folder."""
    return lambda folder: files.read_json(folder / "predictions.json")
