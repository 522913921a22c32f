"""Shift at prediction, from voxels: one thing perturbed at a time on a tiny cohort is named, nothing else; --strict; the lists."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from autoseg.dataset.case import Case
from autoseg.errors import CasesFailed, ModelError, ShiftError
from autoseg.images import Geometry, Image, write_image
from autoseg.inference.choice import Members
from autoseg.inference.model_folder import ModelFolder
from autoseg.inference.model_writing import write_model_folder
from autoseg.inference.predict import predict_folder
from autoseg.inference.predictor import Predictor
from autoseg.preprocessing.case_fingerprint import fingerprint_images, measure_images
from planners.fingerprint import merge

QUICKLY = {"mirroring": False, "workers": 0, "device": "cpu"}
SHAPE, SPACING = (20, 30, 40), (6.0, 5.0, 4.0)


def scan(number):
    """CT and PET of one egg-shaped patient in air, on one grid."""
    rng = np.random.default_rng([7, number])
    z, y, x = (2 * axis / n - 1 for axis, n in zip(np.indices(SHAPE), SHAPE, strict=True))
    size = rng.uniform(0.5, 0.6)
    body = z**2 + (1.3 * y) ** 2 + (1.2 * x + 0.2 * z) ** 2 < size
    organ = (z - 0.2) ** 2 + (y + 0.1) ** 2 + (x - 0.15) ** 2 < 0.04
    ct = gaussian_filter(np.where(body, 40.0 + 60 * organ, -1000.0), 0.7) + rng.normal(0, rng.uniform(10, 13), SHAPE)
    pet = gaussian_filter(np.where(body, rng.uniform(0.8, 1.2) + 3.0 * organ, 0.0), 1.0) + np.abs(rng.normal(0, 0.006, SHAPE))
    return ct.astype(np.float32), pet.astype(np.float32)


def images_of(ct, pet, spacing=SPACING):
    geometry = Geometry(ct.shape, spacing)
    return [Image(np.ascontiguousarray(array), geometry) for array in (ct, pet)]


@pytest.fixture(scope="module")
def training():
    cases = []
    for number in range(10):
        mask = Image((scan(number)[1] > 2).astype(np.uint8), Geometry(SHAPE, SPACING))
        case = fingerprint_images(Case(f"T{number}", ()), images_of(*scan(number)), mask, "canonical", channels=("CT", "PT"))
        cases.append(case)
    return merge(("CT", "PT"), {"background": 0, "tumour": 1, "node": 2}, cases)


@pytest.fixture
def model(tmp_path, tiny, training):
    plan = tiny.plan(spacing=(8.0, 8.0, 8.0))
    weights = {"0": tiny.network(plan).state_dict()}
    return write_model_folder(tmp_path / "model", plan=plan, dataset=tiny.dataset(plan), fingerprint=training, weights=weights)


CT, PET = scan(100)
RNG = np.random.default_rng(0)
PERTURBED = {
    "nothing": (images_of(CT, PET), []),
    "swapped channels": (images_of(PET, CT), [("swapped", "CT+PT")]),
    "PET in Bq/ml": (images_of(CT, PET * 7000), [("intensity", "PT")]),
    "CT with an offset": (images_of(CT + 1024, PET), [("intensity", "CT")]),
    "PET 40 mm beside": (images_of(CT, np.roll(PET, 8, axis=1)), [("registration.y", "")]),
    "three times the spacing": (images_of(CT, PET, (18.0, 5.0, 4.0)), [("spacing.z", "")]),
    "noise": (images_of(CT, PET * RNG.normal(1, 0.05, SHAPE).astype(np.float32)), [("noise", "PT")]),
    "a cut field of view": (images_of(CT[:, :, 20:], PET[:, :, 20:]), [("field_of_view.x", "")]),
    "no PET": (images_of(CT, np.zeros_like(PET)), [("empty", "PT")]),
    "no CT": (images_of(np.zeros_like(CT), PET), [("empty", "CT")]),
}


@pytest.mark.parametrize("what", PERTURBED)
def test_exactly_what_was_perturbed_is_named(model, what):
    images, expected = PERTURBED[what]
    found = Predictor(model, device="cpu", mirroring=False).predict(images, case="P1")
    assert [(finding.measure, finding.channel) for finding in found.review.findings] == expected
    assert all(finding.text in found.notes for finding in found.review.findings)
    assert found.mask.shape == images[0].array.shape


def test_strict_refuses_and_needs_a_fingerprint(model, make_model, tiny):
    predictor = Predictor(model, device="cpu", mirroring=False)
    assert ShiftError.exit_status == 2
    with pytest.raises(ShiftError, match=r"case P1: unlike the training images.*\n  - shift of PET against CT along y: "):
        predictor.predict(PERTURBED["PET 40 mm beside"][0], case="P1", strict=True)
    assert predictor.predict(PERTURBED["nothing"][0], strict=True).review.findings == ()
    untold = Predictor(make_model(tiny.plan(spacing=(8.0,) * 3), name="untold", fingerprint=False), device="cpu", mirroring=False)
    assert untold.predict(PERTURBED["swapped channels"][0]).review.findings == ()
    with pytest.raises(ModelError, match=r"no fingerprint.json"):
        untold.predict(PERTURBED["nothing"][0], strict=True)


def test_strict_without_a_fingerprint_stops_before_any_case(make_model, tiny, inputs, tmp_path):
    untold = make_model(tiny.plan(spacing=(8.0,) * 3), name="untold", fingerprint=False)
    with pytest.raises(ModelError, match=r"no fingerprint.json.*Predict without --strict"):
        predict_folder([inputs], tmp_path / "out", model=untold, **QUICKLY, strict=True)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def others(tmp_path, tiny, training):
    """Models of the same plan: trained on PET in Bq/ml; on the first's cases; without a fingerprint."""

    def write(name, fingerprint):
        plan = tiny.plan(spacing=(8.0, 8.0, 8.0))
        return write_model_folder(
            tmp_path / name,
            plan=plan,
            dataset=tiny.dataset(plan),
            fingerprint=fingerprint,
            weights={"0": tiny.network(plan, seed=1).state_dict()},
        )

    cases = []
    for number in range(10):
        ct, pet = scan(number)
        mask = Image(np.zeros(SHAPE, np.uint8), Geometry(SHAPE, SPACING))
        cases.append(fingerprint_images(Case(f"Q{number}", ()), images_of(ct, pet * 7000), mask, "canonical", channels=("CT", "PT")))
    becquerel = merge(training.channels, training.labels, cases)
    return {"becquerel": write("becquerel", becquerel), "same": write("same", training), "untold": write("untold", None)}


