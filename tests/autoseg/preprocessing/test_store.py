"""Prepared cases on disk: round trips, what counts as complete, damage, and the keys."""

import json

import numpy as np
import pytest

from autoseg.errors import DatasetError
from autoseg.preprocessing import store
from autoseg.preprocessing.prepare import prepare
from autoseg.preprocessing.store import case_damage, cases_key, class_locations, discard_case, is_complete, open_case, write_case
from planners.plan import CTNormalisation, ZScoreNormalisation
from planners.settings import override

PARTS = ("data", "labels", "locations")


@pytest.fixture
def prepared(image_of, plan_of, body):
    return prepare([image_of(body[0])], image_of(body[1]), plan_of((0.5, 1.0, 1.0)), "c")


def test_round_trip(tmp_path, prepared):
    write_case(tmp_path / "new", "a", prepared, key="k")
    case = open_case(tmp_path / "new", "a")
    np.testing.assert_array_equal(case.data, prepared.data)
    np.testing.assert_array_equal(case.labels, prepared.labels)
    assert case.name == "a"
    assert case.data.dtype == np.float32
    assert case.properties == prepared.properties
    assert sorted(case.locations) == [1, 2]
    for label, places in case.locations.items():
        np.testing.assert_array_equal(places, np.argwhere(prepared.labels == label))
    assert case_damage(tmp_path / "new", "a") is None
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a.data.npy", "a.json", "a.labels.npy", "a.locations.npy"]


