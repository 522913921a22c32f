import shutil
from pathlib import Path

import pytest

from autoseg.dataset.workspace import Workspace, require_disk
from autoseg.errors import DatasetError, PlanError, ResourceError
from planners.plan import Configuration, NoNormalisation, Plan, UNetSpec

PLAN = Plan(
    channels=("CT",),
    labels={"background": 0, "tumour": 1},
    file_ending=".nii.gz",
    configurations={
        "3d_fullres": Configuration(
            dimension=3,
            spacing=(1.0, 1.0, 1.0),
            median_shape=(8.0, 8.0, 8.0),
            patch_size=(8, 8, 8),
            batch_size=2,
            normalisation=(NoNormalisation(),),
            network=UNetSpec(features=(4,), strides=((1, 1, 1),), kernels=((3, 3, 3),), convs_per_stage=(1,), convs_per_decoder_stage=()),
        )
    },
)


def test_where_things_lie():
    space = Workspace.of(Path("/data/Set"), name="big")
    assert space.root == Path("/data/Set/autoseg-work")
    inside = {
        space.fingerprint: "fingerprint.json",
        space.plan_fingerprint: "big/fingerprint.json",
        space.folds_of("loco"): "big/folds-loco.json",
        space.plan: "big/plan.json",
        space.folds: "big/folds.json",
        space.planned: "big/planned.json",
        space.cases("0a1b"): "cases/0a1b",
        space.model("3d_fullres", "loco"): "big/3d_fullres/loco",
        space.fold("3d_fullres", "loco", "CHUM"): "big/3d_fullres/loco/fold_CHUM",
    }
    for path, expected in inside.items():
        assert path.relative_to(space.root).as_posix() == expected


def test_another_place_and_a_relative_one(tmp_path, monkeypatch):
    assert Workspace.of(Path("/data/Set"), Path("/scratch/x")).root == Path("/scratch/x")
    monkeypatch.chdir(tmp_path)
    space = Workspace.of(Path("Set"))
    monkeypatch.chdir("/")
    assert space.root == tmp_path / "Set" / "autoseg-work"


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "cases", "a/b", "a\\b", "a:b", "a*", "what?", "a\0b", 'a"b', "<a>", "a|b"])
def test_a_name_that_is_no_folder_name_is_refused(name):
    with pytest.raises(PlanError, match=r"--name .*folder name"):
        Workspace.of(Path("/data"), name=name)


@pytest.mark.parametrize("name", ["default", "resenc-l_2", "Größe 1", "v1.2"])
def test_other_names_are_fine(name):
    assert Workspace.of(Path("/data"), name=name).plan.parent.name == name


def test_make_makes_the_folders_and_may_be_called_again(tmp_path):
    space = Workspace.of(tmp_path / "a" / "b")
    space.make()
    assert space.plan.parent.is_dir()
    space.make()


def test_a_place_that_cannot_be_written_to_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DatasetError, match=r"file/work: cannot be written to .*--work DIR"):
        Workspace.of(tmp_path, tmp_path / "file" / "work").make()
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(DatasetError, match=r"Permission denied.*--work DIR"):
        Workspace.of(tmp_path).make()


def test_reading_the_plan(tmp_path):
    space = Workspace.of(tmp_path, name="mine")
    with pytest.raises(PlanError, match="no plan 'mine' here.*autoseg_plan --name mine;.*--work DIR"):
        space.read_plan()
    space.make()
    space.plan.write_text(PLAN.to_json())
    assert space.read_plan() == PLAN
    space.plan.write_text(PLAN.to_json().replace('"batch_size"', '"batchsize"'))
    with pytest.raises(PlanError, match=r"plan\.json.*batchsize"):
        space.read_plan()
    space.plan.write_text("{")
    with pytest.raises(PlanError, match=r"plan\.json: is no valid JSON"):
        space.read_plan()
    space.plan.write_text(PLAN.to_json().replace('"batch_size": 2', '"batch_size": 2, "batch_size": 4'))
    with pytest.raises(PlanError, match=r"plan\.json: the key 'batch_size' stands twice"):
        space.read_plan()
    space.plan.write_bytes(b"\xff\xfe")
    with pytest.raises(PlanError, match=r"plan\.json: is no valid JSON text in UTF-8"):
        space.read_plan()


def test_the_cases_that_a_plan_leaves_out(tmp_path):
    space = Workspace.of(tmp_path)
    assert space.excluded() == ()
    space.make()
    for text, expected in (('{"asked": {}}', ()), ('{"exclude": []}', ()), ('{"exclude": ["b", "a"]}', ("b", "a"))):
        space.planned.write_text(text)
        assert space.excluded() == expected
    for text in ('{"exclude": "a"}', '{"exclude": [1]}', "[]", "{"):
        space.planned.write_text(text)
        with pytest.raises(PlanError, match=r"planned\.json"):
            space.excluded()


def test_disk_space_is_asked_for_where_the_folder_will_be(tmp_path, monkeypatch):
    asked = []

    def usage(path):
        asked.append(Path(path))
        return shutil._ntuple_diskusage(10_000_000_000, 7_500_000_000, 2_500_000_000)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    require_disk(tmp_path / "not" / "yet", 2_500_000_000, "nothing")
    assert asked == [tmp_path]
    with pytest.raises(ResourceError, match=r"yet: the weights needs about 3\.0 GB, 2\.5 GB are free.*--work DIR") as caught:
        require_disk(tmp_path / "not" / "yet", 3_000_000_000, "the weights")
    assert caught.value.exit_status == 1