def together(*folders, names=()):
    return Predictor(Members(tuple(ModelFolder.open(folder) for folder in folders), (), names), device="cpu", mirroring=False)


def test_a_case_is_judged_by_what_each_model_has_seen(model, others):
    pair = together(model, others["becquerel"], names=("default", "other"))
    (finding,) = pair.predict(PERTURBED["PET in Bq/ml"][0]).review.findings
    assert (finding.measure, finding.channel) == ("intensity", "PT")
    assert finding.text.startswith("for default, intensity, mean of PT")
    (finding,) = pair.predict(PERTURBED["nothing"][0]).review.findings
    assert finding.text.startswith("for other, intensity, mean of PT")
    (finding,) = pair.predict(images_of(CT, PET * 7000, (18.0, 5.0, 4.0))).review.findings[:1]
    assert finding.text.startswith("spacing along z: 18 mm; the training images have 6 to 6"), "outside of what both have seen"
    with pytest.raises(ShiftError, match=r"unlike the training images.*\n  - for other, intensity"):
        pair.predict(PERTURBED["nothing"][0], strict=True)


def test_models_of_the_same_cases_are_one_judge(model, others, monkeypatch):
    measured = []
    monkeypatch.setattr("autoseg.inference.shift.measure_images", lambda *given: measured.append(1) or measure_images(*given))
    pair = together(model, others["same"])
    assert pair.predict(PERTURBED["nothing"][0]).review.findings == ()
    (finding,) = pair.predict(PERTURBED["PET in Bq/ml"][0]).review.findings
    assert finding.text.startswith("intensity, mean of PT")
    assert len(measured) == 2


def test_a_model_that_tells_nothing_leaves_the_judging_to_the_others(model, others):
    pair = together(others["untold"], model)
    assert [finding.measure for finding in pair.predict(PERTURBED["PET in Bq/ml"][0]).review.findings] == ["intensity"]
    with pytest.raises(ModelError, match=r"untold: has no fingerprint.json"):
        pair.predict(PERTURBED["nothing"][0], strict=True)


