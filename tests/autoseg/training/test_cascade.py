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


def test_commands_find_the_same_dataset_and_plan():
    assert command_options(".", None, "default") == " -d ."
    assert command_options("my data", "/scratch/w", "wide") == " -d 'my data' --work /scratch/w --name wide"
