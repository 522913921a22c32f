import pytest

from autoseg.dataset.folds import Fold, Folds, Member
from autoseg.errors import FoldError
from autoseg.training.cascade import command_options, mask_folds


def folds(scheme="cv3", **held_out):
    everyone = sorted({case for cases in held_out.values() for case in cases} | {"z"})
    made = {name: Fold(tuple(c for c in everyone if c not in cases), tuple(cases)) for name, cases in held_out.items()}
    return Folds(scheme, made, {case: Member(case) for case in everyone})


def test_each_training_case_is_seen_through_the_fold_that_held_it_out():
    scheme = folds(**{"0": ["a", "b"], "1": ["c", "d"], "2": ["e", "z"]})
    assert mask_folds(scheme, "0") == {"c": "1", "d": "1", "e": "2", "z": "2", "a": "0", "b": "0"}
    assert mask_folds(scheme, "all") == {"a": "0", "b": "0", "c": "1", "d": "1", "e": "2", "z": "2"}


def test_a_case_that_several_folds_hold_out():
    scheme = folds(north=["a", "b"], south=["b", "c"], east=["a", "b", "z"])
    found = mask_folds(scheme, "south")
    assert found == {"a": "north", "z": "east", "b": "south", "c": "south"}, "a held-out case is seen through its own fold only"


def test_a_case_that_no_fold_holds_out():
    scheme = folds("mine.json", **{"0": ["a"], "1": ["b"]})
    with pytest.raises(FoldError, match="'mine.json' holds 1 cases out in no fold: z. A cascade learns from out-of-fold masks"):
        mask_folds(scheme, "0")


def test_nested_masks_hold_out_the_folds_own_cases_too():
    scheme = folds(**{"0": ["a", "b"], "1": ["c", "d"], "2": ["e", "z"]})
    assert mask_folds(scheme, "1", nested=True) == {"a": "0+1", "b": "0+1", "e": "1+2", "z": "1+2", "c": "1", "d": "1"}
    assert mask_folds(scheme, "all", nested=True) == mask_folds(scheme, "all")
    joint = scheme.fold("1+2")
    assert (joint.training, joint.validation) == (("a", "b"), ("c", "d", "e", "z"))
    with pytest.raises(FoldError, match=r"no fold '2\+1'"):
        scheme.fold("2+1")


def test_centres_whose_names_hold_the_joining_sign():
    scheme = folds("loco", **{"A": ["a"], "A+B": ["b"], "B": ["z"]})
    assert scheme.fold("A+B").validation == ("b",)
    assert scheme.fold("A+A+B").validation == ("a", "b")
    assert not scheme.is_joint("A+B")


def test_commands_find_the_same_dataset_and_plan():
    assert command_options(".", None, "default") == " -d ."
    assert command_options("my data", "/scratch/w", "wide") == " -d 'my data' --work /scratch/w --name wide"
