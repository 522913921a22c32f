"""Planning a dataset of real files, and planning it again after something changed."""

import json
import logging
import shutil
import threading
import time
from html import escape
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from tiny import TinyDataset

from autoseg import files
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.folds import Folds
from autoseg.dataset.workspace import Workspace
from autoseg.errors import DatasetError, FoldError, ImageError, PlanError, WorkerError
from autoseg.locks import FoldLock
from autoseg.planning.planning import plan
from autoseg.preprocessing.store import open_case
from planners.fingerprint import Fingerprint
from planners.plan import Plan

FILES = ("default/plan.json", "default/folds.json", "default/planned.json", "fingerprint.json")


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    dataset = TinyDataset(tmp_path_factory.mktemp("planned") / "Tiny")
    return dataset, plan(dataset.folder, preset="laptop", workers=0)


@pytest.fixture
def tiny(planned, tmp_path):
    """A planned dataset of its own for each test."""
    shutil.copytree(planned[0].folder, tmp_path / "Tiny")
    dataset = object.__new__(TinyDataset)
    dataset.__dict__.update(vars(planned[0]) | {"folder": tmp_path / "Tiny", "names": list(planned[0].names)})
    return dataset


def again(dataset, **options):
    return plan(dataset.folder, **{"preset": "laptop", "workers": 0} | options)


def done(result):
    return result.examined, result.prepared, result.kept


def read(dataset, name):
    return json.loads((dataset.work / name).read_text())


def texts(dataset):
    return {name: (dataset.work / name).read_bytes() for name in FILES}


def held_out(dataset):
    return {name: set(fold["validation"]) for name, fold in read(dataset, "default/folds.json")["folds"].items()}


def edit(dataset):
    """Changes the plan by hand; returns its text."""
    path = dataset.work / "default" / "plan.json"
    document = json.loads(path.read_text())
    document["configurations"]["3d_fullres"]["training"]["epochs"] = 7
    path.write_text(json.dumps(document))
    return path.read_text()


def result_names(result):
    return set(result.folds.members)


def plan_text(dataset):
    return (dataset.work / "default" / "plan.json").read_text()


# --- the first time ----------------------------------------------------------------------------------------------------------------


def test_what_planning_leaves_behind(planned):
    dataset, result = planned
    assert done(result) == (6, 6, False)
    document = Plan.from_json(plan_text(dataset))
    assert document == result.plan
    assert (document.channels, document.labels, document.preset) == (("CT", "PET"), {"background": 0, "ball": 1}, "laptop")
    fingerprint = Fingerprint.from_json((dataset.work / "fingerprint.json").read_text())
    assert [case.case for case in fingerprint.cases] == dataset.names
    for case in fingerprint.cases:
        assert case.label_voxels == {1: int(dataset.arrays(case.case)[2].sum())}
        assert tuple(case.spacing) == pytest.approx(dataset.spacing)
    assert sorted(name for names in held_out(dataset).values() for name in names) == dataset.names
    (folder,) = [path for path in (dataset.work / "cases").iterdir() if path.is_dir()]
    assert sorted(path.stem for path in folder.glob("*.json")) == dataset.names


def test_what_planning_tells(planned):
    result = planned[1]
    document = json.loads(json.dumps(result.to_dict()))
    assert (document["examined"], document["prepared"], document["kept"], document["scheme"]) == (6, 6, False, "cv5")
    assert sum(document["folds"].values()) == 6
    assert "3d_fullres" in document["configurations"]
    text = result.text()
    for part in ("'default' (new)", "3d_fullres: patch", "folds (cv5)", "6 cases examined, 6 prepared now", str(result.workspace.plan)):
        assert part in text


def test_bad_cases_are_named_together_and_no_plan_is_written(tmp_path):
    dataset = TinyDataset(tmp_path / "Tiny", cases=4)
    whole = dataset.image("case01", 0).read_bytes()
    dataset.image("case01", 0).write_bytes(whole[:200])
    dataset.write(np.full(dataset.shape, 5, np.uint8), dataset.label("case02"))
    with pytest.raises(DatasetError, match=r"2 of 4 cases are not usable; no plan was written") as caught:
        again(dataset)
    assert all(name in str(caught.value) for name in ("case01", "case02", "--exclude"))
    assert not list(dataset.work.rglob("plan.json"))
    assert not list(dataset.work.rglob("*.npy"))
    result = again(dataset, exclude=["case01", "case02"])
    assert (result.examined, result.prepared) == (0, 2), "the good cases are not examined again"


