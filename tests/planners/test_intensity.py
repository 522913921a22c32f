from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planners.intensity import LEVELS, mixture_quantiles, pool, sketch

FINITE = st.floats(-1e6, 1e6, allow_nan=False, width=32)


def test_levels_ascend_and_hold_what_planning_reads():
    assert list(LEVELS) == sorted(set(LEVELS))
    assert {0.0, 0.005, 0.5, 0.995, 1.0} <= set(LEVELS)
    assert [round(1 - level, 6) for level in reversed(LEVELS)] == list(LEVELS)


@given(st.lists(FINITE, min_size=1, max_size=300))
@settings(deadline=None, max_examples=100)
def test_a_sketch_is_numpys(values):
    array = np.array(values, dtype=np.float32)
    found = sketch(array)
    wide = array.astype(np.float64)
    assert found.count == len(values)
    assert (found.minimum, found.maximum) == (wide.min(), wide.max())
    np.testing.assert_allclose(found.quantiles, np.quantile(wide, LEVELS), rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose([found.mean, found.std], [wide.mean(), wide.std()], rtol=1e-9, atol=1e-6)


def test_a_sketch_takes_integers_and_any_shape():
    found = sketch(np.arange(201, dtype=np.int16).reshape(3, 67))
    assert (found.mean, found.quantiles[LEVELS.index(0.5)], found.quantiles[LEVELS.index(0.005)]) == (100, 100, 1)


@pytest.mark.parametrize(("values", "message"), [([], "no values"), ([1, np.nan], "finite"), ([np.inf], "finite"), (["a"], "real numbers")])
def test_a_sketch_refuses(values, message):
    with pytest.raises(ValueError, match=message):
        sketch(np.array(values))


def test_nothing_pools_to_nothing():
    assert pool([]) is None
    assert pool([None, None]) is None


def test_one_case_pools_to_itself():
    values = np.random.default_rng(0).normal(40, 15, 5000)
    found = pool([None, sketch(values)])
    expected = [values.mean(), *np.quantile(values, [0.5, 0.005, 0.995]), values.std(), values.min(), values.max()]
    np.testing.assert_allclose(
        [found.mean, found.median, found.percentile_00_5, found.percentile_99_5, found.std, found.minimum, found.maximum], expected
    )


@given(st.integers(0, 2**32), st.integers(2, 6))
@settings(deadline=None, max_examples=30)
def test_every_case_weighs_the_same(seed, cases):
    """Against numpy on one array in which each case has the same number of values, though the sketches saw different numbers."""
    rng = np.random.default_rng(seed)
    kinds = [lambda n: rng.normal(rng.uniform(-50, 50), rng.uniform(5, 40), n), lambda n: rng.gamma(2, rng.uniform(1, 30), n)]
    cores = [kinds[rng.integers(2)](4001) for _ in range(cases)]
    weighed = [np.repeat(core, rng.integers(1, 4)) for core in cores]
    found = pool([sketch(values) for values in weighed])
    joined = np.concatenate(cores)
    assert found.minimum == joined.min()
    assert found.maximum == joined.max()
    np.testing.assert_allclose([found.mean, found.std], [joined.mean(), joined.std()])
    for name, level in (("percentile_00_5", 0.005), ("median", 0.5), ("percentile_99_5", 0.995)):
        rank = np.searchsorted(np.sort(joined), getattr(found, name)) / joined.size
        # Between two sketched levels the distribution is taken as linear: off by a small part of their distance.
        assert abs(rank - level) < (0.001 if level != 0.5 else 0.003), name


def test_quantiles_of_equal_cases_are_exact_at_sketched_levels():
    values = np.random.default_rng(1).normal(size=2001)
    np.testing.assert_allclose(mixture_quantiles([sketch(values)] * 3, LEVELS), np.quantile(values, LEVELS), rtol=1e-9, atol=1e-12)


def test_quantiles_across_a_gap_and_a_jump():
    """Half the mixture is the constant 0, half is 100 to 200: the median is where the first half ends."""
    low, middle, high = mixture_quantiles([sketch([0.0] * 7), sketch(np.linspace(100, 200, 101))], (0.25, 0.5, 0.75))
    assert (low, middle) == (0, 0)
    assert high == pytest.approx(150)


@given(st.lists(st.lists(FINITE, min_size=1, max_size=30), min_size=1, max_size=6), st.randoms())
@settings(deadline=None, max_examples=50)
def test_pooling_does_not_depend_on_the_order(cases, random):
    sketches = [sketch(values) for values in cases]
    shuffled = list(sketches)
    random.shuffle(shuffled)
    assert pool(shuffled) == pool(sketches)


def test_quantiles_inside_a_jump_are_its_value():
    """Half the mixture is the constant 5, half is 0 to 10: the distribution jumps from 0.25 to 0.75 at 5."""
    found = mixture_quantiles([sketch([5.0] * 7), sketch(np.linspace(0, 10, 1001))], (0.2, 0.25, 0.26, 0.5, 0.74, 0.75, 0.8))
    np.testing.assert_allclose(found, (4, 5, 5, 5, 5, 5, 6), rtol=1e-12)
    assert found[3] == 5
