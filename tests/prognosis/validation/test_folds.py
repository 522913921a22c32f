"""Folds: properties that hold for whatever patients there are."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from prognosis.validation.folds import centre_folds, inner_folds, outer_folds, stratified_folds

centres = st.lists(st.sampled_from(["", "A", "B", "C", "D"]), min_size=2, max_size=40)


@settings(deadline=None)
@given(centres)
def test_a_held_out_centre_is_held_out_whole(centre):
    folds = centre_folds(centre)
    known = sorted(set(centre) - {""})
    assert [fold.name for fold in folds] == (known if len(known) > 1 else [])
    for fold in folds:
        assert {centre[row] for row in fold.test} == {fold.name}
        assert {centre[row] for row in fold.train} == set(known) - {fold.name}  # "" may be the held-out hospital
        assert len(fold.test) == centre.count(fold.name)


def test_two_centres_are_tested_both_ways():
    folds = centre_folds(["A", "B", "A", "B"])
    assert [(fold.name, fold.train.tolist(), fold.test.tolist()) for fold in folds] == [("A", [1, 3], [0, 2]), ("B", [0, 2], [1, 3])]


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("AB"), st.booleans()), min_size=2, max_size=60), st.integers(2, 6), st.integers(0, 99))
def test_strata_are_shared_out_evenly(strata, count, seed):
    folds = stratified_folds(strata, count, seed)
    assert sorted(row for fold in folds for row in fold.test) == list(range(len(strata)))
    for fold in folds:
        assert sorted([*fold.train, *fold.test]) == list(range(len(strata)))
    for stratum in set(strata):
        shares = [sum(strata[row] == stratum for row in fold.test) for fold in folds]
        assert max(shares) - min(shares) <= 1
    sizes = [len(fold.test) for fold in folds]
    assert max(sizes) - min(sizes) <= 1


def test_the_seed_decides():
    strata = ["A"] * 20
    first, again, other = (stratified_folds(strata, 5, seed) for seed in (1, 1, 2))
    assert all((a.test == b.test).all() for a, b in zip(first, again, strict=True))
    assert any((a.test != b.test).any() for a, b in zip(first, other, strict=True))


def test_the_inner_loop_goes_by_centre_where_there_are_three():
    seen = [True, False] * 15
    three = inner_folds("centre", ["A", "B", "C"] * 10, seen, (0,))
    assert [fold.name for fold in three] == ["A", "B", "C"]
    assert [fold.name for fold in inner_folds("centre", ["A", "B"] * 15, seen, (0,))] == ["0", "1", "2", "3", "4"]
    assert [fold.name for fold in inner_folds("random", ["A", "B", "C"] * 10, seen, (0,))] == ["0", "1", "2", "3", "4"]


def test_many_centres_make_five_inner_folds_of_whole_centres():
    centre = [name for number, name in enumerate("ABCDEFGHI", start=1) for _ in range(number)]
    folds = inner_folds("centre", centre, [True, False] * 22 + [True], (0,))
    assert len(folds) == 5
    for fold in folds:
        assert {centre[row] for row in fold.test} == set(fold.name.split("+"))
        assert {centre[row] for row in fold.test}.isdisjoint({centre[row] for row in fold.train})
        assert len(fold.test) == 9  # 45 patients, and these centres happen to fill folds evenly
    assert Counter(row for fold in folds for row in fold.test) == Counter(range(45))


def test_one_centre_has_no_centre_rung():
    assert outer_folds("centre", ["A"] * 9, [True, False, True] * 3, 0) == ()
    assert len(outer_folds("random", [""] * 9, [True, False, True] * 3, 0)) == 5


def test_rows_are_sorted():
    for fold in stratified_folds(list("abcabcabcabc"), 3, 0):
        assert (np.diff(fold.train) > 0).all()
        assert (np.diff(fold.test) > 0).all()