def test_missing_files_and_bad_contents_are_told_together(tmp_path, caplog):
    dataset = TinyDataset(tmp_path / "Tiny", cases=4)
    dataset.write(np.full(dataset.shape, 5, np.uint8), dataset.label("case02"))
    dataset.image("case01", 1).unlink()
    with pytest.raises(DatasetError, match=r"1 problem\(s\) with names and files, and 1 of 3 other cases are not usable") as caught:
        again(dataset)
    assert all(part in str(caught.value) for part in ("case01: its PET image", "case02", "values that dataset.json does not name"))
    assert "examined all the same" in caplog.text
    dataset.write(dataset.arrays("case02")[2], dataset.label("case02"))
    with pytest.raises(DatasetError, match=r"Tiny: case case01: its PET image .* is missing$"):
        again(dataset)
    dataset.add("case01")
    assert done(again(dataset)) == (1, 4, False), "only the case that was missing is read now"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"settings": {"training.epoch": 5}}, PlanError, "epoch"),
        ({"settings": {"configurations.2d.spacing": [1]}}, PlanError, "spacing needs 2 entries"),
        ({"settings": {"geometry_tolerance": "wide"}}, PlanError, "geometry_tolerance"),
        ({"configurations": ["3d_fulres"]}, PlanError, "-c 3d_fulres: there is no such configuration"),
        ({"folds": "cv1"}, FoldError, "cv1"),
        ({"folds": "nowhere.json"}, FoldError, "nowhere.json"),
        ({"folds": "loco"}, FoldError, "have no centre"),
    ],
)
def test_what_no_image_could_make_right_is_refused_before_any_is_read(planned, tmp_path, monkeypatch, options, error, message):
    def read(*_, **__):
        raise AssertionError("files were read")

    monkeypatch.setattr("autoseg.planning.planning.case_keys", read)
    with pytest.raises(error, match=message):
        plan(planned[0].folder, work=tmp_path, workers=0, name="other", **options)
    assert list(tmp_path.iterdir()) == [], "nothing is left that looks like a plan"
    with pytest.raises(error, match=message):
        plan(planned[0].folder, work=tmp_path / "new", workers=0, **options)
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_learn_is_found_before_a_plan_is_made(tmp_path):
    dataset = TinyDataset(tmp_path / "Tiny", cases=3)
    for name in dataset.names:
        dataset.write(np.zeros(dataset.shape, np.uint8), dataset.label(name))
    with pytest.raises(DatasetError, match="all 3 masks are empty"):
        again(dataset)
    assert not list(dataset.work.rglob("plan.json"))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"preset": "huge"}, PlanError, "huge"),
        ({"settings": {"training.epoch": 5}, "replan": True}, PlanError, "epoch"),
        ({"settings": {"training.epochs": -5}, "replan": True}, PlanError, "epochs"),
        ({"configurations": ["4d"]}, PlanError, "4d"),
        ({"folds": "cv1"}, FoldError, "cv1"),
        ({"folds": "loco"}, FoldError, "centre"),
        ({"exclude": ["nobody"]}, DatasetError, "nobody"),
        ({"memory_gb": -1.0}, PlanError, "--memory: must be a positive number of GB"),
        ({"memory_gb": 1e-6, "replan": True}, PlanError, "1e-06 GB are too little for preset laptop"),
        ({"name": "a/b"}, PlanError, "a/b"),
    ],
)
def test_what_is_asked_for_wrongly_leaves_a_standing_plan_alone(tiny, options, error, message):
    before = texts(tiny)
    with pytest.raises(error, match=message):
        again(tiny, **options)
    assert texts(tiny) == before


# --- again -------------------------------------------------------------------------------------------------------------------------


def test_an_unchanged_second_run_does_nothing(tiny):
    before = texts(tiny)
    times = {path: path.stat().st_mtime_ns for path in tiny.work.rglob("*.npy")}
    assert done(again(tiny)) == (0, 0, True)
    assert texts(tiny) == before
    assert {path: path.stat().st_mtime_ns for path in tiny.work.rglob("*.npy")} == times


