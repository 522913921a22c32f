"""What is judged of a case where only part is known of the training cases; worked out by hand."""

import json
from dataclasses import replace

import pytest

from planners.fingerprint import CaseFingerprint, FingerprintInvalid, sketch
from planners.intensity import IntensityStatistics
from planners.partial_fingerprint import PartialFingerprint, SeenInPart

SOFT = IntensityStatistics(mean=40, median=35, std=50, minimum=-900, maximum=900, percentile_00_5=-100, percentile_99_5=300)
UPTAKE = IntensityStatistics(mean=5, median=4, std=3, minimum=0.4, maximum=40, percentile_00_5=1, percentile_99_5=20)
WINDOWS = {0: (-100.0, 300.0)}
KNOWN = PartialFingerprint(
    "somebody",
    ("CT", "PT"),
    tuple((3.0, 1.0 + number / 100, 1.0) for number in range(6)),
    ((100, 200, 200),) * 6,
    (SOFT, UPTAKE),
)


def case(ct=(-1000, 40, 1500), pt=(0, 1, 30), spacing=(3.0, 1.0, 1.0), shape=(100, 200, 200)):
    return CaseFingerprint(
        "A", "A", "", spacing, (200, 400, 400), shape, 0.25, "LPS", (None, None), (sketch(ct), sketch(pt)), {}, {}
    )  # fmt: skip


def found(known=KNOWN, windows=WINDOWS, **changes):
    return [(finding.measure, finding.channel) for finding in SeenInPart(known.channels, known, windows).judge(case(**changes))]


def test_a_case_like_the_training_cases_has_no_findings():
    assert found() == []
    assert found(shape=(124, 249, 161), spacing=(3.7, 1.0, 1.0)) == [("extent.z", "")], "3.7 mm is within 1.25 x 3 mm, 459 mm not of 300"
    assert found(shape=(124, 249, 161)) == [], "each within a factor 1.25 of 300, 200 and 200 mm"


def test_spacing_and_extent():
    assert found(spacing=(3.8, 1.0, 1.0)) == [("spacing.z", "")], "more than 1.25 x 3 mm; its extent follows"
    assert found(spacing=(3.0, 1.32, 1.0), shape=(100, 160, 200)) == [("spacing.y", "")], "1.25 x 1.05 mm are accepted"
    assert found(spacing=(3.0, 1.3, 1.0), shape=(100, 160, 200)) == []
    (finding,) = SeenInPart(KNOWN.channels, KNOWN, WINDOWS).judge(case(shape=(60, 200, 200)))
    assert finding.text == (
        "extent without the empty margin along z: 180 mm; the training images have 300 to 300, 240 to 375 would be accepted"
    )
    few = replace(KNOWN, spacings=KNOWN.spacings[:4], shapes_after_crop=KNOWN.shapes_after_crop[:4])
    assert found(few, shape=(60, 200, 200)) == [], "four cases tell of spacing alone"
    assert found(few, spacing=(6.0, 1.0, 1.0)) == [("spacing.z", "")]


def test_a_spacing_across_single_slices_is_no_fact():
    flat = PartialFingerprint("somebody", ("CT", "PT"), ((999.0, 1.0, 1.0),) * 6, ((1, 200, 200),) * 6)
    assert found(flat, spacing=(1.0, 1.0, 1.0), shape=(1, 200, 200)) == []
    assert found(flat, spacing=(1.0, 3.0, 1.0), shape=(1, 200, 200)) == [("spacing.y", "")]


@pytest.mark.parametrize(
    ("ct", "share", "hint"),
    [
        ((0, 0.04, 1), 1 / 400, "Is it in HU?"),  # scaled to 1
        ((-1000, 0, 99), 199 / 400, "Is it in HU?"),
        ((-1000, 0, 100), None, ""),  # half of -100 to 300
        ((400, 500, 900), 0, "Is it in HU?"),
        ((0, 40, 255), None, ""),  # a picture of 8 bits: it cannot be told
    ],
)
def test_values_that_do_not_reach_into_the_window(ct, share, hint):
    findings = SeenInPart(KNOWN.channels, KNOWN, WINDOWS).judge(case(ct=ct))
    assert [finding.measure for finding in findings] == ([] if share is None else ["window"])
    for finding in findings:
        assert finding.value == pytest.approx(share)
        assert finding.text.endswith(hint)


def test_swapped_channels_are_asked_after():
    (finding,) = SeenInPart(KNOWN.channels, KNOWN, WINDOWS).judge(case(ct=(0, 1, 30), pt=(-1000, 40, 1500)))
    assert finding.text == (
        "values of CT: 0 to 30 reach into 8 % of -100 to 300, where nearly all labelled voxels of the training images lie; at least 50 % "
        "would be accepted. Those of PT do: are channels swapped?"
    )


def test_an_empty_channel_is_named_where_no_training_case_can_have_been_so():
    assert found(pt=(0, 0)) == [("empty", "PT")]
    assert found(ct=(0, 0)) == [("empty", "CT")], "0 HU everywhere is no CT"
    filled = replace(UPTAKE, minimum=0, percentile_00_5=0)  # of training cases without PET
    assert found(replace(KNOWN, foreground=(SOFT, filled)), pt=(0, 0)) == []
    assert found(replace(KNOWN, foreground=(SOFT, None)), pt=(0, 0)) == [], "nothing is known of it"
    assert found(replace(KNOWN, foreground=()), windows={}, ct=(0, 0)) == []


def test_what_is_judged_and_what_not_is_told():
    def told(known, windows=WINDOWS, as_stored=False):
        seen = SeenInPart(known.channels, known, windows, as_stored=as_stored)
        return ", ".join(seen.judged), ", ".join(seen.unjudged)

    assert told(KNOWN) == ("spacing, extent, missing CT or PT, unit of CT", "intensities, noise, sharpness, place of PET on CT")
    plans_alone = replace(KNOWN, spacings=(), shapes_after_crop=(), foreground=(SOFT, None))
    assert told(plans_alone, as_stored=True) == (
        "missing CT, unit of CT",
        "spacing, extent, missing PT, intensities, noise, sharpness, orientation, place of PET on CT",
    )
    assert told(PartialFingerprint("nobody", ("MR",)), {}) == ("", "spacing, extent, missing MR, intensities, noise, sharpness")


def test_the_document_comes_back_and_what_is_none_is_refused():
    assert PartialFingerprint.from_json(KNOWN.to_json()) == KNOWN
    document = json.loads(KNOWN.to_json())
    wrong = {
        "no document of schema": {"schema": "autoseg-partial-fingerprint/2"},
        "5 spacings": {"spacings": document["spacings"][:5]},
        "must be positive": {"spacings": [[1, 1, -1]] * 6},
        "three entries": {"shapes_after_crop": [[1, 1]] * 6},
        "intensities of 1 of 2 channels": {"foreground": [None]},
        "intensities have the keys": {"foreground": [{"mean": 1}, None]},
        "cannot convert float infinity": {"shapes_after_crop": [[float("inf"), 1, 1]] * 6},
        "too large to convert": {"spacings": [[10**400, 1, 1]] * 6},
        "1 to 2147483648 voxels": {"shapes_after_crop": [[10**400, 1, 1]] * 6},
    }
    for message, change in wrong.items():
        with pytest.raises(FingerprintInvalid, match=message):
            PartialFingerprint.from_json(json.dumps(document | change))
    with pytest.raises(FingerprintInvalid, match="not valid JSON"):
        PartialFingerprint.from_json("{")
