import json

import numpy as np
import pytest

from autoseg.commands import convert
from autoseg.dataset import Dataset
from autoseg.dataset.table import read_table
from autoseg.errors import DatasetError
from autoseg.images import read_image, read_mask, reorientation_to_canonical
from autoseg.importers.generated import write_generated_dataset
from autoseg.importers.phantom import CENTRES, generate_case


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_generated_dataset(tmp_path_factory.mktemp("generated") / "set", cases=7, test_cases=2, seed=4)


def test_is_a_dataset(folder):
    dataset = Dataset.open(folder)
    assert dataset.channels == ("CT", "PET")
    assert dataset.labels == {"background": 0, "GTVp": 1, "GTVn": 2}
    assert len(dataset.cases) == 7
    assert {case.centre for case in dataset.cases} == {"North", "South"}
    assert dataset.notes == (), "nothing of it is odd: whose the test cases are stands in a table of their own"
    assert read_table(folder / "casesTs.csv")["north-502"].centre == "North"
    assert len(list((folder / "imagesTs").iterdir())) == 4
    assert len(list((folder / "labelsTs").iterdir())) == 2


def test_a_patient_comes_twice(folder):
    cases = {case.name: case for case in Dataset.open(folder).cases}
    assert cases["north-006b"].patient == cases["north-006"].patient == "north-006"
    assert len({case.patient for case in cases.values()}) == 6


@pytest.mark.parametrize(("name", "number", "centre"), [("south-001", 1, CENTRES[1]), ("north-002", 2, CENTRES[0])])
def test_files_hold_the_phantom_in_their_own_orientation(folder, name, number, centre):
    phantom = generate_case(4, number, 0, centre)
    stored = [read_image(folder / "imagesTr" / f"{name}_{channel:04d}.nii.gz") for channel in range(2)]
    mask = read_mask(folder / "labelsTr" / f"{name}.nii.gz")
    assert mask.geometry.spacing == pytest.approx(centre.spacing)
    flipped = centre.name == "South"
    assert np.diag(np.reshape(mask.geometry.direction, (3, 3))).tolist() == pytest.approx([-1, -1, 1] if flipped else [1, 1, 1])
    turned = np.flip(mask.array, (1, 2)) if flipped else mask.array
    assert np.array_equal(turned, phantom.labels)
    for image, expected in zip(stored, phantom.images, strict=True):
        assert np.array_equal(np.flip(image.array, (1, 2)) if flipped else image.array, expected)
    # the field of view lies around 0 in either
    canonical = reorientation_to_canonical(mask.geometry).apply_geometry(mask.geometry)
    assert np.abs(canonical.origin) == pytest.approx(
        [s * (n - 1) / 2 for s, n in zip(centre.spacing[::-1], centre.shape[::-1], strict=True)]
    )


def test_a_case_does_not_depend_on_how_many_there_are(folder, tmp_path):
    other = write_generated_dataset(tmp_path / "set", cases=1, test_cases=1, seed=4)
    for name in ("labelsTr/south-001.nii.gz", "imagesTs/south-501_0001.nii.gz"):
        assert (other / name).read_bytes() == (folder / name).read_bytes()


def test_tiny_ones_for_tests(tmp_path):
    other = write_generated_dataset(tmp_path / "set", cases=2, test_cases=0, shape=(8, 16, 16))
    dataset = Dataset.open(other)
    assert read_mask(dataset.cases[0].label).array.shape == (8, 16, 16)
    assert not (other / "imagesTs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"), [({"cases": 0}, "at least 1 case"), ({"test_cases": -1}, "0 test cases"), ({}, "already")]
)
def test_wrong_wishes(folder, arguments, message):
    with pytest.raises(DatasetError, match=message):
        write_generated_dataset(folder, **arguments)


def test_command(tmp_path, capsys):
    result = tmp_path / "result.json"
    with pytest.raises(SystemExit) as ended:
        convert.main(["generated", str(tmp_path / "set"), "--cases", "1", "--test-cases", "1", "--seed", "9", "--json", str(result)])
    assert ended.value.code == 0
    assert "1 training and 1 test cases" in capsys.readouterr().out
    assert json.loads(result.read_text())["result"]["seed"] == 9
    with pytest.raises(SystemExit) as ended:
        convert.main(["generated", str(tmp_path / "set")])
    assert ended.value.code == 2
    assert "already" in capsys.readouterr().err