def test_a_corrected_mask_redoes_its_case_and_nothing_else(tiny):
    before, folds = texts(tiny), held_out(tiny)
    mask = tiny.arrays("case03")[2]
    mask[0, :2, :2] = 1
    tiny.write(mask, tiny.label("case03"))
    result = again(tiny)
    assert done(result) == (1, 1, True)
    assert texts(tiny)["default/plan.json"] == before["default/plan.json"]
    assert held_out(tiny) == folds
    fingerprint = Fingerprint.from_json((tiny.work / "fingerprint.json").read_text())
    assert {case.case: case.label_voxels for case in fingerprint.cases}["case03"] == {1: int(mask.sum())}
    (folder,) = {path.parent for path in tiny.work.rglob("*.npy")}
    spacing = result.plan.configurations["3d_fullres"].spacing
    volume = (open_case(folder, "case03").labels > 0).sum() * np.prod(spacing)
    assert volume == pytest.approx(mask.sum() * np.prod(tiny.spacing), rel=0.1)


def test_a_new_case_joins_and_nobody_moves(tiny, caplog):
    before, folds = texts(tiny), held_out(tiny)
    tiny.add("case99")
    tiny.names.append("case99")
    tiny.describe()
    assert done(again(tiny)) == (1, 1, True)
    assert texts(tiny)["default/plan.json"] == before["default/plan.json"]
    after = held_out(tiny)
    assert set().union(*after.values()) - set().union(*folds.values()) == {"case99"}
    assert {name: cases - {"case99"} for name, cases in after.items()} == folds
    assert "1 new cases joined" in caplog.text
    for fold in read(tiny, "default/folds.json")["folds"].values():
        assert sorted(fold["training"] + fold["validation"]) == tiny.names


def test_an_excluded_case_leaves_and_may_come_back(tiny):
    folds = held_out(tiny)
    assert done(again(tiny, exclude=["case02"])) == (0, 0, True)
    assert held_out(tiny) == {name: cases - {"case02"} for name, cases in folds.items()}
    fingerprint = Fingerprint.from_json((tiny.work / "fingerprint.json").read_text())
    assert "case02" not in [case.case for case in fingerprint.cases]
    assert result_names(again(tiny)) == set(tiny.names) - {"case02"}, "it stays left out"
    assert Workspace.of(tiny.folder).excluded() == ("case02",)
    result = again(tiny, exclude=[])
    assert (result.examined, result.prepared, result.kept) == (0, 0, True)
    assert {name: cases - {"case02"} for name, cases in held_out(tiny).items()} == {n: c - {"case02"} for n, c in folds.items()}
    assert set().union(*held_out(tiny).values()) == set(tiny.names)


def test_an_excluded_case_whose_files_are_gone_stays_out(tiny):
    again(tiny, exclude=["case02"])
    for path in (tiny.image("case02", 0), tiny.image("case02", 1), tiny.label("case02")):
        path.unlink()
    assert done(again(tiny)) == (0, 0, True)
    assert Workspace.of(tiny.folder).excluded() == ("case02",)
    assert len(Dataset.open(tiny.folder, left_out=["case02"]).cases) == 5
    with pytest.raises(DatasetError, match="--exclude case02: there is no case"):
        again(tiny, exclude=["case02"])


def test_patients_and_centres_are_corrected_without_reading_images(tiny):
    (tiny.folder / "cases.csv").write_text("case,patient,centre\n" + "".join(f"{n},p{n[-1]},{'AB'[int(n[-1]) % 2]}\n" for n in tiny.names))
    assert done(again(tiny, replan=True)) == (0, 0, False)
    fingerprint = Fingerprint.from_json((tiny.work / "fingerprint.json").read_text())
    assert [(case.patient, case.centre) for case in fingerprint.cases][:2] == [("p0", "A"), ("p1", "B")]
    assert read(tiny, "default/folds.json")["cases"]["case03"]["patient"] == "p3"