def test_how_many_training_cases_were_empty_is_the_least_that_any_model_knows(model, others):
    assert together(others["untold"]).shift.unlabelled is None
    assert together(others["becquerel"]).shift.unlabelled == 1
    assert together(others["becquerel"], model, others["untold"]).shift.unlabelled == 0


def write_case(folder, name, images):
    folder.mkdir(exist_ok=True)
    for channel, image in enumerate(images):
        write_image(folder / f"{name}_{channel:04d}.nii.gz", image.array, image.geometry)


@pytest.fixture
def inputs(tmp_path):
    folder = tmp_path / "in"
    for name, what in (("A", "nothing"), ("B", "PET in Bq/ml"), ("C", "nothing")):
        write_case(folder, name, PERTURBED[what][0])
    return folder


def test_cases_to_review_are_listed(model, inputs, tmp_path):
    result = predict_folder([inputs], tmp_path / "out", model=model, **QUICKLY)
    listed = result.text().split("cases to review")[1]
    assert "B (score" in listed
    assert "not in the same unit (SUV or Bq/ml?)" in listed
    with (tmp_path / "out" / "review.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["case"] == "B"
    assert sorted(row["case"] for row in rows) == ["A", "B", "C"]
    assert rows[0]["reasons"].startswith("intensity, mean of PT")
    told = json.loads(json.dumps(result.to_dict()))
    cases = {case["case"]: case["review"] for case in told["cases"]}
    assert cases["B"]["findings"][0]["measure"] == "intensity"
    assert cases["B"]["findings"][0]["range"][1] < cases["B"]["findings"][0]["value"]
    assert cases["A"]["findings"] == cases["C"]["findings"] == []
    assert cases["B"]["score"] <= cases["B"]["confidence"] / 2


def test_the_command_refuses_such_cases_and_does_the_others(run, model, inputs, tmp_path):
    predict_folder([inputs], tmp_path / "out", model=model, **QUICKLY)
    options = ("-i", inputs, "-m", model, "--no-mirroring", "--workers", 0, "--device", "cpu")
    refused = run("predict", *options, "-o", tmp_path / "strict", "--strict", status=3)
    assert "case B: unlike the training images, refused as --strict asks" in refused.stderr
    assert sorted(path.name for path in (tmp_path / "strict").glob("*.nii.gz")) == ["A.nii.gz", "C.nii.gz"]
    rows = (tmp_path / "strict" / "review.csv").read_text().splitlines()
    assert sorted(row.split(",")[0] for row in rows[1:]) == ["A", "C"]
    for name in "AC":
        assert (tmp_path / "strict" / f"{name}.nii.gz").read_bytes() == (tmp_path / "out" / f"{name}.nii.gz").read_bytes()


def test_the_list_holds_what_earlier_runs_left_in_the_folder(model, inputs, tmp_path):
    files = {name: sorted(inputs.glob(f"{name}_*")) for name in "ABC"}
    for name in "ABC":
        predict_folder(files[name], tmp_path / "out", model=model, **QUICKLY)
    (tmp_path / "out" / "C.nii.gz").unlink()
    predict_folder(files["A"], tmp_path / "out", model=model, **QUICKLY)
    rows = (tmp_path / "out" / "review.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["B", "A"]


def test_resuming_keeps_reviews_and_strict_judges_anew(model, inputs, tmp_path):
    first = predict_folder([inputs], tmp_path / "out", model=model, **QUICKLY)
    again = predict_folder([inputs], tmp_path / "out", model=model, **QUICKLY, resume=True)
    assert [case.skipped for case in again.cases] == [True] * 3
    assert [case.review for case in again.cases] == [case.review for case in first.cases]
    with pytest.raises(CasesFailed, match="case B: unlike the training images"):
        predict_folder([inputs], tmp_path / "out", model=model, **QUICKLY, resume=True, strict=True)


def test_planning_names_a_training_case_unlike_the_others(training):
    from autoseg.planning.planning import _unlike_the_others

    assert _unlike_the_others(training, "canonical") == []
    odd = replace(training.cases[0], case="odd", spacing=(18.0, 5.0, 4.0))
    (note,) = _unlike_the_others(merge(training.channels, training.labels, [*training.cases, odd]), "canonical")
    assert note.startswith("case odd: unlike all other cases, spacing along z: 18 mm; the others have 6 to 6")
