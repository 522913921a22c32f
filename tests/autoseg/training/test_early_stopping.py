import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.dataset.folds import Member
from autoseg.errors import TrainingError
from autoseg.training.early_stopping import inner_part, inner_score
from planners.plan import EarlyStopping


def cohort(**patients):
    """centre -> patients: two cases each."""
    return {f"{c}{i}{visit}": Member(f"{c}{i}", c) for c, count in patients.items() for i in range(count) for visit in "ab"}


def draw(spec, members, seed=1, fold="0", cases=None):
    return inner_part(spec, tuple(cases or members), members, seed=seed, fold=fold)


def test_every_centre_gives_its_share_of_patients_with_all_their_cases():
    members = cohort(A=20, B=10, C=30)
    found = draw(EarlyStopping(fraction=0.1), members)
    assert len(found) == 12
    assert sorted(case[0] for case in found) == ["A"] * 4 + ["B"] * 2 + ["C"] * 6
    assert {case[:-1] + "a" for case in found} | {case[:-1] + "b" for case in found} == set(found)


def test_whole_centres():
    members = cohort(A=5, B=5, C=5, D=5)
    found = draw(EarlyStopping(fraction=0.4, hold_out="centres"), members)
    centres = {case[0] for case in found}
    assert len(centres) == 2
    assert set(found) == {case for case in members if case[0] in centres}


def test_some_centre_is_left_to_learn_from():
    assert len(draw(EarlyStopping(fraction=0.9, hold_out="centres"), cohort(A=1, B=9))) in (2, 18)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 99), fraction=st.floats(0.01, 0.99), counts=st.lists(st.integers(1, 6), min_size=2, max_size=4), whole=st.booleans()
)
def test_someone_judges_and_someone_is_learned_from_and_no_patient_does_both(seed, fraction, counts, whole):
    members = cohort(**dict(zip("ABCD", counts, strict=False)))
    found = draw(EarlyStopping(fraction=fraction, hold_out="centres" if whole else "patients"), members, seed)
    learned = set(members) - set(found)
    assert found
    assert learned
    assert not {members[c].patient for c in found} & {members[c].patient for c in learned}


def test_the_draw_depends_on_seed_and_fold_and_not_on_order():
    members = cohort(A=20, B=20)
    spec = EarlyStopping()
    first = draw(spec, members)
    assert draw(spec, members, cases=tuple(reversed(list(members)))) == first
    assert draw(spec, members, seed=2) != first
    assert draw(spec, members, fold="1") != first


def test_only_training_cases_are_drawn():
    members = cohort(A=10)
    training = tuple(case for case in members if members[case].patient not in ("A3", "A4"))
    assert set(draw(EarlyStopping(fraction=0.9), members, cases=training)) < set(training)


@pytest.mark.parametrize(("spec", "members"), [(EarlyStopping(), {"A": 1}), (EarlyStopping(hold_out="centres"), {"A": 5})])
def test_too_few_to_share_out(spec, members):
    with pytest.raises(TrainingError, match=f"two {spec.hold_out}.*found 1.*early_stopping=null"):
        draw(spec, cohort(**members))


def test_the_score_is_the_mean_dice_of_the_labels_that_occur_or_minus_the_loss():
    found = {"validation_loss": 0.25, "dice": {"a": 0.5, "b": None, "c": 0.7}}
    assert inner_score(EarlyStopping(), found) == pytest.approx(0.6)
    assert inner_score(EarlyStopping(measure="loss"), found) == -0.25
    with pytest.raises(TrainingError, match="no label occurs"):
        inner_score(EarlyStopping(), {"validation_loss": 0.25, "dice": {"a": None}})
