import hashlib
import json
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.dataset import Case, Fold, Folds, load_folds, make_folds
from autoseg.dataset.spread import Patient, spread
from autoseg.errors import FoldError

quick = settings(deadline=None, max_examples=40)


def case(name, patient="", centre=""):
    return Case(name, (), None, patient, centre)


@st.composite
def cohorts(draw, least_patients=2):
    """Cases of patients with one to four scans each, in up to five centres, and which of two labels each mask holds."""
    count = draw(st.integers(least_patients, 30))
    cases, presence = [], {}
    for index in range(count):
        centre = draw(st.sampled_from("ABCDE"))
        for scan in range(draw(st.sampled_from([1, 1, 1, 2, 4]))):
            cases.append(case(f"p{index}_s{scan}", f"p{index}", centre))
            presence[cases[-1].name] = draw(st.sampled_from([(), (1,), (2,), (1, 2)]))
    return cases, presence


def check_sound(folds: Folds, cases):
    """Every case is validated once, trained on in every other fold, and no patient is on both sides."""
    patient = {c.name: c.patient for c in cases}
    assert sorted(name for fold in folds.folds.values() for name in fold.validation) == sorted(patient)
    for fold in folds.folds.values():
        assert sorted(fold.training + fold.validation) == sorted(patient)
        assert fold.training
        assert fold.validation
        assert not {patient[name] for name in fold.training} & {patient[name] for name in fold.validation}


def fold_of(folds: Folds):
    return {name: key for key, fold in folds.folds.items() for name in fold.validation}


@quick
@given(cohorts(), st.integers(0, 5), st.sampled_from(["cv5", "cv2", "cv10"]))
def test_cross_validation_keeps_patients_whole_and_spreads_centres(cohort, seed, scheme):
    cases, presence = cohort
    folds = make_folds(cases, scheme, seed=seed, presence=presence)
    check_sound(folds, cases)
    patients = {c.patient: c.centre for c in cases}
    wanted = min(int(scheme[2:]), len(patients))
    assert list(folds.folds) == [str(index) for index in range(wanted)]
    assert bool(folds.notes) == (wanted < int(scheme[2:]))
    groups = [{c.patient for c in cases if c.name in fold.validation} for fold in folds.folds.values()]
    sizes = [len(group) for group in groups]
    assert max(sizes) - min(sizes) <= 1
    for centre in set(patients.values()):
        shares = [sum(patients[p] == centre for p in group) for group in groups]
        assert max(shares) - min(shares) <= 1


@quick
@given(cohorts(), st.randoms())
def test_the_order_of_the_cases_does_not_matter(cohort, shuffler):
    cases, presence = cohort
    other = list(cases)
    shuffler.shuffle(other)
    assert make_folds(cases, "cv5", seed=1, presence=presence) == make_folds(other, "cv5", seed=1, presence=presence)


def test_the_seed_matters():
    cases = [case(f"c{index:02d}") for index in range(40)]
    assert make_folds(cases, "cv5", seed=1).folds == make_folds(cases, "cv5", seed=1).folds
    assert make_folds(cases, "cv5", seed=1).folds != make_folds(cases, "cv5", seed=2).folds


def test_a_rare_finding_is_spread_over_all_folds():
    # One patient in each of ten centres of five has no lesion: dealing centre by centre alone would put all ten in one fold.
    cases = [case(f"{centre}{index}", centre=centre) for centre in "ABCDEFGHIJ" for index in range(5)]
    presence = {c.name: () if c.name.endswith("0") else (1,) for c in cases}
    for seed in range(5):
        folds = make_folds(cases, "cv5", seed=seed, presence=presence)
        assert [sum(not presence[name] for name in fold.validation) for fold in folds.folds.values()] == [2] * 5


def test_each_of_many_labels_is_spread():
    generator = random.Random(0)
    cases = [case(f"c{index:03d}") for index in range(100)]
    presence = {c.name: tuple(label for label in range(1, 6) if generator.random() < label / 6) for c in cases}
    counts = [
        Counter(label for name in fold.validation for label in presence[name])
        for fold in make_folds(cases, "cv5", seed=0, presence=presence).folds.values()
    ]
    for label in range(1, 6):
        assert max(count[label] for count in counts) - min(count[label] for count in counts) <= 2


