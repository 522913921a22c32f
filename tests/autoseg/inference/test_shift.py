"""Shift at prediction, from voxels: one thing perturbed at a time on a tiny cohort is named, nothing else; --strict; the lists."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from autoseg.dataset.case import Case
from autoseg.errors import CasesFailed, ImageError, ModelError, ShiftError
from autoseg.images import Geometry, Image, write_image
from autoseg.inference.choice import Members
from autoseg.inference.model_folder import ModelFolder
from autoseg.inference.model_writing import write_model_folder
from autoseg.inference.predict import predict_folder
from autoseg.inference.predictor import Predictor
from autoseg.preprocessing.case_fingerprint import fingerprint_images, measure_images
from planners.fingerprint import merge, pool, sketch
from planners.partial_fingerprint import PartialFingerprint
from planners.plan import ZScoreNormalisation

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


def test_resuming_keeps_reviews_and_strict_judges_anew(model, inputs, tmp_path, caplog):
    first = predict_folder([inputs], tmp_path / "out", model=model, **QUICKLY)
    again = predict_folder([inputs], tmp_path / "out", model=model, **QUICKLY, resume=True)
    assert [case.skipped for case in again.cases] == [True] * 3
    assert [case.review for case in again.cases] == [case.review for case in first.cases]
    with pytest.raises(CasesFailed, match="case B: unlike the training images") as caught:
        predict_folder([inputs], tmp_path / "out", model=model, **QUICKLY, resume=True, strict=True)
    assert "\n  - case B: unlike the training images, refused as --strict asks:\n      - intensity" in str(caught.value)
    assert f"case B failed: {tmp_path / 'out' / 'B.nii.gz'}, which is there, is not to be taken for its mask" in caplog.text
    with (tmp_path / "out" / "review.csv").open() as file:
        reasons = {row["case"]: row["reasons"] for row in csv.DictReader(file)}
    assert reasons["B"].startswith("failed in the last run: this mask is of an earlier one | intensity")
    assert reasons["A"] == ""


@pytest.mark.parametrize("names", ["A", "AC"])
def test_a_run_in_which_every_case_fails_marks_the_masks_that_stand(model, inputs, tmp_path, names):
    predict_folder([inputs], tmp_path / "out", model=model, **QUICKLY)
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in (path for name in names for path in inputs.glob(f"{name}_*")):
        (broken / path.name).write_bytes(b"no image")
    with pytest.raises(CasesFailed if len(names) > 1 else ImageError):
        predict_folder([broken], tmp_path / "out", model=model, **QUICKLY)
    with (tmp_path / "out" / "review.csv").open() as file:
        marked = {row["case"] for row in csv.DictReader(file) if row["reasons"].startswith("failed in the last run")}
    assert marked == set(names)
    with pytest.raises((CasesFailed, ImageError)):
        predict_folder([broken], tmp_path / "new", model=model, **QUICKLY)
    assert not (tmp_path / "new" / "review.csv").exists()


def test_a_mask_that_stands_is_reviewed_by_what_the_model_tells_now(model, tiny, training, inputs, tmp_path, caplog):
    """Of cases with three times the spacing too, the model's weights are the same: its masks stay, B's PET stays a finding, A's goes."""
    write_case(inputs, "A", images_of(CT, PET, (18.0, 5.0, 4.0)))
    first = predict_folder([inputs], tmp_path / "out", model=model, **QUICKLY)
    measures = [[finding.measure for finding in case.review.findings] for case in first.cases]
    assert measures == [["spacing.z"], ["intensity"], []]
    written = {case.path: case.path.stat().st_mtime_ns for case in first.cases}
    wide = [
        fingerprint_images(Case(f"W{number}", ()), images_of(*scan(number), (18.0, 5.0, 4.0)), None, "canonical", channels=("CT", "PT"))
        for number in range(10)
    ]
    other = merge(training.channels, training.labels, [*training.cases, *wide])
    plan = tiny.plan(spacing=(8.0, 8.0, 8.0))
    write_model_folder(model, plan=plan, dataset=tiny.dataset(plan), fingerprint=other)
    with caplog.at_level("INFO"):
        again = predict_folder([inputs], tmp_path / "out", model=model, **QUICKLY, resume=True)
    assert caplog.text.count("reviewed anew, since what is known of the training images has changed") == 3
    assert all(case.skipped for case in again.cases)
    assert {path: path.stat().st_mtime_ns for path in written} == written
    found = again.cases
    assert [[finding.measure for finding in case.review.findings] for case in found] == [[], ["intensity"], []]
    assert found[0].review.score == pytest.approx(2 * first.cases[0].review.score)
    assert (found[0].review.confidence, found[0].notes) == (first.cases[0].review.confidence, ())
    assert found[1].review == first.cases[1].review
    assert "spacing" not in (tmp_path / "out" / "review.csv").read_text()
    caplog.clear()
    with caplog.at_level("INFO"):
        third = predict_folder([inputs], tmp_path / "out", model=model, **QUICKLY, resume=True)
    assert "3 of 3 cases are predicted already" in caplog.text
    assert [case.review for case in third.cases] == [case.review for case in found]
    assert "reviewed anew" not in caplog.text
    records = tmp_path / "out" / "predictions.jsonl"
    older = [json.loads(line) for line in records.read_text().splitlines()]
    records.write_text("".join(json.dumps({key: value for key, value in one.items() if key != "judged"}) + "\n" for one in older))
    with caplog.at_level("INFO"):
        fourth = predict_folder([inputs], tmp_path / "out", model=model, **QUICKLY, resume=True)
    assert caplog.text.count("reviewed anew") == 3, "records of earlier releases do not say by what was judged"
    assert all(case.skipped for case in fourth.cases)
    assert [case.review for case in fourth.cases] == [case.review for case in found]
    caplog.clear()
    new = predict_folder([inputs], tmp_path / "new", model=model, **QUICKLY)
    assert [case.review for case in new.cases] == [case.review for case in found], "as though it were predicted now"


