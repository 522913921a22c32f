import pytest

from autoseg.dataset import Source, find_cases
from autoseg.errors import DatasetError


@pytest.fixture
def folder(tmp_path):
    def fill(*names: str):
        for name in names:
            (tmp_path / name).touch()
        return tmp_path

    return fill


def found(cases):
    return {case.name: [(source.path.name, source.component) for source in case.images] for case in cases}


def test_channels_by_number(folder):
    path = folder("b_0000.nii.gz", "b_0001.nii.gz", "a_0001.nrrd", "a_0000.nrrd")
    cases, failures, notes = find_cases(path, ("CT", "PET"), ".nii.gz")
    assert found(cases) == {"a": [("a_0000.nrrd", None), ("a_0001.nrrd", None)], "b": [("b_0000.nii.gz", None), ("b_0001.nii.gz", None)]}
    assert [case.name for case in cases] == ["a", "b"]
    assert all(case.label is None and case.patient == case.name for case in cases)
    assert (failures, notes) == ((), ())


def test_endings_may_be_mixed_within_a_case(folder):
    cases, failures, _ = find_cases(folder("a_0000.nii.gz", "a_0001.mha"), ("CT", "PET"), ".nii.gz")
    assert found(cases) == {"a": [("a_0000.nii.gz", None), ("a_0001.mha", None)]}
    assert failures == ()


def test_one_channel_with_and_without_number(folder):
    cases, failures, _ = find_cases(folder("a_0000.nii.gz", "hippocampus_001.nii.gz", "amos_0001.nii.gz", "amos_0017.nii.gz"), ("MRI",))
    assert set(found(cases)) == {"a", "hippocampus_001", "amos_0001", "amos_0017"}
    assert failures == ()


def test_one_missing_channel_fails_that_case_only(folder):
    cases, failures, _ = find_cases(folder("a_0000.nii.gz", "b_0000.nii.gz", "b_0001.nii.gz"), ("CT", "PET"), ".nii.gz")
    assert set(found(cases)) == {"b"}
    (failure,) = failures
    assert "case a: channel file(s) missing: a_0001.nii.gz (PET)" in failure


def test_other_files_are_noted(folder):
    path = folder("a_0000.nii.gz", "a_0001.nii.gz", "._a_0000.nii.gz", "b_0000.NII.GZ", "notes.txt")
    cases, failures, notes = find_cases(path, ("CT",), ".nii.gz")
    assert set(found(cases)) == {"a"}
    assert failures == ()
    for part in ("hidden file(s) ignored: ._a_0000.nii.gz", "capitals; rename them: b_0000.NII.GZ", "notes.txt", "a_0001.nii.gz"):
        assert part in "\n".join(notes)


@pytest.mark.parametrize("second", ["a_0000.nrrd", "a.nii.gz"])
def test_two_files_for_one_channel(folder, second):
    cases, failures, _ = find_cases(folder("a_0000.nii.gz", second, "b.nii.gz"), ("CT",), ".nii.gz")
    assert set(found(cases)) == {"b"}
    assert "a_0000.nii.gz" in failures[0]
    assert second in failures[0]


def test_nothing_to_predict(folder, tmp_path):
    with pytest.raises(DatasetError, match=r"expected CASE_0000.nii.gz to CASE_0001.nii.gz \(CT, PET\), found slice.dcm. DICOM"):
        find_cases(folder("slice.dcm"), ("CT", "PET"), ".nii.gz")
    with pytest.raises(DatasetError, match="no such folder"):
        find_cases(tmp_path / "absent", ("CT",), ".nii.gz")


def test_files_of_one_case(folder):
    path = folder("a_0000.nii.gz", "a_0001.nii.gz", "ct.nii.gz", "pet.nrrd")
    channels = ("CT", "PET")
    numbered, failures, _ = find_cases([path / "a_0001.nii.gz", path / "a_0000.nii.gz"], channels)
    assert found(numbered) == {"a": [("a_0000.nii.gz", None), ("a_0001.nii.gz", None)]}
    assert failures == ()
    named, failures, _ = find_cases([str(path / "ct.nii.gz"), str(path / "pet.nrrd")], channels)
    assert found(named) == {"ct": [("ct.nii.gz", None), ("pet.nrrd", None)]}
    assert failures == ()


def test_one_file_of_one_channel(folder):
    path = folder("a_0000.nii.gz", "amos_0003.nii.gz", "scan.mha")
    for name, case in (("a_0000.nii.gz", "a"), ("amos_0003.nii.gz", "amos_0003"), ("scan.mha", "scan")):
        cases, failures, _ = find_cases(path / name, ("CT",))
        assert found(cases) == {case: [(name, None)]}
        assert failures == ()


@pytest.mark.parametrize(
    ("names", "part"),
    [
        (["a_0000.nii.gz"], "a_0001.nii.gz (PET)"),
        (["a_0000.nii.gz", "absent.nii.gz"], "absent.nii.gz is missing"),
        (["ct.nii.gz", "pet.nii.gz", "ct.nii.gz"], "3 file(s) were given, the model needs 2: CT, PET"),
        (["ct.nii.gz", "text.txt"], "text.txt has none of the endings"),
    ],
)
def test_files_that_make_no_case(folder, names, part):
    path = folder("a_0000.nii.gz", "ct.nii.gz", "pet.nii.gz", "text.txt")
    cases, failures, _ = find_cases([path / name for name in names], ("CT", "PET"))
    assert cases == ()
    assert part in failures[0]


def test_no_files():
    with pytest.raises(DatasetError, match="no image files"):
        find_cases([], ("CT",))


class _Header:
    def __init__(self, components):
        self.components = components


@pytest.mark.parametrize("volumes", [1, 2, 3])
def test_one_file_with_a_volume_a_channel(folder, monkeypatch, volumes):
    images = pytest.importorskip("autoseg.images")
    monkeypatch.setattr(images, "read_header", lambda path, **_: _Header(volumes), raising=False)
    path = folder("BRATS_001.nii.gz")
    for given in (path, path / "BRATS_001.nii.gz"):
        cases, failures, _ = find_cases(given, ("T1", "T2"), ".nii.gz")
        if volumes == 2:
            assert cases[0].images == (Source(path / "BRATS_001.nii.gz", 0), Source(path / "BRATS_001.nii.gz", 1))
            assert failures == ()
        else:
            assert cases == ()
            assert f"holds {volumes} volume(s)" in failures[0]
            assert "BRATS_001_0001.nii.gz (T2)" in failures[0]