def test_patients_with_many_cases_do_not_pile_up():
    patients = [
        Patient(f"p{index}", "", None, tuple(f"p{index}_{scan}" for scan in range(6 if index % 5 == 0 else 1))) for index in range(25)
    ]
    sizes = [sum(len(patient.cases) for patient in group) for group in spread(patients, 5, seed=3)]
    assert sizes == [10] * 5


def test_fewer_patients_than_folds():
    folds = make_folds([case("a1", "a"), case("a2", "a"), case("b"), case("c")], "cv5", seed=0)
    assert len(folds.folds) == 3
    assert folds.notes == ("3 patients make 3 folds, not 5",)
    with pytest.raises(FoldError, match="at least 2 patients, found 1"):
        make_folds([case("a1", "a"), case("a2", "a")], "cv5", seed=0)


@pytest.mark.parametrize("scheme", ["cv", "cv1", "cv0", "kfold", "", "loco5", "5", "grouped1"])
def test_unknown_schemes(scheme):
    cases = [case(name, centre=name) for name in "abcdefgh"]
    if scheme == "cv":
        assert len(make_folds(cases, scheme, seed=0).folds) == 5
    else:
        with pytest.raises(FoldError, match="unknown"):
            make_folds(cases, scheme, seed=0)


@quick
@given(cohorts())
def test_leaving_one_centre_out(cohort):
    cases, presence = cohort
    centres = sorted({c.centre for c in cases})
    if len(centres) < 2:
        with pytest.raises(FoldError, match="at least 2 centres"):
            make_folds(cases, "loco", seed=0, presence=presence)
        return
    folds = make_folds(cases, "loco", seed=0, presence=presence)
    check_sound(folds, cases)
    assert list(folds.folds) == centres
    for name, fold in folds.folds.items():
        assert set(fold.validation) == {c.name for c in cases if c.centre == name}


def test_leaving_centres_out_needs_centres_that_can_name_a_fold():
    with pytest.raises(FoldError, match=r"1 case\(s\) have no centre: b"):
        make_folds([case("a", centre="A"), case("b"), case("c", centre="C")], "loco", seed=0)
    with pytest.raises(FoldError, match="A/B"):
        make_folds([case("a", centre="A/B"), case("c", centre="C")], "loco", seed=0)
    with pytest.raises(FoldError, match="'all'"):
        make_folds([case("a", centre="all"), case("c", centre="C")], "loco", seed=0)


@pytest.mark.parametrize("scheme", ["loco", "grouped2"])
def test_a_patient_in_two_centres_cannot_be_kept_apart(scheme):
    cases = [case("a1", "a", "A"), case("a2", "a", "B"), case("b", "b", "A"), case("c", "c", "B")]
    with pytest.raises(FoldError, match=r"patient a is in training \(a2\) and in validation \(a1\)"):
        make_folds(cases, scheme, seed=0)
    check_sound(make_folds(cases, "cv5", seed=0), cases)


@quick
@given(cohorts(), st.integers(2, 6))
def test_groups_of_whole_centres(cohort, count):
    cases, _ = cohort
    centres = {c.centre for c in cases}
    if len(centres) < 2:
        return
    folds = make_folds(cases, f"grouped{count}", seed=0)
    check_sound(folds, cases)
    assert len(folds.folds) == min(count, len(centres))
    centre = {c.name: c.centre for c in cases}
    for fold in folds.folds.values():
        assert not {centre[name] for name in fold.training} & {centre[name] for name in fold.validation}


def test_the_fold_of_all_cases_and_unknown_folds():
    folds = make_folds([case(name) for name in "abc"], "cv3", seed=0)
    assert folds.fold("all") == Fold(("a", "b", "c"), ("a", "b", "c"))
    assert folds.fold(1) == folds.fold("1") == folds.folds["1"]
    with pytest.raises(FoldError, match="no fold '7'; it has: 0, 1, 2, all"):
        folds.fold(7)