def test_reasons_say_what_was_asked_for(tiny):
    reasons = again(tiny, settings={"training.epochs": 7}, replan=True).plan.reasons
    assert reasons["3d_fullres.training.epochs"] == "7, as asked for; planned was 100"
    assert reasons["3d_fullres.training.iterations"] == "preset laptop"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "default"}, r"--preset default \(it was planned with laptop\).*--replan.*--name"),
        ({"orientation": "as_stored"}, "--orientation as_stored"),
        ({"settings": {"training.epochs": 5}}, r"--set training.epochs=5 \(it was planned with none\)"),
        ({"memory_gb": 0.5}, r"--memory 0.5 \(it was planned for 1 GB\)"),
    ],
)
def test_something_else_is_refused_until_replanning_is_asked_for(tiny, options, message):
    before = texts(tiny)
    with pytest.raises(PlanError, match=message):
        again(tiny, **options)
    assert texts(tiny) == before
    assert not again(tiny, **options, replan=True).kept
    changed = plan_text(tiny)
    assert changed != before["default/plan.json"]
    assert again(tiny, preset=None).kept, "what is not asked for is as it was"
    assert not again(tiny, preset=None, replan=True).kept
    assert plan_text(tiny) == changed


def test_settings_that_are_asked_for_replace_those_before(tiny):
    assert again(tiny, settings={"training.epochs": 5}, replan=True).plan.configurations["2d"].training.epochs == 5
    assert again(tiny, settings={"training.epochs": 5}).kept
    back = again(tiny, settings={}, replan=True)
    assert back.plan.configurations["2d"].training.epochs != 5


def test_a_memory_target_stays_until_another_is_asked_for(tiny):
    own = plan_text(tiny)
    assert again(tiny, memory_gb=1.0).kept, "the preset's own memory, said aloud, is nothing else"
    again(tiny, memory_gb=0.01, replan=True)
    assert read(tiny, "default/planned.json")["asked"]["memory_gb"] == 0.01
    assert "0.01 GB were asked for" in read(tiny, "default/plan.json")["reasons"]["memory"]
    small = plan_text(tiny)
    assert again(tiny).kept
    assert not again(tiny, replan=True).kept
    assert plan_text(tiny) == small
    again(tiny, memory_gb=1.0, replan=True)
    assert plan_text(tiny) == own


@pytest.mark.parametrize("key", ["transpose", "channels", "labels.ball", "schema"])
def test_settings_that_follow_from_the_dataset_are_refused(tiny, key):
    with pytest.raises(PlanError, match=f"--set {key}: this follows"):
        again(tiny, settings={key: 1}, name="other")


def test_orientation_as_a_setting_is_the_argument(tiny):
    result = again(tiny, settings={"orientation": "as_stored"}, name="other")
    assert result.plan == again(tiny, orientation="as_stored", name="other").plan
    assert result.examined == 6, "intensities and shapes were measured as stored"
    with pytest.raises(PlanError, match="contradict"):
        again(tiny, settings={"orientation": "as_stored"}, orientation="canonical", name="third")


def test_the_geometry_tolerance_counts_while_planning(tiny):
    image = sitk.ReadImage(str(tiny.image("case01", 1)))
    image.SetOrigin([value + 0.4 for value in image.GetOrigin()])
    sitk.WriteImage(image, str(tiny.image("case01", 1)))
    with pytest.raises(DatasetError, match="case01"):
        again(tiny, name="other")
    assert again(tiny, name="other", settings={"geometry_tolerance": 1.0}).plan.geometry_tolerance == 1
    assert again(tiny, name="other").kept
    with pytest.raises(DatasetError, match="case01"):
        again(tiny)
    with pytest.raises(PlanError, match="geometry_tolerance: must be"):
        again(tiny, name="third", settings={"geometry_tolerance": "wide"})


def test_plans_live_side_by_side(tiny):
    before = texts(tiny)
    other = again(tiny, name="other", preset="default", exclude=["case02"])
    assert done(other) == (0, other.prepared, False)
    assert {name: text for name, text in texts(tiny).items() if "/" in name} == {n: t for n, t in before.items() if "/" in n}
    assert read(tiny, "other/plan.json")["preset"] == "default"
    turned = again(tiny, name="turned", orientation="as_stored")
    assert turned.examined == 6
    assert done(again(tiny)) == (0, 0, True), "neither another orientation nor an excluded case makes this plan read anything again"
    measured = {name: Fingerprint.from_json((tiny.work / name / "fingerprint.json").read_text()) for name in ("default", "other")}
    assert [len(fingerprint.cases) for fingerprint in measured.values()] == [6, 5]


