"""What each rule makes of centres that lie apart: values worked out by hand; and what holds whatever lies apart."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planners import centre_rules as rules
from planners.centres import Comparison, Spread
from planners.fingerprint import merge
from planners.measures import ChannelMeasures
from planners.plan import Augmentation, Blur, Brightness, Gamma, LowResolution, Noise, Spatial
from planners.planner import plan
from planners.settings import override

MANY = 1000
"""Cases a centre, so that no centre is drawn towards the others and two standard deviations are 2 sqrt(1/2) of the distance of two."""


def two(kind: str, low: float, high: float, channel: int | None = 0) -> Spread:
    return Spread(kind, channel, {"low": (math.log(low),) * MANY, "high": (math.log(high),) * MANY})


def overall_and_reach(low: float, high: float) -> tuple[float, float]:
    return (math.log(low) + math.log(high)) / 2, math.sqrt(2) * math.log(high / low)


def test_low_resolution_by_hand():
    middle, reach = overall_and_reach(2.0, 3.3)
    found, why = rules.low_resolution(LowResolution(), two("spacing.x", 2.0, 3.3))
    wanted = 2.0 / math.exp(middle + reach)
    assert found.zoom == (math.floor(wanted * 100) / 100, 1.0)
    assert found.zoom[0] == 0.38
    assert found.probability == round(0.25 * math.log(0.38) / math.log(0.5), 2) == 0.35
    assert why.startswith("zoom 0.38-1 (published 0.5-1): from centre high at 3.3 mm to centre low at 2 mm")
    assert rules.low_resolution(LowResolution(), two("spacing.x", 2.0, 2.6)) is None, "the published range reaches as far"
    assert rules.low_resolution(LowResolution(), two("spacing.x", 1.0, 9.0))[0].zoom[0] == rules.ZOOM_CAP


def test_resolution_counts_on_the_networks_grid():
    spreads = [two("spacing.z", 2.0, 6.0, None), two("spacing.y", 0.5, 0.9, None), two("spacing.x", 1.0, 2.0, None)]
    comparison = Comparison(("CT",), {}, tuple(spreads))
    found = rules.resolution(comparison, (0, 1, 2), (3.0, 1.0, 1.0))
    # finer than the grid counts as the grid: (3 x 1 x 1) and (6 x 1 x 2) to the power of 1/3
    assert math.exp(found.means["low"]) == pytest.approx(3 ** (1 / 3))
    assert math.exp(found.means["high"]) == pytest.approx(12 ** (1 / 3))
    in_plane = rules.resolution(comparison, (1, 2), (1.0, 1.0))
    assert math.exp(in_plane.means["high"]) == pytest.approx(math.sqrt(2))
    assert rules.resolution(Comparison(("CT",), {}, ()), (0, 1, 2), (3.0, 1.0, 1.0)) is None


def test_noise_by_hand():
    middle, reach = overall_and_reach(0.1, 0.2)
    found, why = rules.noise(Noise(), [two("noise", 0.1, 0.2), two("noise", 0.01, 0.02), None], ["CT", "PET", "MR"])
    wanted = math.sqrt(math.exp(middle + reach) ** 2 - 0.1**2)
    assert found.channels == ((0.0, math.ceil(wanted * 100) / 100), (0.0, 0.1), (0.0, 0.1))
    assert found.std == (0.0, 0.1)
    assert found.probability == round(0.1 * found.channels[0][1] / 0.1, 2)
    assert "CT std 0-0.37: low at 0.1, high at 0.2" in why
    assert "PET" not in why
    assert rules.noise(Noise(), [two("noise", 0.01, 0.02)], ["PET"]) is None


def test_small_centres_are_told_as_they_are_taken():
    """Of two cases each, centres keep 2/3 of their distance to the middle, sqrt(0.02); between them lies log(2) / sqrt(2)."""
    spread = Spread("noise", 0, {"low": (math.log(0.1),) * 2, "high": (math.log(0.2),) * 2})
    found, why = rules.noise(Noise(), [spread], ["CT"])
    cleanest = math.sqrt(0.02) * 2 ** (-1 / 3)
    wanted = math.sqrt(0.02 * 2 ** (2 * math.sqrt(2)) - cleanest**2)
    assert found.channels == ((0.0, math.ceil(wanted * 100) / 100),) == ((0.0, 0.36),)
    assert "std 0-0.36: low at 0.112 (mean of its 2 cases 0.1), high at 0.178 (mean of its 2 cases 0.2) (published" in why
    _, why = rules.scaling(Spatial(), Spread("labelled_size", None, {"a": (math.log(10),) * 2, "b": (math.log(40),) * 2}))
    assert "a at 12.6 mm (mean of its 2 cases 10 mm), b at 31.7 mm (mean of its 2 cases 40 mm)" in why


def test_a_centre_of_one_case_is_not_the_extreme_that_its_case_is():
    rng = np.random.default_rng(0)
    one = {"one": (-0.2,)} | {name: tuple((at + rng.normal(0, 0.3, 40)).tolist()) for name, at in (("many", 0.0), ("more", 2.0))}
    found = Spread("noise", 0, one)
    assert found.means["one"] < found.means["many"]
    assert found.lowest == min(found.centres, key=found.centres.get) == "many"


@pytest.mark.parametrize(("soft", "widened"), [("z", {"3d_fullres"}), ("x", {"2d", "3d_fullres"})])
def test_slices_know_nothing_of_the_sharpness_across_them(make_fingerprint, soft, widened):
    known = make_fingerprint([(3.0, 1.0, 1.0)], [(60, 200, 200)], cases=20)
    width = {"a": 1.0, "b": 9.0}  # mm, along one axis; 1 mm along the others

    def measured(case):
        return (ChannelMeasures(None, tuple(width[case.centre] if axis == soft else 1.0 for axis in "zyx")),)

    fingerprint = merge(known.channels, known.labels, [replace(case, measures=measured(case)) for case in known.cases])
    planned, published = plan(fingerprint, centre_augmentation=True), plan(fingerprint)
    assert planned.transpose == (0, 1, 2)
    changed = {name for name, spec in planned.configurations.items() if spec != published.configurations[name]}
    assert changed == widened
    if soft == "x":
        # geometric means over y and x of (1, 1) and (1, 9) mm are 1 and 3 mm; ten cases a centre keep 10 / 11 of the distance
        reach, drawn = math.sqrt(2) * math.log(3), math.log(3) / 2 * 10 / 11
        sharpest, softest = math.sqrt(3) * math.exp(-drawn), math.sqrt(3) * math.exp(reach)
        wanted = min(rules.BLUR_CAP, math.sqrt(softest**2 - sharpest**2))
        assert planned.configurations["2d"].augmentation.blur.channels[0][1] == pytest.approx(wanted, abs=0.01)


def test_blur_by_hand():
    middle, reach = overall_and_reach(1.0, 2.0)
    found, _ = rules.blur(Blur(), [two("blur", 1.0, 2.0)], ["CT"], (4.0, 1.0, 2.0))
    assert found.channels == ((0.5, math.ceil(math.sqrt(math.exp(middle + reach) ** 2 - 1) / 2 * 100) / 100),)


def test_factors_by_hand():
    found, why = rules.brightness(Brightness(), [two("magnitude", 1.0, 1.5)], ["CT"])
    reach = 1.5 ** math.sqrt(2)
    assert found.channels == ((math.floor(100 / reach) / 100, math.ceil(100 * reach) / 100),) == ((0.56, 1.78),)
    assert found.probability == round(0.15 * math.log(1.78 / 0.56) / math.log(1.25 / 0.75), 2)
    assert why == "CT factor 0.56-1.78: low at 1, high at 1.5 (published 0.75-1.25); probability 0.34"
    power, why = rules.gamma(Gamma(), [two("tone", 1.0, 1.6)], ["CT"])
    assert power.inverted_probability / power.probability == pytest.approx(1 / 3, abs=0.02)
    assert why.endswith(f"inverted {power.inverted_probability:g}")
    scaled, _ = rules.scaling(Spatial(), two("labelled_size", 20.0, 30.0))
    assert scaled.scaling == (0.56, 1.78)
    assert scaled.rotation_probability == Spatial().rotation_probability


SPREADS = st.fixed_dictionaries(
    {kind: st.tuples(st.floats(0.01, 50), st.floats(1, 30)) for kind in ("noise", "blur", "magnitude", "contrast", "tone", "labelled_size")}
)


@given(
    drawn=SPREADS,
    spacings=st.tuples(st.floats(0.2, 8), st.floats(1, 10)),
    size=st.integers(1, 12),
    seed=st.integers(0, 99),
    absent=st.sets(st.sampled_from(["noise", "blur", "brightness", "contrast", "low_resolution", "gamma", "spatial"])),
)
@settings(deadline=None, max_examples=60)
def test_ranges_are_only_ever_widened_and_stay_below_the_caps(drawn, spacings, size, seed, absent):
    rng = np.random.default_rng(seed)

    def spread(kind, channel, low, factor):
        values = {c: tuple((math.log(m) + rng.normal(0, 0.1, size)).tolist()) for c, m in (("a", low), ("b", low * factor), ("c", low))}
        return Spread(kind, channel, values | {"d": (math.log(low), math.log(low) + 0.1)})

    spreads = [spread(kind, None if kind == "labelled_size" else 0, *values) for kind, values in drawn.items()]
    spreads += [spread(f"spacing.{axis}", None, *spacings) for axis in "zyx"]
    before = Augmentation(**dict.fromkeys(absent))
    after, reasons = rules.widened(before, Comparison(("CT",), {}, tuple(spreads)), (2.0, 1.0, 1.0), (0, 1, 2))
    assert all(getattr(after, name) is None for name in absent)
    fields = {
        "noise": ("std", (0, rules.NOISE_CAP)),
        "blur": ("sigma", (0.5, rules.BLUR_CAP)),
        "brightness": ("factor", rules.FACTOR_CAP),
        "contrast": ("factor", rules.FACTOR_CAP),
        "gamma": ("gamma", rules.GAMMA_CAP),
    }
    for name, (field, (lowest, highest)) in fields.items():
        if name in absent:
            continue
        old, new = getattr(before, name), getattr(after, name)
        assert getattr(new, field) == getattr(old, field)
        (low, high), (least, most) = getattr(old, field), (new.channels or (getattr(old, field),))[0]
        assert lowest <= least <= low < high <= most <= highest
        assert old.probability <= new.probability <= rules.MOST_OFTEN
        assert (new == old) == (name not in reasons)
    if "low_resolution" not in absent:
        assert rules.ZOOM_CAP <= after.low_resolution.zoom[0] <= 0.5
    if "spatial" not in absent:
        low, high = after.spatial.scaling
        assert rules.SCALING_CAP[0] <= low <= 0.7 < 1.4 <= high <= rules.SCALING_CAP[1]


def test_one_centre_and_alike_centres_give_the_published_plan(make_fingerprint):
    fingerprint = make_fingerprint([(3.0, 1.0, 1.0)], [(60, 200, 200)], cases=20, channels=("CT", "PET"))
    assert len(fingerprint.centres) == 2
    seen, published = plan(fingerprint, centre_augmentation=True), plan(fingerprint)
    assert seen.configurations == published.configurations
    assert "2 centres lie apart by more than chance in 0 of " in seen.reasons["augmentation"]
    assert published.reasons["augmentation"].startswith("nnU-Net's published ranges (--augmentation centres")


@pytest.mark.parametrize("centre", [lambda case: "", lambda case: "one", lambda case: case.case])
def test_nobody_is_sent_to_compare_centres_where_there_is_nothing_to_compare(make_fingerprint, centre):
    known = make_fingerprint([(3.0, 1.0, 1.0)], [(60, 200, 200)], cases=4)
    fingerprint = merge(known.channels, known.labels, [replace(case, centre=centre(case)) for case in known.cases])
    assert plan(fingerprint).reasons["augmentation"] == "nnU-Net's published ranges"


def test_centres_of_other_spacing_coarsen_what_the_plan_trains_on(make_fingerprint):
    spacings = [(2.0, 1.0, 1.0), (8.0, 4.0, 4.0)]
    fingerprint = make_fingerprint(spacings, [(100, 256, 256), (25, 64, 64)], cases=20)
    planned = plan(fingerprint, centre_augmentation=True)
    for name, configuration in planned.configurations.items():
        low = configuration.augmentation.low_resolution
        assert low.zoom[0] < 0.5
        if name in ("2d", "3d_fullres"):
            assert planned.reasons[f"{name}.augmentation.low_resolution.zoom"].startswith(f"zoom {low.zoom[0]:g}-1")
    assert plan(fingerprint).configurations["3d_fullres"].augmentation.low_resolution == LowResolution()


def test_channels_must_fit_the_plan(make_fingerprint):
    planned = plan(make_fingerprint([(1.0, 1.0, 1.0)], [(64, 64, 64)], channels=("CT", "PET")))
    changed = override(planned, {"augmentation.noise.channels": [[0, 0.2], [0, 0.1]]})
    assert changed.configurations["3d_fullres"].augmentation.noise.channels == ((0, 0.2), (0, 0.1))
    with pytest.raises(ValueError, match=r"one range a channel \(2\) or none, found .'noise': 1"):
        override(planned, {"augmentation.noise.channels": [[0, 0.2]]})
