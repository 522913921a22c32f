import json
from pathlib import Path

import pytest

from autoseg.errors import DatasetError
from autoseg.evaluation.names import names_for


@pytest.fixture
def dataset(tmp_path):
    folder = tmp_path / "Set"
    (folder / "labelsTs").mkdir(parents=True)
    (folder / "dataset.json").write_text(
        json.dumps({"channel_names": {"0": "CT"}, "labels": {"background": 0, "tumour": 1}, "file_ending": ".nii.gz"})
    )
    (folder / "cases.csv").write_text("case,patient,centre\na,a,North\nb,b,\n")
    return folder


def test_from_the_folder_around_the_references(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = names_for(dataset / "labelsTs")
    assert names.labels == {"background": 0, "tumour": 1}
    assert names.centres == {"a": "North"}
    assert names.folder == dataset


def test_the_current_folder_comes_first(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(dataset)
    assert names_for(tmp_path).labels == {"background": 0, "tumour": 1}


def test_no_dataset_is_said(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    assert names_for(tmp_path / "masks").labels is None
    assert "labels are named by their values" in caplog.text
    caplog.clear()
    assert names_for(tmp_path / "masks", are_labels_known=True).labels is None
    assert not caplog.records, "a challenge brings its own"


def test_a_named_folder_must_be_a_dataset(tmp_path):
    with pytest.raises(DatasetError, match=r"dataset\.json"):
        names_for(tmp_path / "masks", tmp_path)


def test_the_current_folder_named_must_be_a_dataset(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError, match=r"dataset\.json"):
        names_for(dataset / "labelsTs", Path("."))


def test_cases_to_predict_have_a_table_of_their_own(dataset, tmp_path):
    (dataset / "casesTs.csv").write_text("case,patient,centre\nb,b,South\nc,c,West\na,a,East\n")
    assert names_for(dataset / "labelsTs", dataset).centres == {"a": "North", "b": "South", "c": "West"}