def test_replan_makes_the_plan_anew(tiny):
    before = plan_text(tiny)
    result = again(tiny, replan=True)
    assert done(result) == (0, 0, False)
    assert plan_text(tiny) == before, "from the same cases the same plan"
    for name in tiny.names:
        for channel in (0, 1):
            image = tiny.image(name, channel)
            tiny.write(tiny.arrays(name)[channel], image, spacing=(4.0, 3.0, 2.0))
        tiny.write(tiny.arrays(name)[2], tiny.label(name), spacing=(4.0, 3.0, 2.0))
    assert not again(tiny, replan=True).kept
    assert read(tiny, "default/plan.json")["configurations"]["3d_fullres"]["spacing"] == pytest.approx([4, 3, 2])


def test_a_hand_edited_plan_is_kept(tiny, caplog):
    text = edit(tiny)
    for options in ({}, {"preset": None}):
        caplog.clear()
        result = again(tiny, **options)
        assert result.kept
        assert result.plan.configurations["3d_fullres"].training.epochs == 7
        assert "edited by hand: it is kept as it is" in caplog.text
        assert plan_text(tiny) == text


@pytest.mark.parametrize("options", [{"replan": True}, {"preset": "resenc-m"}, {"settings": {"training.epochs": 3}}])
def test_a_hand_edited_plan_is_never_overwritten(tiny, options):
    text = edit(tiny)
    with pytest.raises(PlanError, match="edited by hand and is never overwritten.*--name"):
        again(tiny, **options)
    assert plan_text(tiny) == text


def test_a_plan_that_was_brought_along_counts_as_edited(tiny):
    text = plan_text(tiny)
    (tiny.work / "default" / "planned.json").unlink()
    with pytest.raises(PlanError, match="edited by hand"):
        again(tiny, replan=True)
    assert again(tiny, preset=None).kept
    assert plan_text(tiny) == text


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_kill_while_a_plan_is_replaced_leaves_the_old_or_the_new_one_and_never_an_edited_one(tiny, nth, monkeypatch):
    class Killed(BaseException):
        pass

    written = []
    write_bytes = files.write_bytes

    def killed(path, data):
        if Path(path).name in ("planned.json", "plan.json"):
            written.append(path)
            if len(written) == nth:
                raise Killed
        write_bytes(path, data)

    old = plan_text(tiny)
    with monkeypatch.context() as patch:
        patch.setattr(files, "write_bytes", killed)
        with pytest.raises(Killed):
            again(tiny, settings={"training.epochs": 7}, replan=True)
    assert len(written) == nth
    if nth < 3:
        assert plan_text(tiny) == old
        assert again(tiny).kept
        with pytest.raises(PlanError, match="something else is asked for"):
            again(tiny, settings={"training.epochs": 7})
    else:
        assert plan_text(tiny) != old
        assert again(tiny, settings={"training.epochs": 7}).kept
    assert again(tiny, settings={"training.epochs": 8}, replan=True).plan.configuration("3d_fullres").training.epochs == 8


def test_two_plannings_at_once_wait_for_each_other(tiny, caplog):
    lock = FoldLock(tiny.work / "default" / ".planning-lock").acquire()
    thread = threading.Thread(target=again, args=(tiny,))
    caplog.set_level(logging.INFO)
    thread.start()
    while "waiting" not in caplog.text:
        assert thread.is_alive()
        time.sleep(0.01)
    before = texts(tiny)
    lock.release()
    thread.join()
    assert texts(tiny) == before


def test_an_invalid_plan_is_told_and_stays(tiny):
    path = tiny.work / "default" / "plan.json"
    path.write_text(path.read_text().replace('"batch_size"', '"batchsize"'))
    with pytest.raises(PlanError, match="batchsize"):
        again(tiny)
    assert '"batchsize"' in path.read_text()


def test_changed_labels_ask_for_replanning(tiny):
    before = texts(tiny)
    tiny.describe(labels={"background": 0, "ball": 1, "node": 2})
    with pytest.raises(PlanError, match="labels.*'node'.*--replan.*--name"):
        again(tiny)
    assert texts(tiny) == before
    result = again(tiny, replan=True)
    assert done(result) == (6, 6, False)
    assert result.plan.labels == {"background": 0, "ball": 1, "node": 2}
    assert any("'node' (2) is in no case" in note for note in result.notes)


