"""Columns that know the outcome stop the fit; honest ones, and those that only tell the centre, do not."""

from dataclasses import replace

import numpy as np
import pytest
from cohorts import make_cohort

from prognosis.errors import FitError
from prognosis.validation.leaks import refuse_leaks, suspects
from prognosis.validation.part import Part


def with_column(cohort, values, kind="numeric"):
    return Part.of(
        replace(
            cohort,
            predictors=cohort.predictors.assign(extra=values),
            kinds={**cohort.kinds, "extra": kind},
            groups={**cohort.groups, "extra": "clinical"},
        )
    )


@pytest.mark.parametrize("kind", ["survival", "binary"])
def test_honest_columns_pass(kind):
    assert refuse_leaks(Part.of(make_cohort(kind)), 0) == ()


def test_a_time_of_follow_up_stops_the_fit():
    cohort = make_cohort()
    part = with_column(cohort, cohort.outcome.time_days + 5)
    with pytest.raises(FitError, match=r"(?s)extra: a cross-validated C-index of 1\.000 from its values.*\"extra\" = \"post-baseline\""):
        refuse_leaks(part, 0)


def test_a_rescaled_or_reversed_label_stops_the_fit():
    cohort = make_cohort("binary")
    noise = np.random.default_rng(0).normal(0, 0.1, len(cohort))
    for values in (5 - 3 * cohort.outcome.positive + noise, cohort.outcome.positive * 2 + noise):
        with pytest.raises(FitError, match="extra: a cross-validated AUC"):
            refuse_leaks(with_column(cohort, values), 0)


def test_a_level_that_only_positives_have_stops_the_fit():
    cohort = make_cohort("binary")
    levels = np.where(cohort.outcome.positive, np.where(np.arange(len(cohort)) % 2 == 0, "p16 high", "see pathology"), "other")
    with pytest.raises(FitError, match="from its values alone"):
        refuse_leaks(with_column(cohort, levels.astype(object), "categorical"), 0)


def test_a_column_that_is_filled_in_after_the_event_stops_the_fit():
    cohort = make_cohort("binary")
    values = np.where(cohort.outcome.positive, np.random.default_rng(0).normal(size=len(cohort)), np.nan)
    with pytest.raises(FitError, match="from whether it has a value alone"):
        refuse_leaks(with_column(cohort, values), 0)


def test_a_column_that_tells_the_centre_is_another_matter():
    """Two centres, one all but positive, one all but negative: the scanner separates them, and says nothing inside either."""
    cohort = make_cohort("binary", n=120, centres=2, signal=0.0)
    second = np.array(cohort.centre) == "H1"
    cohort.outcome.positive[:] = second ^ (np.random.default_rng(1).random(120) < 0.05)
    assert suspects(with_column(cohort, second.astype(float)), 0) == ()


def test_few_events_are_told_and_go_on():
    cohort = make_cohort("binary", n=40)
    cohort.outcome.positive[:] = np.arange(40) < 6
    (note,) = refuse_leaks(with_column(cohort, cohort.outcome.positive.astype(float)), 0)
    assert "extra" in note
    assert "may be luck" in note