@quick
@given(cohorts(), cohorts(least_patients=1), st.sampled_from(["cv5", "loco", "grouped3"]), st.booleans())
def test_extending_moves_nobody(first, second, scheme, pass_all):
    cases, presence = first
    if scheme != "cv5" and len({c.centre for c in cases}) < 2:
        return
    folds = make_folds(cases, scheme, seed=0, presence=presence)
    known = {c.patient: c.centre for c in cases}
    # Half of the new scans are of known patients, who stay in their centre.
    new = [case(f"new_{c.name}", c.patient, known.get(c.patient, c.centre)) for c in second[0]]
    more = {f"new_{name}": labels for name, labels in second[1].items()}
    extended = folds.extend([*cases, *new] if pass_all else new, {**presence, **more} if pass_all else more)
    check_sound(extended, [*cases, *new])
    before, after = fold_of(folds), fold_of(extended)
    assert all(after[name] == before[name] for name in before)
    patient_fold = {c.patient: before[c.name] for c in cases}
    for c in new:
        assert after[c.name] == patient_fold.get(c.patient, after[c.name])
        if scheme == "loco":
            assert after[c.name] == c.centre
    assert extended.extend(cases) == extended


def test_new_patients_go_where_their_centre_is_rarest():
    cases = [case(f"a{index}", centre="A") for index in range(5)] + [case("b0", centre="B")]
    folds = make_folds(cases, "cv5", seed=0)
    with_b = fold_of(folds)["b0"]
    grown = folds.extend([case(f"b{index}", centre="B") for index in range(1, 5)])
    shares = Counter(fold_of(grown)[f"b{index}"] for index in range(5))
    assert shares == Counter({str(index): 1 for index in range(5)})
    assert fold_of(grown)["b0"] == with_b


def test_extending_with_a_patient_that_changed_sides():
    folds = make_folds([case(name) for name in "abcd"], "cv2", seed=0)
    first, second = folds.folds["0"].validation[0], folds.folds["1"].validation[0]
    with pytest.raises(FoldError, match="both sides"):
        folds.extend([case(first, "same"), case(second, "same")])


def test_extending_centre_folds_with_a_centre_that_changed():
    folds = make_folds([case("a", centre="A"), case("a2", centre="A"), case("b", centre="B")], "loco", seed=0)
    with pytest.raises(FoldError, match="'B' is now on both sides"):
        folds.extend([case("a2", centre="B")])


def test_without():
    folds = make_folds([case(name) for name in "abcdef"], "cv3", seed=0).without({"a"})
    check_sound(folds, [case(name) for name in "bcdef"])
    with pytest.raises(FoldError, match="no cases left"):
        folds.without(set("bcde"))


@quick
@given(cohorts(), st.sampled_from(["cv5", "loco"]))
def test_json_round_trip(cohort, scheme):
    cases, presence = cohort
    if len({c.centre for c in cases}) < 2:
        return
    folds = make_folds(cases, scheme, seed=7, presence=presence)
    text = json.dumps(folds.to_json())
    assert Folds.from_json(json.loads(text)) == folds


@pytest.mark.parametrize(
    "value", [None, [], {}, {"schema": "autoseg-folds/2"}, {"schema": "autoseg-folds/1"}, {"schema": "autoseg-folds/1", "folds": 3}]
)
def test_other_json(value):
    with pytest.raises(FoldError, match="autoseg-folds/1"):
        Folds.from_json(value)


@pytest.mark.parametrize(
    ("scheme", "moved", "part"),
    [
        ("cv2", "a", "patient a is in training (a) and in validation (a)"),
        ("cv2", "a2", "patient a is in training (a2) and in validation (a)"),
        ("cv2", "unknown", "patient unknown is in training"),
        ("loco", "a2", "the centre 'A' is now on both sides"),
    ],
)
def test_folds_edited_so_that_a_network_would_be_tested_on_what_it_learnt(scheme, moved, part):
    cases = [case("a", "a", "A"), case("a2", "a" if scheme == "cv2" else "a2", "A"), case("b", "b", "B")]
    document = make_folds(cases, scheme, seed=0).to_json()
    fold = next(fold for fold in document["folds"].values() if "a" in fold["validation"])
    fold["training"].append(moved)
    if moved == "unknown":
        fold["validation"].append(moved)
    elif moved == "a2":
        fold["validation"].remove("a2")
    with pytest.raises(FoldError) as caught:
        Folds.from_json(document)
    assert part in str(caught.value)


# --- files