def test_changed_labels_do_not_fit_a_hand_edited_plan(tiny):
    text = edit(tiny)
    tiny.describe(labels={"background": 0, "tumour": 1})
    with pytest.raises(PlanError, match=r"labels \{'background': 0, 'ball': 1\}.*'tumour'.*--name") as caught:
        again(tiny)
    assert caught.value.exit_status == 2
    assert plan_text(tiny) == text


def test_another_orientation_examines_everything(tiny):
    result = again(tiny, orientation="as_stored", replan=True)
    assert (result.examined, result.kept) == (6, False)
    assert result.plan.orientation == "as_stored"


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "\0\xff",
        lambda text: json.dumps(json.loads(text) | {"version": -1}),
        lambda text: json.dumps(json.loads(text) | {"cases": []}),
        lambda text: json.dumps(json.loads(text) | {"cases": dict.fromkeys(json.loads(text)["cases"], 1)}),
    ],
    ids=["torn", "list", "binary", "version", "cases a list", "entries numbers"],
)
def test_a_broken_cache_of_examinations_is_made_anew(tiny, damage):
    path = tiny.work / "cases" / "examined-canonical.json"
    whole, before = path.read_text(), texts(tiny)
    path.write_text(damage(whole), encoding="latin-1")
    assert done(again(tiny)) == (6, 0, True)
    assert texts(tiny) == before
    assert path.read_text() == whole


# --- folds -------------------------------------------------------------------------------------------------------------------------


def test_a_scheme_that_is_asked_for_replaces_another_and_then_stands(tiny, caplog):
    assert len(held_out(tiny)) == 5
    result = again(tiny, folds="cv3")
    assert done(result) == (0, 0, True)
    assert "now cv3; those of cv5 are kept" in caplog.text
    three = held_out(tiny)
    assert sorted(map(len, three.values())) == [2, 2, 2]
    again(tiny)
    assert held_out(tiny) == three
    again(tiny, folds="cv3")
    assert held_out(tiny) == three


def test_a_scheme_comes_back_as_it_was_and_new_cases_join_it(tiny):
    five = held_out(tiny)
    again(tiny, folds="cv3")
    three = held_out(tiny)
    tiny.add("case99")
    tiny.names.append("case99")
    again(tiny, folds="cv5")
    assert {name: cases - {"case99"} for name, cases in held_out(tiny).items()} == five
    assert set().union(*held_out(tiny).values()) == set(tiny.names)
    again(tiny, folds="cv3")
    assert {name: cases - {"case99"} for name, cases in held_out(tiny).items()} == three


def test_a_scheme_that_does_not_fit_leaves_no_plan(tmp_path):
    dataset = TinyDataset(tmp_path / "Tiny", cases=3)
    with pytest.raises(FoldError, match="loco"):
        again(dataset, folds="loco")
    assert not list(dataset.work.rglob("plan.json"))
    assert not list(dataset.work.rglob("folds*.json"))


@pytest.mark.parametrize("trouble", ["worker", "case"])
def test_only_what_lies_in_the_dataset_is_an_error_of_the_dataset(tiny, monkeypatch, trouble):
    def fail(task):
        raise {"worker": RuntimeError("a bug"), "case": ImageError("broken")}[trouble]

    monkeypatch.setattr("autoseg.planning.examine._examine_case", fail)
    error, status = {"worker": (WorkerError, 1), "case": (DatasetError, 2)}[trouble]
    with pytest.raises(error, match="6 of 6 cases") as caught:
        again(tiny, name="other", orientation="as_stored")
    assert caught.value.exit_status == status
    assert ("Mend them" in str(caught.value)) == (trouble == "case")


def test_a_changed_file_of_folds_is_read_again(tiny, tmp_path, caplog):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps([{"train": tiny.names[:4], "val": tiny.names[4:]}]))
    again(tiny, folds=str(path))
    tiny.add("case99")
    tiny.names.append("case99")
    again(tiny, folds=str(path))
    assert read(tiny, "default/folds.json")["folds"]["0"]["training"] == [*tiny.names[:4], "case99"], "the same file: a new case joins"
    path.write_text(json.dumps([{"train": tiny.names[2:], "val": tiny.names[:2]}]))
    again(tiny, folds=str(path))
    assert "mine.json has changed" in caplog.text
    assert held_out(tiny) == {"0": set(tiny.names[:2])}


