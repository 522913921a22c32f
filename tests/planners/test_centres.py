"""Between and within centres: beside scipy's analysis of variance, values worked out by hand, and what was drawn."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from planners.centres import Spread, compare
from planners.fingerprint import merge, sketch
from planners.measures import ChannelMeasures
from planners.plan import CTNormalisation, ZScoreNormalisation

CT = CTNormalisation(lower=-100, upper=300, mean=50, std=50)


def spread(**values) -> Spread:
    return Spread("location", 0, {centre: tuple(map(float, v)) for centre, v in values.items()})


def test_two_centres_by_hand():
    # means 2 and 22, within: 4 squares of 1 over 2 degrees of freedom; between: 2 x (10^2 + 10^2) over 1; so (400 - 2) / 2 cases
    found = spread(a=[1, 3], b=[21, 23])
    assert found.within == pytest.approx(math.sqrt(2))
    assert found.between == pytest.approx(math.sqrt(199))
    assert found.overall == pytest.approx(12)
    # two cases count for 2 / (2 + 1)
    assert found.centres == pytest.approx({"a": 12 - 10 * 2 / 3, "b": 12 + 10 * 2 / 3})
    assert found.reach == pytest.approx(2 * math.sqrt(199))
    assert (found.lowest, found.highest) == ("a", "b")


def test_what_is_noisy_is_drawn_further_to_the_middle():
    # within^2 / between^2 is 4 here, more than the one case that is always added
    values = {name: tuple(at + d for d in (-20, -10, 10, 20) * 8) for name, at in (("a", -8.0), ("b", 0.0), ("c", 8.0))}
    found = Spread("location", 0, values)
    ratio = (found.within / found.between) ** 2
    assert ratio > 3
    assert found.centres["c"] == pytest.approx(8 * 32 / (32 + ratio))


@given(seed=st.integers(0, 999), counts=st.lists(st.integers(1, 9), min_size=2, max_size=6))
@settings(deadline=None, max_examples=30)
def test_chance_is_that_of_the_f_test(seed, counts):
    if sum(counts) == len(counts):
        counts = [*counts, 2]
    rng = np.random.default_rng(seed)
    groups = [rng.normal(rng.normal(), 1, n) for n in counts]
    found = Spread("location", 0, {str(i): tuple(g.tolist()) for i, g in enumerate(groups)})
    assert found.chance == pytest.approx(stats.f_oneway(*groups).pvalue, rel=1e-6)


def test_what_was_drawn_is_found():
    rng = np.random.default_rng(0)
    found = spread(**{f"c{i}": rng.normal(rng.normal(5, 2), 1, 12) for i in range(200)})
    assert found.between == pytest.approx(2, rel=0.1)
    assert found.within == pytest.approx(1, rel=0.05)
    assert found.overall == pytest.approx(5, abs=0.4)


def test_equal_centres_are_hardly_ever_told_apart():
    rng = np.random.default_rng(1)
    told = [spread(**{c: rng.normal(0, 1, n) for c, n in zip("abcd", (2, 5, 9, 12), strict=True)}).between > 0 for _ in range(1000)]
    assert sum(told) < 25, "one in a hundred"


def test_centres_without_spread_inside():
    assert spread(a=[2, 2], b=[3, 3]).between == pytest.approx(math.sqrt(0.5))
    assert spread(a=[2, 2], b=[2, 2, 2]).between == 0
    same = math.log(0.9765625)
    assert Spread("spacing.x", None, {"a": (same,) * 7, "b": (same,) * 3}).between == 0


def centre_cases(make_fingerprint, **centres):
    """Two channels; a CT whose noise, blur and intensities each centre sets, and a z-scored PET."""
    base = make_fingerprint([(3.0, 1.0, 1.0)], [(40, 128, 128)], channels=("CT", "PET")).cases[0]
    cases = []
    for centre, (spacing, noise, gain) in centres.items():
        for index in range(6):
            rng = np.random.default_rng(index)
            body = sketch(rng.normal(0, 100, 4000) * gain)
            lesion = sketch(rng.normal(60, 20, 500) * gain)
            measures = ChannelMeasures(noise * (1 + index / 50), (None, 0.8, 0.9))
            cases.append(
                replace(
                    base,
                    case=f"{centre}{index}",
                    centre=centre,
                    spacing=spacing,
                    foreground=(lesion, lesion),
                    body=(body, body),
                    measures=(measures, measures),
                )
            )
    return merge(("CT", "PET"), {"background": 0, "lesion": 1}, cases)


def test_intensities_and_noise_stand_on_the_networks_scale(make_fingerprint):
    fingerprint = centre_cases(make_fingerprint, a=((3, 1, 1), 10, 1), b=((2, 1, 1), 20, 2))
    found = compare(fingerprint, [CT, ZScoreNormalisation()])
    assert found.counts == {"a": 6, "b": 6}
    assert found.why_not == ""
    ct, pet = found.find("noise", 0), found.find("noise", 1)
    assert math.exp(ct.means["b"]) == pytest.approx(2 * math.exp(ct.means["a"]))
    assert math.exp(ct.values["a"][0]) == pytest.approx(10 / 50)
    assert pet.between == 0, "a z-score takes a gain away, from the noise too"
    assert found.find("location", 0).means["a"] == pytest.approx((60 - 50) / 50, abs=0.1)
    assert found.find("location", 1).means["b"] == pytest.approx(found.find("location", 1).means["a"])
    # labelled voxels have a deviation of 20, doubled by the gain; the noise of about 10 and 20 is taken off
    scale = {centre: math.exp(value) for centre, value in found.find("scale", 0).means.items()}
    assert scale == pytest.approx({"a": math.sqrt(20**2 - 10.5**2) / 50, "b": math.sqrt(40**2 - 21**2) / 50}, rel=0.1)
    contrast = {centre: math.exp(value) for centre, value in found.find("contrast", 0).means.items()}
    assert contrast == pytest.approx({"a": 60 / 50, "b": 120 / 50}, rel=0.1), "the body's median is near 0"
    assert found.find("spacing.z").centres["a"] > found.find("spacing.z").centres["b"]
    assert found.find("spacing.y").between == 0
    assert math.exp(found.find("field_of_view.z").means["b"]) == pytest.approx(80)
    assert math.exp(found.find("blur", 0).means["a"]) == pytest.approx(math.sqrt(0.8 * 0.9)), "z is told by none"
    assert found.find("noise") is None


def test_no_contrast_is_a_small_one(make_fingerprint):
    fingerprint = centre_cases(make_fingerprint, a=((3, 1, 1), 10, 1), b=((2, 1, 1), 20, 2))
    even = [replace(case, foreground=case.body) for case in fingerprint.cases]
    found = compare(merge(fingerprint.channels, fingerprint.labels, even), [CT, ZScoreNormalisation()]).find("contrast", 0)
    assert set(found.means.values()) == {math.log(0.1)}


def test_noise_is_no_tone(make_fingerprint):
    base = make_fingerprint([(3.0, 1.0, 1.0)], [(40, 128, 128)], channels=("CT",)).cases[0]
    cases = []
    for centre, noise in (("clean", 1.0), ("noisy", 30.0)):
        for index in range(8):
            rng = np.random.default_rng(index)
            even = np.repeat([0.0, 100.0, 200.0], 4000) + rng.normal(0, noise, 12_000)
            labelled = np.full(500, 150.0) + rng.normal(0, noise, 500)
            found = ChannelMeasures(noise, (None, 0.8, 0.9))
            cases.append(
                replace(
                    base, case=f"{centre}{index}", centre=centre, body=(sketch(even),), foreground=(sketch(labelled),), measures=(found,)
                )
            )
    wide = CTNormalisation(lower=-1000, upper=1000, mean=0, std=100)
    tone = compare(merge(("CT",), {"background": 0, "lesion": 1}, cases), [wide]).find("tone", 0)
    # -log(3/4) in both, nearly: the tails of a third of the voxels reach less far; counted as range they make it 0.43 in the noisy one
    assert math.exp(tone.means["noisy"]) == pytest.approx(math.exp(tone.means["clean"]), rel=0.2)


def test_nothing_to_compare_is_told(make_fingerprint):
    fingerprint = centre_cases(make_fingerprint, a=((3, 1, 1), 10, 1), b=((2, 1, 1), 20, 2))
    schemes = [CT, ZScoreNormalisation()]

    def renamed(centre):
        return merge(fingerprint.channels, fingerprint.labels, [replace(case, centre=centre(case)) for case in fingerprint.cases])

    assert "no case has a centre" in compare(renamed(lambda case: ""), schemes).why_not
    assert "of one centre, x" in compare(renamed(lambda case: "x"), schemes).why_not
    assert "two cases" in compare(renamed(lambda case: case.case), schemes).why_not
    partly = compare(renamed(lambda case: case.centre if case.case != "a0" else ""), schemes)
    assert partly.counts == {"": 1, "a": 5, "b": 6}
    assert partly.find("noise", 0).counts == {"a": 5, "b": 6}


def test_cases_that_tell_nothing_are_left_out(make_fingerprint):
    fingerprint = centre_cases(make_fingerprint, a=((3, 1, 1), 10, 1), b=((2, 1, 1), 20, 2))
    bare = [replace(c, measures=(), foreground=(None, None), body=(None, None), label_voxels={1: 0}) for c in fingerprint.cases]
    found = compare(merge(fingerprint.channels, fingerprint.labels, bare), [CT, ZScoreNormalisation()])
    assert {s.kind.split(".")[0] for s in found.spreads} == {"spacing", "field_of_view"}