@pytest.fixture
def known_in_part(tmp_path, tiny, training):
    """The model without its fingerprint, with what nnU-Net would have left of it."""
    plan = tiny.plan(spacing=(8.0, 8.0, 8.0))
    partial = PartialFingerprint(
        "by hand",
        training.channels,
        training.spacings,
        training.shapes_after_crop,
        tuple(pool(values) for values in zip(*LABELLED, strict=True)),
    )
    weights = {"0": tiny.network(plan).state_dict()}
    return write_model_folder(tmp_path / "part", plan=plan, dataset=tiny.dataset(plan), partial=partial, weights=weights)


LABELLED = [[sketch(channel[scan(number)[1] > 2]) for channel in scan(number)] for number in range(10)]


IN_PART = {
    **dict.fromkeys(PERTURBED, []),
    "swapped channels": [("window", "CT")],
    "three times the spacing": [("spacing.z", "")],
    "a cut field of view": [("extent.x", "")],
    "no PET": [("empty", "PT")],
    "no CT": [("empty", "CT")],
}


@pytest.mark.parametrize("what", PERTURBED)
def test_what_is_known_in_part_judges_no_more_than_it_tells(known_in_part, what):
    images, _ = PERTURBED[what]
    found = Predictor(known_in_part, device="cpu", mirroring=False).predict(images, case="P1")
    assert [(finding.measure, finding.channel) for finding in found.review.findings] == IN_PART[what]


def test_strict_says_what_is_not_checked(known_in_part, inputs, tmp_path, caplog):
    write_case(inputs, "C", images_of(CT, PET, (18.0, 5.0, 4.0)))
    with pytest.raises(CasesFailed, match="case C: unlike the training images") as caught:
        predict_folder([inputs], tmp_path / "out", model=known_in_part, **QUICKLY, strict=True)
    warned = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warned == ["--strict refuses no case for its intensities, noise, sharpness, place of PET on CT: not known of 3d_fullres"]
    (note,) = caught.value.result.notes
    assert note == (
        "3d_fullres: only part of what its training images were like is known (by hand). Cases are judged by: spacing, extent, "
        "missing CT or PT, unit of CT. Not judged: intensities, noise, sharpness, place of PET on CT"
    )
    assert sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz")) == ["A.nii.gz", "B.nii.gz"]


def test_strict_cannot_be_kept_by_what_tells_nothing(tmp_path, tiny):
    plan = tiny.plan(spacing=(8.0, 8.0, 8.0))
    spec = plan.configuration("3d_fullres")
    schemes = (ZScoreNormalisation(),) * 2
    plan = plan.model_copy(update={"configurations": {"3d_fullres": spec.model_copy(update={"normalisation": schemes})}})
    weights = {"0": tiny.network(plan).state_dict()}
    nothing = PartialFingerprint("by hand", plan.channels)
    folder = write_model_folder(tmp_path / "none", plan=plan, dataset=tiny.dataset(plan), partial=nothing, weights=weights)
    predictor = Predictor(folder, device="cpu", mirroring=False)
    assert predictor.predict(PERTURBED["nothing"][0]).review.findings == ()
    with pytest.raises(ModelError, match="nothing tells what it was trained on.*dataset_fingerprint.json beside plans.json"):
        predictor.predict(PERTURBED["nothing"][0], strict=True)


def test_planning_names_a_training_case_unlike_the_others(training):
    from autoseg.planning.planning import _unlike_the_others

    assert _unlike_the_others(training, "canonical") == []
    odd = replace(training.cases[0], case="odd", spacing=(18.0, 5.0, 4.0))
    (note,) = _unlike_the_others(merge(training.channels, training.labels, [*training.cases, odd]), "canonical")
    assert note.startswith("case odd: unlike all other cases, spacing along z: 18 mm; the others have 6 to 6")
