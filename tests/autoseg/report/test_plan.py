"""The plan's page: what it says, and that its pictures show every case and centre."""

import math
import re

import numpy as np

from autoseg.report.centres import _round_steps, draw_spreads
from autoseg.report.plan import plan_page
from planners.centres import Spread, compare
from planners.fingerprint import CaseFingerprint, merge, sketch
from planners.measures import ChannelMeasures
from planners.planner import plan


def fingerprint(*centres):
    rng = np.random.default_rng(0)
    cases = [
        CaseFingerprint(
            case=f"{centre}{index}",
            patient=f"{centre}{index}",
            centre=centre,
            spacing=(2.0 + 3 * number, 1.0, 1.0),
            shape=(40, 64, 64),
            shape_after_crop=(40, 64, 64),
            relative_size=1.0,
            orientation="LPS",
            foreground=(sketch(rng.normal(60, 20, 200)),),
            body=(sketch(rng.normal(0, 100, 500)),),
            label_voxels={1: 10},
            lesions={1: (10.0,)},
            measures=(ChannelMeasures(5.0 * (1 + 3 * number) + index / 10, (1.0, 0.5, 0.5)),),
        )
        for number, centre in enumerate(centres)
        for index in range(4)
    ]
    return merge(("CT",), {"background": 0, "lesion <1>": 1}, cases)


def page(*centres, notes=()):
    found = fingerprint(*centres)
    planned = plan(found, centre_augmentation=True)
    return plan_page(planned, found, compare(found, planned.configurations["3d_fullres"].normalisation), notes), planned


def test_decisions_reasons_and_pictures():
    text, planned = page("North & co", "South")
    assert text.count("<svg") == 2
    assert "North &amp; co" in text
    assert "lesion &lt;1&gt;" in text
    assert planned.configurations["3d_fullres"].augmentation.noise.channels
    assert re.search(r"<td>3d_fullres</td><td>noise</td><td>CT std 0-0\.5", text)
    assert all(key in text for key in planned.reasons)
    assert "http" not in re.sub(r"http://www\.w3\.org/\S+|http://purl\.org/\S+|http://creativecommons\.org/\S+", "", text), (
        "nothing is fetched"
    )
    assert text == page("North & co", "South")[0]


def test_one_centre_needs_no_picture():
    text, _ = page("", notes=["case a has no label"])
    assert "<svg" not in text
    assert "nothing to compare: no case has a centre (cases.csv)" in text
    assert "case a has no label" in text


def test_every_case_is_a_dot_and_every_centre_a_row():
    spread = Spread("noise", 0, {"aa": (0.0, 0.1, 0.2), "bb": (1.0, 1.1)})
    text = draw_spreads([spread])
    (dots,) = {path.count("<use") for path in re.findall(r"<g clip-path[^>]*>(?:\s*<use[^>]*/>)+", text) if path.count("<use") == 3}
    assert dots == 3
    assert ">aa<" in text
    assert ">bb<" in text
    assert "apart by a factor of 2.59" in text
    assert draw_spreads([]) == ""
    assert "alike within noise" in draw_spreads([Spread("location", 0, {"aa": (0.0, 0.1), "bb": (0.05, 0.06)})])


def test_ticks_are_round_few_and_inside():
    for low, high in ((0.2, 2.1), (94, 97), (0.01, 50), (1, 1.2), (111, 111.4), (1e-3, 1e-3 * math.exp(0.1))):
        ticks = _round_steps(low, high)
        assert 2 <= len(ticks) <= 7
        assert all(low * (1 - 1e-9) <= tick <= high * (1 + 1e-9) for tick in ticks)
