"""First-order statistics against scipy and by hand."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from prognosis.features.first_order import STATISTICS, first_order

values = st.lists(st.floats(-1000, 1000, allow_subnormal=False).map(lambda x: round(x, 3)), min_size=3, max_size=40)


@settings(deadline=None, max_examples=40)
@given(values.filter(lambda x: max(x) - min(x) > 0.01))
def test_moments_are_scipys(x):
    found = first_order(np.array(x))
    assert found["mean"] == pytest.approx(np.mean(x), abs=1e-9)
    assert found["variance"] == pytest.approx(np.var(x), rel=1e-9)
    assert found["skewness"] == pytest.approx(scipy.stats.skew(x), rel=1e-6, abs=1e-6)
    assert found["kurtosis"] == pytest.approx(scipy.stats.kurtosis(x), rel=1e-6, abs=1e-6)
    assert found["interquartile_range"] == pytest.approx(scipy.stats.iqr(x), abs=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.1, -3.0, 1e-200])
def test_equal_values_have_no_spread(value):
    found = first_order(np.full(7, value))
    for name in ("skewness", "kurtosis", "range", "interquartile_range"):
        assert found[name] == 0.0, name


def test_no_values_give_nan_and_no_warning():
    found = first_order(np.array([]))
    assert list(found) == list(STATISTICS)
    assert np.isnan(list(found.values())).all()


def test_a_mean_of_zero_has_no_coefficient_of_variation():
    assert np.isnan(first_order(np.array([-1.0, 1.0]))["coefficient_of_variation"])
