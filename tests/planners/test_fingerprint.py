from __future__ import annotations

import json
import random
from dataclasses import replace

import numpy as np
import pytest

from planners.fingerprint import CaseFingerprint, Fingerprint, FingerprintInvalid, merge, pool, sketch
from planners.measures import Alignment, ChannelMeasures


@pytest.fixture
def cases():
    rng = np.random.default_rng(0)
    return [
        CaseFingerprint(
            case=f"case_{index}",
            patient=f"patient_{index // 2}",
            centre=centre,
            spacing=(3.0 + index, 1.0, 1.0),
            shape=(20, 64, 64),
            shape_after_crop=(18, 60 + index, 64),
            relative_size=0.5 + index / 10,
            orientation="RAS",
            foreground=(sketch(rng.normal(index, 1, 50)), None),
            body=(sketch(rng.normal(-100, 10, 500)), sketch(rng.gamma(2, 1, 500))),
            label_voxels={1: 30, 2: 20},
            lesions={1: (90.0,), 2: (40.0, 20.0)},
            measures=(ChannelMeasures(20.0 + index, (None, 0.5, 0.75)), None),
            alignment=Alignment((0.5, -1.0 - index, 0.0), 0.9) if index else None,
        )
        for index, centre in enumerate(["MDA", "CHUM", "MDA", "CHUM", "MDA"])
    ]


@pytest.fixture
def fingerprint(cases):
    return merge(("CT", "PT"), {"background": 0, "GTVp": 1, "GTVn": 2}, cases)


def test_merging_does_not_depend_on_the_order(cases, fingerprint):
    for seed in range(5):
        shuffled = random.Random(seed).sample(cases, len(cases))
        again = merge(fingerprint.channels, fingerprint.labels, shuffled)
        assert again == fingerprint
        assert again.to_json() == fingerprint.to_json()
        assert again.foreground == fingerprint.foreground


def test_what_follows_from_the_cases(cases, fingerprint):
    assert fingerprint.spacings == tuple(case.spacing for case in cases)
    assert fingerprint.shapes_after_crop[3] == (18, 63, 64)
    assert fingerprint.relative_size == 0.7
    assert fingerprint.foreground == (pool(case.foreground[0] for case in cases), None)
    assert len(fingerprint.body) == 2


def test_centres_stand_apart(cases, fingerprint):
    assert list(fingerprint.centres) == ["CHUM", "MDA"]
    chum = fingerprint.centres["CHUM"]
    assert (chum.cases, chum.spacing, chum.spacing_minimum, chum.spacing_maximum) == (2, (5, 1, 1), (4, 1, 1), (6, 1, 1))
    assert chum.foreground[0] == pool([cases[1].foreground[0], cases[3].foreground[0]])
    assert chum.foreground[1] is None


def test_json_round_trip_is_exact(fingerprint):
    again = Fingerprint.from_json(fingerprint.to_json())
    assert again == fingerprint
    assert again.cases[0].lesions == {1: (90.0,), 2: (40.0, 20.0)}
    assert again.to_json() == fingerprint.to_json()


def test_a_case_is_plain_json(cases):
    assert CaseFingerprint.from_dict(json.loads(json.dumps(cases[0].to_dict()))) == cases[0]


def test_a_document_of_version_1_is_read_with_nothing_measured(cases, fingerprint):
    document = json.loads(fingerprint.to_json())
    document["schema"] = "autoseg-fingerprint/1"
    for case in document["cases"]:
        del case["measures"], case["alignment"]
    again = Fingerprint.from_json(json.dumps(document))
    assert again.cases == tuple(replace(case, measures=(), alignment=None) for case in cases)
    assert again.cases[0].measured(1) is None
    assert json.loads(again.to_json())["schema"] == "autoseg-fingerprint/3"
    with pytest.raises(FingerprintInvalid, match="missing keys .'cases'"):
        Fingerprint.from_json('{"schema": "autoseg-fingerprint/1", "channels": [], "labels": {}}')


def test_what_follows_from_one_case(cases):
    assert cases[1].field_of_view == (80.0, 64.0, 64.0)
    assert cases[1].measured(0) == ChannelMeasures(21.0, (None, 0.5, 0.75))
    assert cases[1].measured(1) is None


def _set(document, path, value):
    *first, last = path
    for key in first:
        document = document[key]
    document[last] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("colour",), 1, "unknown keys .'colour'"),
        (("schema",), "autoseg-plan/1", "must be 'autoseg-fingerprint/N'"),
        (("schema",), "autoseg-fingerprint/4", "release that reads autoseg-fingerprint/4"),
        (("channels",), ["CT"], "case_0: has 2 foreground"),
        (("cases",), [], "no cases"),
        (("cases", 0, "colour"), 1, "case case_0: unknown keys .'colour'"),
        (("cases", 0, "spacing"), [1, 1], "case case_0: three entries"),
        (("cases", 0, "spacing"), [1, 1, 0], "case_0: spacing must be positive"),
        (("cases", 0, "body", 0, "std"), "wide", "case case_0"),
        (("cases", 0, "body", 0, "colour"), 1, "a sketch has the keys"),
        (("cases", 0, "body", 0, "quantiles"), [1, 2], "quantiles, found"),
        (("cases", 0, "body", 0, "quantiles", 3), 1e9, "ascend"),
        (("cases", 0, "label_voxels"), [1], "case case_0"),
        (("cases", 0, "measures"), [None], "case_0: has measures of 1 channels, the dataset has 2"),
        (("cases", 0, "measures", 0, "noise"), -1, "case case_0: noise and blur are finite and not negative"),
        (("cases", 0, "measures", 0, "blur"), [1, 1], "case case_0"),
        (("cases", 0, "measures", 0, "colour"), 1, "case case_0: measures have the keys"),
        (("cases", 0, "alignment"), {"shift": [1, 2], "overlap": 1}, "case case_0"),
        (("cases", 0, "alignment"), {"shift": [1, 2, 3], "overlap": 2}, "case case_0: a shift is three finite numbers"),
        (("cases", 0, "alignment"), {"shift": [1, 2, 3]}, "case case_0: an alignment has the keys"),
        (("cases", 0), 7, "case"),
        (("cases", 1, "case"), "case_0", "come twice: case_0"),
    ],
)
def test_a_broken_document_is_refused_by_name(fingerprint, path, value, message):
    document = json.loads(fingerprint.to_json())
    _set(document, path, value)
    with pytest.raises(FingerprintInvalid, match=message):
        Fingerprint.from_json(json.dumps(document), source="fingerprint.json")


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_no_document_at_all(text):
    with pytest.raises(FingerprintInvalid, match=r"fingerprint.json: "):
        Fingerprint.from_json(text, source="fingerprint.json")


def test_infinite_statistics_cannot_be_built(cases):
    with pytest.raises(ValueError, match="finite"):
        replace(cases[0].body[0], mean=float("nan"))