def test_folds_of_whole_centres(tiny):
    rows = [f"{name},{'ABC'[index % 3]}" for index, name in enumerate(tiny.names)]
    (tiny.folder / "cases.csv").write_text("case,centre\n" + "\n".join(rows) + "\n")
    result = again(tiny, folds="loco")
    assert result.folds.scheme == "loco"
    assert held_out(tiny) == {centre: set(tiny.names[index::3]) for index, centre in enumerate("ABC")}
    assert result.examined == 0, "images say nothing of the centre"


def test_nnunets_file_of_folds(tiny, tmp_path):
    path = tmp_path / "splits_final.json"
    path.write_text(json.dumps([{"train": tiny.names[:4], "val": tiny.names[4:]}, {"train": tiny.names[2:], "val": tiny.names[:2]}]))
    again(tiny, folds=str(path))
    assert held_out(tiny) == {"0": set(tiny.names[4:]), "1": set(tiny.names[:2])}
    kept = Folds.from_json(read(tiny, "default/folds.json"))
    assert kept.scheme == "splits_final"


# --- centres -----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hospitals(tmp_path):
    """Two hospitals of three cases each: voxels of the second are four times as wide."""
    dataset = TinyDataset(tmp_path / "Tiny")
    rows = ["case,centre"]
    for index, name in enumerate(dataset.names):
        rows.append(f"{name},{'North' if index < 3 else 'South'}")
        if index >= 3:
            for array, path in zip(
                dataset.arrays(name), (dataset.image(name, 0), dataset.image(name, 1), dataset.label(name)), strict=True
            ):
                dataset.write(array, path, spacing=(8.0, 6.0, 4.0))
    (dataset.folder / "cases.csv").write_text("\n".join(rows) + "\n")
    return dataset


def test_centres_widen_augmentation_and_the_choice_is_remembered(hospitals):
    first = again(hospitals, augmentation="centres")
    low = first.plan.configurations["3d_fullres"].augmentation.low_resolution
    assert low.zoom[0] < 0.5
    why = first.plan.reasons["3d_fullres.augmentation.low_resolution.zoom"]
    assert f"zoom {low.zoom[0]:g}-1" in why
    assert "centre South" in why
    assert "2 centres lie apart" in first.text()
    page = (hospitals.work / "default" / "plan.html").read_text()
    assert "<svg" in page
    assert escape(why) in page

    with pytest.raises(PlanError, match="--augmentation default .it was planned with centres"):
        again(hospitals, augmentation="default")
    published = again(hospitals, augmentation="default", replan=True)
    assert published.plan.configurations["3d_fullres"].augmentation.low_resolution.zoom == (0.5, 1.0)
    assert read(hospitals, "default/planned.json")["asked"]["augmentation"] == "default"
    assert again(hospitals, replan=True).plan == published.plan
    assert again(hospitals).kept
    with pytest.raises(PlanError, match="--augmentation must be centres or default, found 'wide'"):
        again(hospitals, augmentation="wide")


def test_a_plan_of_an_earlier_release_keeps_the_published_ranges(hospitals):
    again(hospitals)
    path = hospitals.work / "default" / "planned.json"
    record = json.loads(path.read_text())
    del record["asked"]["augmentation"]
    path.write_text(json.dumps(record))
    (hospitals.work / "default" / "plan.html").unlink()
    assert again(hospitals).kept
    assert again(hospitals, replan=True).plan.configurations["3d_fullres"].augmentation.low_resolution.zoom == (0.5, 1.0)
    with pytest.raises(PlanError, match="--augmentation centres .it was planned with default"):
        again(hospitals, augmentation="centres")


def test_every_channel_of_every_case_is_measured(planned):
    fingerprint = Fingerprint.from_json((planned[0].work / "fingerprint.json").read_text())
    for case in fingerprint.cases:
        ct = planned[0].arrays(case.case)[0]
        assert case.measured(0).noise == pytest.approx(20, rel=0.15), "what the tiny CT is made with"
        assert case.measured(1).noise > 0
        assert case.field_of_view == pytest.approx([n * s for n, s in zip(ct.shape, planned[0].spacing, strict=True)])
