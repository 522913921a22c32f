from __future__ import annotations

import numpy as np
import pytest

from planners.intensity import sketch
from planners.normalisation import normalisations
from planners.plan import PlanInvalid


@pytest.mark.parametrize(
    ("channel", "kind"),
    [
        ("CT", "ct"),
        ("ct", "ct"),
        ("noNorm", "none"),
        ("rescale_to_0_1", "rescale_0_1"),
        ("RGB_to_0_1", "rgb"),
        ("zscore", "zscore"),
        ("PT", "pet"),
        ("pet", "pet"),
        ("SUV", "pet"),
        ("PETCT", "zscore"),
        ("CTA", "zscore"),
    ],
)
def test_by_lower_cased_name(channel, kind, make_fingerprint):
    found, reasons = normalisations(make_fingerprint([(1, 1, 1)], [(32, 32, 32)], channels=[channel]))
    assert [item.kind for item in found] == [kind]
    assert repr(channel) in reasons["normalisation.0"]


@pytest.mark.parametrize(("relative_size", "masked"), [(1.0, False), (0.75, False), (0.7499, True), (0.2, True)])
def test_masked_where_cropping_took_much(relative_size, masked, make_fingerprint):
    channels = ["MR", "CT", "noNorm"]
    found, _ = normalisations(make_fingerprint([(1, 1, 1)], [(32, 32, 32)], channels=channels, relative_size=relative_size))
    assert [getattr(item, "masked", False) for item in found] == [masked, False, False]


def test_ct_takes_the_pooled_foreground(make_fingerprint):
    values = np.random.default_rng(3).normal(40, 20, 10000)
    (found,), _ = normalisations(make_fingerprint([(1, 1, 1)], [(32, 32, 32)], cases=4, channels=["CT"], foreground=sketch(values)))
    expected = [*np.percentile(values, [0.5, 99.5]), values.mean(), values.std()]
    np.testing.assert_allclose([found.lower, found.upper, found.mean, found.std], expected, rtol=1e-9)


def test_a_constant_foreground_divides_by_something(make_fingerprint):
    (found,), _ = normalisations(make_fingerprint([(1, 1, 1)], [(32, 32, 32)], channels=["CT"], foreground=sketch([7.0])))
    assert found.std == 1e-8


def test_ct_without_any_label_is_refused(make_fingerprint):
    with pytest.raises(PlanInvalid, match="'CT'.*no case has a labelled voxel"):
        normalisations(make_fingerprint([(1, 1, 1)], [(32, 32, 32)], channels=["CT"], foreground=None))
