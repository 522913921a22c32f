import csv
import json
import math

import numpy as np
import pytest

from autoseg.commands import evaluate
from autoseg.images import Geometry, write_mask
from autoseg.importers.generated import write_generated_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_generated_dataset(tmp_path_factory.mktemp("generated") / "set", cases=1, test_cases=3, shape=(12, 24, 24))


@pytest.fixture
def predictions(dataset, tmp_path):
    from autoseg.images import read_mask

    folder = tmp_path / "masks"
    folder.mkdir()
    for path in sorted((dataset / "labelsTs").iterdir()):
        mask = read_mask(path)
        write_mask(folder / path.name, np.where(mask.array == 1, 1, 0).astype(np.uint8), mask.geometry)
    return folder


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        evaluate.main([str(argument) for argument in arguments])
    return ended.value.code


def test_everything_it_writes(dataset, predictions, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = {kind: tmp_path / f"out.{kind}" for kind in ("json", "csv", "summary")}
    options = [part for kind, path in files.items() for part in (f"--{kind}", path)]
    status = run(dataset / "labelsTs", predictions, *options, "--pictures", tmp_path / "pictures", "--workers", 0)
    assert status == 0
    printed = capsys.readouterr().out
    assert "GTVp" in printed
    assert "South" in printed
    document = json.loads(files["json"].read_text())
    assert document["status"] == 0
    assert document["result"]["summary"]["all"]["GTVp"]["dice"]["mean"] == 1
    assert document["result"]["summary"]["all"]["GTVn"]["dice"]["mean"] == 0
    assert document["result"]["settings"] == {"tolerance_mm": 2.0, "lesion_iou": 0.1, "connectivity": 26}
    rows = list(csv.DictReader(files["csv"].read_text().splitlines()))
    assert {(row["case"], row["centre"]) for row in rows} == {("south-501", "South"), ("north-502", "North"), ("south-503", "South")}
    summary = json.loads(files["summary"].read_text())
    assert summary["mean"]["1"]["Dice"] == 1
    assert summary["metric_per_case"][0]["prediction_file"].startswith(str(predictions))
    assert len(list((tmp_path / "pictures").iterdir())) == 3


def test_a_missing_prediction_is_status_3_and_the_rest_is_done(dataset, predictions, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (predictions / "south-501.nii.gz").unlink()
    assert run(dataset / "labelsTs", predictions, "--csv", tmp_path / "a.csv") == 3
    streams = capsys.readouterr()
    assert "failed: case south-501: no prediction" in streams.out
    assert streams.err.splitlines()[-1] == "error: 1 case failed, 2 done; the report names what failed"
    assert (streams.out + streams.err).count("no prediction") == 1
    assert "no prediction" in (tmp_path / "a.csv").read_text()


def test_settings_reach_the_metrics(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mask = np.zeros((8, 8, 8), np.uint8)
    mask[2:5, 2:5, 2:5] = 1
    for name, array in (("r", mask), ("p", np.roll(mask, 2, axis=0))):
        (tmp_path / name).mkdir()
        write_mask(tmp_path / name / "a.nii.gz", array, Geometry(mask.shape, (1.0, 1.0, 1.0)))
    out = tmp_path / "a.json"
    for options, expected in (
        ((), (1.0, 1.0)),
        (("--nsd-tolerance", "0.5", "--lesion-iou", "0.3"), (None, 0.0)),
    ):
        assert run("r", "p", "--json", out, *options) == 0
        scores = json.loads(out.read_text())["result"]["cases"][0]["labels"]["label_1"]
        assert scores["lesion_f1"] == expected[1]
        assert scores["surface_dice"] == expected[0] or scores["surface_dice"] < 0.9
        assert math.isclose(scores["hd95_mm"], 2.0)
    assert "labels are named by their values" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere", "p"), "nowhere: the reference folder does not exist"),
        (("r", "p", "--nsd-tolerance", "-1"), "tolerance_mm must be 0 or more, found -1"),
        (("r", "p", "-d", "r"), "dataset.json"),
        (("r", "p", "--pictures", "x"), "--pictures needs the images"),
    ],
)
def test_wrong_input_is_status_2(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    for name in ("r", "p"):
        (tmp_path / name).mkdir()
        write_mask(tmp_path / name / "a.nii.gz", np.ones((3, 3, 3), np.uint8), Geometry((3, 3, 3), (1.0, 1.0, 1.0)))
    assert run(*arguments) == 2
    streams = capsys.readouterr()
    assert message in streams.err
    assert streams.out == ""  # before anything is measured