def test_arrays_are_read_only_maps(tmp_path, prepared):
    write_case(tmp_path, "a", prepared)
    case = open_case(tmp_path, "a")
    for array in (case.data, case.labels):
        assert isinstance(array, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_without_a_mask(tmp_path, image_of, plan_of, prepared, body):
    write_case(tmp_path, "a", prepared)
    write_case(tmp_path, "a", prepare([image_of(body[0])], None, plan_of(), "c"))
    case = open_case(tmp_path, "a")
    assert case.labels is None
    assert case.locations == {}


def test_a_mask_without_foreground(tmp_path, image_of, plan_of, body):
    write_case(tmp_path, "a", prepare([image_of(body[0])], image_of(np.zeros_like(body[1])), plan_of(), "c"))
    assert open_case(tmp_path, "a").locations == {}


def test_complete_means_this_key_and_all_files(tmp_path, prepared):
    assert not is_complete(tmp_path, "a", "k")
    write_case(tmp_path, "a", prepared, key="k")
    assert is_complete(tmp_path, "a", "k")
    assert not is_complete(tmp_path, "a", "other")
    assert not is_complete(tmp_path, "b", "k")
    with open(tmp_path / "a.labels.npy", "ab") as stream:
        stream.write(b"x")
    assert not is_complete(tmp_path, "a", "k")


@pytest.mark.parametrize("failing", range(4))
def test_a_case_cut_short_while_it_is_replaced_is_not_valid(tmp_path, prepared, monkeypatch, failing):
    write_case(tmp_path, "a", prepared, key="old")
    calls = 0

    def fail_at(real):
        def write(*arguments):
            nonlocal calls
            calls += 1
            if calls > failing:
                raise OSError(28, "No space left on device")
            real(*arguments)

        return write

    monkeypatch.setattr(store, "replace_with", fail_at(store.replace_with))
    monkeypatch.setattr(store, "write_json", fail_at(store.write_json))
    with pytest.raises(OSError):
        write_case(tmp_path, "a", prepared, key="new")
    assert not is_complete(tmp_path, "a", "old")
    assert not is_complete(tmp_path, "a", "new")
    with pytest.raises(DatasetError):
        open_case(tmp_path, "a")


@pytest.mark.parametrize("part", PARTS)
def test_a_flipped_bit_is_found(tmp_path, prepared, part):
    write_case(tmp_path, "a", prepared)
    path = tmp_path / f"a.{part}.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert f"a.{part}.npy has another SHA-256" in case_damage(tmp_path, "a")
    discard_case(tmp_path, "a")
    assert not is_complete(tmp_path, "a", "")


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_or_short_file_is_told(tmp_path, prepared, part):
    write_case(tmp_path, "a", prepared)
    path = tmp_path / f"a.{part}.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DatasetError, match=rf"a.{part}.npy has \d+ bytes where \d+ were written"):
        open_case(tmp_path, "a")
    path.unlink()
    with pytest.raises(DatasetError, match=f"a.{part}.npy is missing"):
        open_case(tmp_path, "a")
    assert f"a.{part}.npy is missing" in case_damage(tmp_path, "a")


@pytest.mark.parametrize(
    "change",
    [
        lambda d: {**d, "schema": "autoseg-case/2"},
        lambda d: {k: v for k, v in d.items() if k != "files"},
        lambda d: {**d, "files": {}},
        lambda d: {**d, "files": {"data": 3}},
        lambda d: {**d, "properties": {**d["properties"], "more": 1}},
        lambda d: [d],
    ],
)
def test_a_strange_description_is_refused(tmp_path, prepared, change):
    write_case(tmp_path, "a", prepared)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(DatasetError, match="case a"):
        open_case(tmp_path, "a")


def test_objects_are_never_unpickled(tmp_path, prepared):
    write_case(tmp_path, "a", prepared)
    np.save(tmp_path / "a.locations.npy", np.array([{}], dtype=object), allow_pickle=True)
    description = json.loads((tmp_path / "a.json").read_text())
    description["files"]["locations"]["size"] = (tmp_path / "a.locations.npy").stat().st_size
    (tmp_path / "a.json").write_text(json.dumps(description))
    with pytest.raises(DatasetError, match="allow_pickle=False"):
        open_case(tmp_path, "a")


def test_locations_are_bounded_spread_and_repeatable():
    labels = np.zeros((30, 40, 50), np.int8)
    labels[:, 10:, :] = 1
    labels[0, 0, 0], labels[1, 1, 1] = -1, 5
    first = class_locations(labels, "case")
    assert {label: len(places) for label, places in first.items()} == {1: 10_000, 5: 1}
    assert first[5].tolist() == [[1, 1, 1]]
    assert first[1].dtype == np.int32
    assert (labels[tuple(first[1].T)] == 1).all()
    assert len(np.unique(first[1], axis=0)) == 10_000
    np.testing.assert_allclose(first[1].mean(axis=0), [14.5, 24.5, 24.5], atol=0.5)
    np.testing.assert_array_equal(class_locations(labels.copy(), "case")[1], first[1])
    assert (class_locations(labels, "other")[1] != first[1]).any()


def test_many_voxels_give_one_in_a_hundred(monkeypatch):
    monkeypatch.setattr(store, "FEWEST_LOCATIONS", 10)
    assert len(class_locations(np.ones((10, 10, 21), np.int8), "case")[1]) == 21


KEYED = {
    "orientation": "as_stored",
    "transpose": [1, 0, 2],
    "labels": {"background": 0, "node": 1},
    "channels": ["CT"],
    "configurations.c.spacing": [1.0, 1.0, 2.0],
    "configurations.c.normalisation": [{"kind": "ct", "lower": 0, "upper": 1, "mean": 0, "std": 2}],
    "configurations.c.resampling.image_order": 1,
    "configurations.c.resampling.label_order": 0,
    "configurations.c.resampling.separate_z_ratio": 4.0,
}
NOT_KEYED = {
    "name": "other",
    "preset": "laptop",
    "file_ending": ".nrrd",
    "geometry_tolerance": 0.5,
    "configurations.c.patch_size": [16, 16, 16],
    "configurations.c.batch_size": 3,
    "configurations.c.training.epochs": 5,
    "configurations.c.median_shape": [9.0, 9.0, 9.0],
    "configurations.c.inference.step": 0.25,
}


@pytest.mark.parametrize("field", KEYED)
def test_fields_that_shape_cases_change_the_key(plan_of, field):
    plan = plan_of(normalisation=(CTNormalisation(lower=0, upper=1, mean=0, std=1),))
    assert cases_key(override(plan, {field: KEYED[field]}), "c") != cases_key(plan, "c")


@pytest.mark.parametrize("field", NOT_KEYED)
def test_other_fields_do_not(plan_of, field):
    plan = plan_of(normalisation=(ZScoreNormalisation(),))
    assert cases_key(override(plan, {field: NOT_KEYED[field]}), "c") == cases_key(plan, "c")


def test_equal_configurations_share_a_folder(plan_of):
    plan = plan_of()
    both = plan.model_copy(update={"configurations": {**plan.configurations, "d": plan.configuration("c")}})
    assert cases_key(both, "c") == cases_key(both, "d")
