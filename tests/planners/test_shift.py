"""What is outside, on cases made of numbers: intervals against scipy, one perturbed measure at a time, and the training set itself."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from planners.fingerprint import CaseFingerprint, merge, sketch
from planners.measures import Alignment, ChannelMeasures
from planners.outliers import outliers
from planners.shift import FIELD_OF_VIEW, NOISE, REGISTRATION, SPACING, Seen, Told
from planners.span import Kind, Span

CHANNELS = ("CT", "PET", "X")


def channel_values(rng):
    """CT with air and tissue, a PET in SUV, and a channel whose unit differs wildly from case to case."""
    ct = np.concatenate([rng.normal(-1000, 10, 300), rng.normal(rng.normal(30, 10), 40, 300)])
    pet = rng.gamma(2, rng.uniform(0.4, 0.8), 600)
    other = rng.gamma(3, 1.0, 600) * np.exp(rng.uniform(np.log(50), np.log(1e6)))
    return ct, pet, other


def case_of(number, channels=3, **changes):
    rng = np.random.default_rng(number)
    bodies = tuple(sketch(values) for values in channel_values(rng)[:channels])
    noise = [float(rng.uniform(0.04, 0.06)) * body.std for body in bodies]
    blur = tuple(float(width) for width in rng.uniform(1.0, 1.3, 3))
    case = CaseFingerprint(
        case=f"case{number:03d}",
        patient="",
        centre="",
        spacing=(3.0 if number % 2 else 2.0, 1.0, 1.0),
        shape=(int(rng.integers(60, 80)), 200, 200),
        shape_after_crop=(60, 180, 180),
        relative_size=0.8,
        orientation="LPS" if number % 2 else "RAS",
        foreground=(None,) * channels,
        body=bodies,
        label_voxels={1: 100},
        lesions={1: (5.0,)},
        measures=tuple(ChannelMeasures(level, blur) for level in noise),
        alignment=Alignment(tuple(float(mm) for mm in rng.normal(0, 1.5, 3)), float(rng.uniform(0.9, 0.95))),
    )
    return replace(case, **changes)


@pytest.fixture(scope="module")
def training():
    return merge(CHANNELS, {"background": 0, "ball": 1}, [case_of(number) for number in range(40)])


def scaled(body, factor=1.0, offset=0.0):
    return sketch(np.array(body.quantiles) * factor + offset)


NEW = case_of(100)
CT, PET, X = NEW.body
CONSTANT = sketch(np.zeros(5))
NOISY = replace(NEW.measures[1], noise=NEW.measures[1].noise * 4)
PERTURBED = {
    "nothing": ({}, []),
    "spacing, and what follows from it": ({"spacing": (9.0, 1.0, 1.0)}, [("spacing.z", "")]),
    "field of view": ({"shape": (20, 200, 200)}, [("field_of_view.z", "")]),
    "PET in Bq/ml": ({"body": (CT, scaled(PET, 7000), X), "measures": ()}, [("intensity", "PET")]),
    "CT without its offset": ({"body": (scaled(CT, offset=1024), PET, X)}, [("intensity", "CT")]),
    "CT from 0 to 1": ({"body": (scaled(CT, 1 / 2000, 0.5), PET, X), "measures": ()}, [("intensity", "CT")]),
    "a unit that varied in training": ({"body": (CT, PET, scaled(X, 0.2)), "measures": ()}, []),
    "swapped": ({"body": (PET, CT, X)}, [("swapped", "CT+PET")]),
    "noise": ({"measures": (NEW.measures[0], NOISY, NEW.measures[2])}, [("noise", "PET")]),
    "blur": ({"measures": (replace(NEW.measures[0], blur=(1.1, 1.1, 4.0)), *NEW.measures[1:])}, [("blur.x", "CT")]),
    "PET beside CT": ({"alignment": Alignment((0.0, 40.0, 0.0), 0.4)}, [("registration.y", "")]),
    "another patient's PET": ({"alignment": Alignment((0.0, 1.0, 0.0), 0.4)}, [("overlap", "")]),
    "zero": ({"body": (CT, CONSTANT, X)}, [("empty", "PET")]),
    "nothing in a channel": ({"body": (None, PET, X)}, [("empty", "CT")]),
}


@pytest.mark.parametrize("what", PERTURBED)
def test_exactly_what_was_perturbed_is_named(training, what):
    changes, expected = PERTURBED[what]
    found = Seen.of(training).findings(Told.of(replace(NEW, **changes)))
    assert [(finding.measure, finding.channel) for finding in found] == expected
    for finding in found:
        if finding.range is not None:
            assert not finding.range[0] <= finding.value <= finding.range[1]
            assert f"{finding.value:.4g}" in finding.text


def test_a_measure_without_a_unit_leaves_no_gap():
    finding = Span(Kind("contrast", "", False, 0.5), (1.0, 2.0)).finding("contrast", "MRI", 9.0)
    assert finding.text.startswith("contrast of MRI: 9; the training images have 1 to 2,")


def test_units_are_asked_for(training):
    (found,) = Seen.of(training).findings(Told.of(replace(NEW, body=(CT, scaled(PET, 7000), X), measures=())))
    assert "not in the same unit (SUV or Bq/ml?)" in found.text
    (found,) = Seen.of(training).findings(Told.of(replace(NEW, body=(scaled(CT, offset=1024), PET, X))))
    assert found.text.endswith("Is it in HU?")


def test_the_training_cases_do_not_flag_each_other(training):
    assert outliers(training) == {}
    odd = replace(case_of(200), spacing=(12.0, 1.0, 1.0))
    found = outliers(merge(CHANNELS, training.labels, [*training.cases, odd]))
    assert {case: [finding.measure for finding in findings] for case, findings in found.items()} == {"case200": ["spacing.z"]}
    assert outliers(merge(CHANNELS, training.labels, training.cases[:5])) == {}


@pytest.mark.parametrize("as_stored", [False, True])
@pytest.mark.parametrize("count", [6, 40])
def test_only_cases_without_a_finding_are_passed_over(training, count, as_stored):
    """The oracle judges every case in full against all the others."""
    odd = [
        replace(case_of(200), spacing=(12.0, 1.0, 1.0)),
        replace(case_of(201), body=(CT, CONSTANT, X)),
        replace(case_of(202), body=(CT, PET, scaled(X, offset=-2 * X.mean))),
        replace(case_of(203), body=(PET, CT, X)),
        replace(case_of(204), orientation="PIR"),
        replace(case_of(205), alignment=Alignment((0.0, 60.0, 0.0), 0.9)),
        replace(case_of(206), measures=()),
    ]
    told = merge(CHANNELS, training.labels, [*training.cases[:count], *odd])
    cases = [Told.of(case) for case in told.cases]
    judged = {
        case.case: Seen(CHANNELS, cases[:place] + cases[place + 1 :], as_stored=as_stored).findings(cases[place])
        for place, case in enumerate(told.cases)
    }
    expected = {case: findings for case, findings in judged.items() if findings}
    assert outliers(told, as_stored=as_stored) == expected
    assert len(expected) >= 4


def test_orientation_counts_where_images_are_taken_as_stored(training):
    turned = Told.of(replace(NEW, orientation="PIR"))
    assert Seen.of(training).findings(turned) == ()
    (found,) = Seen.of(training, as_stored=True).findings(turned)
    assert found.measure == "orientation"
    assert "LPS, RAS" in found.text


def test_what_training_did_not_measure_is_not_judged(training):
    blind = merge(CHANNELS, training.labels, [replace(case, measures=(), alignment=None) for case in training.cases])
    changes = {"measures": (NEW.measures[0], NOISY, NEW.measures[2]), "alignment": Alignment((0.0, 40.0, 0.0), 0.4)}
    assert Seen.of(blind).findings(Told.of(replace(NEW, **changes))) == ()
    few = merge(CHANNELS, training.labels, training.cases[:4])
    assert Seen.of(few).findings(Told.of(replace(NEW, body=(CT, scaled(PET, 7000), X)))) == ()
    assert [f.measure for f in Seen.of(few).findings(Told.of(replace(NEW, spacing=(9.0, 1.0, 1.0))))] == ["spacing.z"]


def test_the_interval_is_the_prediction_interval_of_a_normal_sample():
    values = np.random.default_rng(0).normal(3.0, 20.0, 12)
    low, high = stats.t.interval(0.999, 11, values.mean(), values.std(ddof=1) * np.sqrt(1 + 1 / 12))
    np.testing.assert_allclose(Span(REGISTRATION, tuple(values)).accepted, (low, high))
    # Values that are alike leave the margin: a factor 1.25 of a spacing, 1.5 of noise.
    np.testing.assert_allclose(np.exp(Span(SPACING, (0.0,) * 9).accepted), (0.8, 1.25))
    np.testing.assert_allclose(np.exp(Span(NOISE, (0.0,) * 9).accepted), (1 / 1.5, 1.5))
    # One odd case among hundreds is not what was seen.
    assert Span(FIELD_OF_VIEW, (0.0,) * 199 + (5.0,)).seen == (0.0, 0.0)


def test_an_interval_rarely_leaves_out_a_case_of_its_kind():
    rng = np.random.default_rng(1)
    outside = sum(Span(REGISTRATION, tuple(rng.normal(0, 50, 8))).outside(rng.normal(0, 50)) > 0 for _ in range(3000))
    assert outside <= 12  # 1 in 1000 expected


def test_a_channel_with_negative_values_where_training_had_none_is_told_as_it_is(training):
    other = scaled(X, offset=-2 * X.mean)
    (finding,) = Seen.of(training).findings(Told.of(replace(NEW, body=(CT, PET, other))))
    assert (finding.measure, finding.channel) == ("intensity", "X")
    assert finding.value == pytest.approx(other.mean)
    assert f"{other.mean:.4g}" in finding.text
