"""Preparing a dataset's cases: only what is missing or has changed."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from tiny import TinyDataset

from autoseg.dataset.case import Case, Source
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.workspace import Workspace
from autoseg.errors import CasesFailed, DatasetError, ImageError, ResourceError
from autoseg.locks import FoldLock
from autoseg.preprocessing.cases import case_keys, default_workers, median_voxels, prepare_cases, read_case, timed
from autoseg.preprocessing.store import case_damage, open_case
from autoseg.workers import Outcome
from planners.plan import Configuration, NoNormalisation, Plan, UNetSpec
from planners.settings import override

NETWORK = UNetSpec(features=(4,), strides=((1, 1, 1),), kernels=((3, 3, 3),), convs_per_stage=(1,), convs_per_decoder_stage=())
PLAN = Plan(
    channels=("CT", "PET"),
    labels={"background": 0, "ball": 1},
    file_ending=".nii.gz",
    orientation="as_stored",
    configurations={
        "3d_fullres": Configuration(
            dimension=3,
            spacing=TinyDataset.spacing,
            median_shape=(12.0, 20.0, 16.0),
            patch_size=(8, 8, 8),
            batch_size=2,
            normalisation=(NoNormalisation(), NoNormalisation()),
            network=NETWORK,
        )
    },
)


@pytest.fixture
def tiny(tmp_path):
    return TinyDataset(tmp_path / "Tiny", cases=3)


def prepare_all(tiny, plan=PLAN, **options):
    dataset = Dataset.open(tiny.folder)
    return prepare_cases(dataset, plan, "3d_fullres", Workspace.of(dataset.folder), **{"workers": 0} | options)


def times(folder: Path):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npy")}


def test_every_case_is_prepared_once(tiny):
    first = prepare_all(tiny)
    assert first.made == 3
    assert sorted(first.keys) == tiny.names
    for name in tiny.names:
        assert case_damage(first.folder, name) is None
        ct, pet, mask = tiny.arrays(name)
        case = open_case(first.folder, name)
        np.testing.assert_array_equal(case.data, [ct, pet])  # on its own grid and without normalisation it stays as it is
        np.testing.assert_array_equal(case.labels, mask)
    before = times(first.folder)
    second = prepare_all(tiny)
    assert second.made == 0
    assert (second.folder, second.keys) == (first.folder, first.keys)
    assert times(first.folder) == before


@pytest.mark.parametrize("part", ["image", "mask"])
def test_a_changed_file_redoes_its_own_case(tiny, part):
    first = prepare_all(tiny)
    before = times(first.folder)
    ct, _, mask = tiny.arrays("case01")
    if part == "image":
        tiny.write(ct + 7, tiny.image("case01", 0))
    else:
        mask = 1 - mask
        tiny.write(mask, tiny.label("case01"))
    second = prepare_all(tiny)
    assert second.made == 1
    assert {name for name in tiny.names if first.keys[name] != second.keys[name]} == {"case01"}
    changed = {name.split(".")[0] for name, time in times(second.folder).items() if time != before[name]}
    assert changed == {"case01"}
    case = open_case(second.folder, "case01")
    np.testing.assert_array_equal(case.data[0], ct + 7 if part == "image" else ct)
    np.testing.assert_array_equal(case.labels, mask)


def test_a_touched_file_redoes_nothing(tiny):
    prepare_all(tiny)
    os.utime(tiny.image("case01", 0), (1, 1))
    assert prepare_all(tiny).made == 0


def test_only_the_named_cases(tiny):
    done = prepare_all(tiny, names=["case02"])
    assert (done.made, list(done.keys)) == (1, ["case02"])
    assert prepare_all(tiny).made == 2


@pytest.mark.parametrize("lost", ["case01.data.npy", "case01.locations.npy", "case01.json"])
def test_a_lost_file_redoes_its_case(tiny, lost):
    folder = prepare_all(tiny).folder
    (folder / lost).unlink()
    assert prepare_all(tiny).made == 1
    assert case_damage(folder, "case01") is None


@pytest.mark.parametrize("part", ["data", "labels", "locations"])
def test_a_flipped_bit_is_noticed_when_asked_for_and_its_case_made_anew(tiny, part, caplog):
    folder = prepare_all(tiny).folder
    path = folder / f"case01.{part}.npy"
    sound = path.read_bytes()
    path.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    assert prepare_all(tiny, verify=True).made == 1
    assert path.read_bytes() == sound
    assert f"case01.{part}.npy has another SHA-256" in caplog.text
    assert prepare_all(tiny, verify=True).made == 0


def test_what_a_kill_left_behind_is_made_anew_and_cleared_away(tiny):
    folder = prepare_all(tiny).folder
    document = json.loads((folder / "case01.json").read_text())
    (folder / "case01.json").unlink()  # it is written last
    (folder / "case01.data.npy").write_bytes(b"half")
    assert prepare_all(tiny).made == 1
    assert json.loads((folder / "case01.json").read_text()) == document


def test_only_settings_that_shape_the_cases_ask_for_a_new_folder(tiny):
    first = prepare_all(tiny)
    training = prepare_all(tiny, override(PLAN, {"training.epochs": 3, "batch_size": 4, "augmentation.noise": None}))
    assert (training.folder, training.made) == (first.folder, 0)
    coarser = prepare_all(tiny, override(PLAN, {"spacing": [2.0, 3.0, 2.0]}))
    assert coarser.made == 3
    assert coarser.folder != first.folder
    assert coarser.folder.parent == first.folder.parent
    assert open_case(coarser.folder, "case00").data.shape == (2, 12, 10, 8)
    assert prepare_all(tiny).made == 0


def test_one_bad_case_does_not_stop_the_others(tiny):
    path = tiny.image("case01", 1)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CasesFailed, match="1 case failed, 2 done") as caught:
        prepare_all(tiny)
    assert len(caught.value.failures) == 1
    assert "case01" in caught.value.failures[0]
    assert caught.value.exit_status == 3
    path.write_bytes(whole)
    assert prepare_all(tiny).made == 1


def test_a_full_disk_is_found_before_anything_is_made(tiny, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 0, 10))
    with pytest.raises(ResourceError, match=r"preparing 3 cases.*free"):
        prepare_all(tiny)
    assert not list(tiny.work.rglob("*.npy"))


def test_keys_that_are_known_are_not_worked_out_again(tiny, monkeypatch):
    keys = prepare_all(tiny).keys
    monkeypatch.setattr("autoseg.preprocessing.cases.case_keys", None)
    assert prepare_all(tiny, keys=keys).made == 0
    assert prepare_all(tiny, keys=dict.fromkeys(keys, "other")).made == 3


def test_case_keys_are_about_content(tiny, tmp_path):
    twin = TinyDataset(tmp_path / "Twin", cases=3)
    first, second = (case_keys(Dataset.open(d.folder).cases, Workspace.of(d.folder)) for d in (tiny, twin))
    assert len(set(first.values())) == 3
    assert first == second


def test_read_case(tiny, tmp_path):
    ct, pet, mask = tiny.arrays("case00")
    case = Dataset.open(tiny.folder).case("case00")
    images, label = read_case(case)
    for image, expected in zip([*images, label], (ct, pet, mask), strict=True):
        np.testing.assert_array_equal(image.array, expected)
        assert image.geometry.spacing == tiny.spacing
    joined = sitk.JoinSeries([sitk.GetImageFromArray(a) for a in (ct, pet)])
    path = tmp_path / "both.nii.gz"
    sitk.WriteImage(joined, str(path))
    images, label = read_case(Case("x", (Source(path, 1), Source(path, 0)), None, "x", ""))
    assert label is None
    np.testing.assert_array_equal(images[0].array, pet)
    np.testing.assert_array_equal(images[1].array, ct)


def test_read_case_and_nonfinite_voxels(tiny):
    ct, *_ = tiny.arrays("case00")
    ct[0, 0, 0] = np.nan
    tiny.write(ct, tiny.image("case00", 0))
    case = Dataset.open(tiny.folder).case("case00")
    with pytest.raises(ImageError, match="case00"):
        read_case(case)
    images, _ = read_case(case, allow_nonfinite=True)
    assert images[0].array[0, 0, 0] == np.nanmin(ct)
    assert np.isfinite(images[0].array).all()


def test_default_workers(monkeypatch):
    monkeypatch.setattr("autoseg.preprocessing.cases.usable_cores", lambda: 8)
    monkeypatch.setattr("autoseg.preprocessing.cases.available_memory", lambda: 10_000_000_000)
    assert default_workers(3) == 0, "starting processes costs more"
    assert default_workers(5) == 5
    assert default_workers(100) == 8
    assert default_workers(100, bytes_each=2_000_000_000) == 3  # 0.8 x 10 GB for 2.3 GB each
    assert default_workers(100, bytes_each=20_000_000_000) == 0


def test_a_second_job_waits_and_then_finds_the_cases_done(tiny, monkeypatch, caplog):
    caplog.set_level("INFO")
    folder = prepare_all(tiny).folder
    made = times(folder)
    (aside := tiny.work / "aside").mkdir()
    for path in folder.glob("case01.json"):
        path.rename(aside / path.name)  # the first job is at this case
    first = FoldLock(folder).acquire()
    slept = []

    def finish(seconds):
        slept.append(seconds)
        (aside / "case01.json").rename(folder / "case01.json")
        first.release()

    monkeypatch.setattr("autoseg.locks.time.sleep", finish)
    assert prepare_all(tiny).made == 0
    assert len(slept) == 1
    assert times(folder) == made
    assert "is at work here" in caplog.text


def test_files_that_may_not_be_read_are_named(tiny, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("autoseg.preprocessing.content.sha256_file", refuse)
    with pytest.raises(DatasetError, match="3 of 3 cases cannot be read") as caught:
        prepare_all(tiny)
    assert all(f"case {name}: " in str(caught.value) for name in tiny.names)
    assert "Permission denied" in str(caught.value)


def test_a_2d_configuration_keeps_all_slices():
    volume = PLAN.configurations["3d_fullres"]
    flat = volume.model_copy(update={"dimension": 2, "median_shape": (20.0, 16.0)})
    assert median_voxels(PLAN, "3d_fullres") == 12 * 20 * 16
    assert median_voxels(PLAN.model_copy(update={"configurations": {"2d": flat, "3d_fullres": volume}}), "2d") == 12 * 20 * 16
    assert median_voxels(PLAN.model_copy(update={"configurations": {"2d": flat}}), "2d") == 20 * 16


def test_the_time_that_is_left_is_told_once(caplog):
    caplog.set_level("INFO")
    outcomes = [Outcome(name) for name in "abcde"]
    assert list(timed(iter(outcomes), 5, 2, "examining")) == outcomes
    assert [record.message for record in caplog.records] == ["examining the other 3 cases takes about 1 s"]
