"""Which scheme a plan gets where none is asked for, and that it keeps it."""

from types import SimpleNamespace

import pytest

from autoseg.dataset import Case, Dataset
from autoseg.dataset.workspace import Workspace
from autoseg.planning.folds import choose_folds, write_folds
from autoseg.planning.planning import PlanResult


def dataset_of(centres, patients=()):
    """A case for each letter of `centres`; "-" is no centre."""
    owners = dict(patients)
    cases = [Case(f"c{i:02d}", (), None, owners.get(i, ""), centre.replace("-", "")) for i, centre in enumerate(centres)]
    return Dataset(None, "d", ("CT",), {"background": 0, "x": 1}, ".nii.gz", tuple(cases))


def planned(folder, dataset, scheme=None):
    """Folds chosen and written, as planning does."""
    workspace = Workspace.of(folder)
    folds = choose_folds(dataset, workspace, scheme, [])
    write_folds(workspace, folds)
    return folds


def centres_apart(folds):
    centre = {name: member.centre for name, member in folds.members.items()}
    return not any({centre[c] for c in fold.training} & {centre[c] for c in fold.validation} for fold in folds.folds.values())


@pytest.mark.parametrize(
    ("centres", "scheme"), [("A" * 12, "cv5"), ("AABBCCDD", "cv5"), ("AABBCCDDE", "grouped"), ("ABCDEFG" * 3, "grouped"), ("-" * 9, "cv5")]
)
def test_five_centres_make_folds_of_whole_centres(tmp_path, centres, scheme):
    folds = planned(tmp_path, dataset_of(centres))
    assert folds.scheme == scheme
    assert len(folds.folds) == 5
    assert centres_apart(folds) == (scheme == "grouped")
    assert [("--folds cv5" in note and "grouped" in note) for note in folds.notes] == [True] * (scheme == "grouped")


def test_a_scheme_that_is_asked_for_is_taken(tmp_path):
    folds = planned(tmp_path, dataset_of("ABCDEF" * 2), "cv3")
    assert (folds.scheme, len(folds.folds), folds.notes) == ("cv3", 3, ())


def test_a_file_beside_that_is_called_like_a_scheme_is_not_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loco").write_text("no folds")
    assert planned(tmp_path / "work", dataset_of("AABB"), "loco").folds.keys() == {"A", "B"}


@pytest.mark.parametrize(
    ("centres", "patients", "part"),
    [("ABCDEFG--", {}, "7 centres, but 2 case(s) have none: c07, c08"), ("ABCDEFG", {0: "p", 6: "p"}, "7 centres, but patients in two: p")],
)
def test_centres_that_cannot_be_held_out(tmp_path, centres, patients, part):
    folds = planned(tmp_path, dataset_of(centres, patients))
    assert folds.scheme == "cv5"
    assert part in folds.notes[0]
    assert "--folds grouped" in folds.notes[0]


def test_what_is_planned_keeps_its_scheme(tmp_path):
    few, many = dataset_of("AABBCCDD--"), dataset_of("AABBCCDDEEFF")
    first = planned(tmp_path / "few", few)
    again = planned(tmp_path / "few", many)
    assert (first.scheme, again.scheme) == ("cv5", "cv5"), "centres that came later change nothing"
    places = {case: name for name, fold in again.folds.items() for case in fold.validation}
    assert all(places[case] == name for name, fold in first.folds.items() for case in fold.validation)
    assert planned(tmp_path / "many", many).scheme == "grouped"
    assert planned(tmp_path / "many", dataset_of("AABBCCDD")).scheme == "grouped", "nor do centres that left"
    assert planned(tmp_path / "many", many, "cv5").scheme == "cv5"
    assert planned(tmp_path / "many", many).scheme == "cv5"


def test_planning_says_which_centres_are_held_out(tmp_path):
    def told(centres, scheme):
        folds = choose_folds(dataset_of(centres), Workspace.of(tmp_path), scheme, [])
        result = PlanResult(Workspace.of(tmp_path), SimpleNamespace(name="default", configurations={}, reasons={}), folds, 0, 0, False)
        return next(line for line in result.text().splitlines() if line.startswith("folds")), result.to_dict()["whole_centres"]

    sizes = "0: 6 (A), 1: 5 (B), 2: 4 (C), 3: 3 (D), 4: 4 (E, F)"
    assert told("AAAAAABBBBBCCCCDDDEEFF", None) == (f"folds (grouped, each of whole centres), held-out cases: {sizes}", True)
    assert told("AAB", "loco") == ("folds (loco, each of whole centres), held-out cases: A: 2, B: 1", True)
    assert told("AABBAB", "cv2") == ("folds (cv2), held-out cases: 0: 3, 1: 3", False)
    assert told("AAB-", "cv2")[1] is False