def write(folder: Path, value, name="splits_final.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(value))
    return path


ABCD = [case(name) for name in "abcd"]


def test_nnunets_file(tmp_path):
    path = write(tmp_path, [{"train": ["c", "a"], "val": ["b", "d"]}, {"train": ["b", "d"], "val": ["a", "c"]}])
    folds = load_folds(path, ABCD)
    assert folds.scheme == "splits_final"
    assert folds.folds == {"0": Fold(("a", "c"), ("b", "d")), "1": Fold(("b", "d"), ("a", "c"))}
    assert folds.notes == ()
    check_sound(folds, ABCD)
    check_sound(folds.extend([case("e")]), [*ABCD, case("e")])


def test_own_file(tmp_path):
    folds = make_folds(ABCD, "cv2", seed=3)
    read = load_folds(write(tmp_path, folds.to_json(), "mine.json"), ABCD)
    assert read.scheme == "mine", "cv2 has a folder and folds of its own"
    assert (read.folds, read.members, read.seed) == (folds.folds, folds.members, folds.seed)
    assert Folds.from_json(read.to_json()).file_sha256 == hashlib.sha256((tmp_path / "mine.json").read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["cv5", "cv12", "loco", "grouped", "grouped3"])
def test_a_file_that_is_called_like_a_built_in_scheme(tmp_path, name):
    with pytest.raises(FoldError, match=f"built-in scheme '{name}'.*Rename"):
        load_folds(write(tmp_path, [{"train": ["a", "b"], "val": ["c", "d"]}], f"{name}.json"), ABCD)


@pytest.mark.parametrize("name", ["../../evil", "all", "", ".x", "a/b"])
def test_names_of_folds_that_no_folder_can_have(tmp_path, name):
    document = make_folds(ABCD, "cv2", seed=3).to_json()
    document["folds"][name] = document["folds"].pop("0")
    with pytest.raises(FoldError, match="no fold can be called") as caught:
        load_folds(write(tmp_path, document, "mine.json"), ABCD)
    assert repr(name) in str(caught.value)


def test_a_scheme_that_no_folder_can_be_called():
    document = make_folds(ABCD, "cv2", seed=3).to_json() | {"scheme": "../evil"}
    with pytest.raises(FoldError, match="scheme '../evil'"):
        Folds.from_json(document)


def test_a_hold_out_file(tmp_path):
    folds = load_folds(write(tmp_path, [{"train": ["a", "b"], "val": ["c"]}]), ABCD)
    assert folds.notes == ("1 case(s) are in no fold: d",)
    grown = folds.extend([case("e"), case("c2", "c")])
    assert grown.folds == {"0": Fold(("a", "b", "e"), ("c", "c2"))}


def test_cases_validated_twice_are_noted(tmp_path):
    folds = load_folds(write(tmp_path, [{"train": ["a"], "val": ["b"]}, {"train": ["c", "d", "a"], "val": ["b"]}]), ABCD)
    assert "validated in several folds: b" in folds.notes[0]


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ([{"train": ["a", "x1"], "val": ["b"]}], "no such case: x1"),
        ([{"train": ["a", "b"], "val": ["b"]}], "both in training and in validation: b"),
        ([{"train": [], "val": ["b"]}], "no training cases"),
        ([{"train": ["a"], "val": []}], "no validation cases"),
        ([{"train": ["a", "a"], "val": ["b"]}], "twice: a"),
        ([{"train": ["a"]}], 'must be {"train": [...], "val": [...]}'),
        ([{"train": [1], "val": ["b"]}], "a list of names"),
        (["a"], 'must be {"train": [...], "val": [...]}'),
        ([], "no folds"),
        ({"train": ["a"]}, "autoseg-folds/1"),
    ],
)
def test_files_that_do_not_fit(tmp_path, value, part):
    with pytest.raises(FoldError) as caught:
        load_folds(write(tmp_path, value), ABCD)
    assert part in str(caught.value)


def test_the_same_patient_on_both_sides_of_a_file(tmp_path):
    cases = [case("a", "p1"), case("b", "p1"), case("c", "p2"), case("d", "p3")]
    path = write(tmp_path, [{"train": ["a", "c"], "val": ["b", "d"]}])
    with pytest.raises(FoldError) as caught:
        load_folds(path, cases)
    assert "fold 0: patient p1 is in training (a) and in validation (b)" in str(caught.value)
    assert "splits_final.json" in str(caught.value)


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(FoldError, match="cannot be read"):
        load_folds(tmp_path / "absent.json", ABCD)
    (tmp_path / "broken.json").write_text("[")
    with pytest.raises(FoldError, match="no valid JSON"):
        load_folds(tmp_path / "broken.json", ABCD)
