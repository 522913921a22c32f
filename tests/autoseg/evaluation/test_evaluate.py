import csv
import io
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from autoseg.errors import DatasetError
from autoseg.evaluation import Settings, evaluate, find_masks, score_masks
from autoseg.evaluation.challenges import score_challenge
from autoseg.evaluation.surface import surface_dice
from autoseg.images import Geometry, write_mask

SHAPE = (6, 8, 8)
LABELS = {"background": 0, "GTVp": 1, "GTVn": 2}


def cube(start, size=2, value=1):
    mask = np.zeros(SHAPE, np.uint8)
    mask[start : start + size, start : start + size, start : start + size] = value
    return mask


def write(folder, name, mask, spacing=(2.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0)):
    folder.mkdir(exist_ok=True)
    write_mask(folder / f"{name}.nii.gz", mask, Geometry(mask.shape, spacing, origin))


@pytest.fixture
def folders(tmp_path):
    """a: half right; b: the reference has no GTVp, the prediction has; c: nothing predicted of GTVp; d: neither has any."""
    reference, prediction = tmp_path / "reference", tmp_path / "prediction"
    shifted = np.roll(cube(1), 1, axis=2)
    for name, r, p in (("a", cube(1), shifted), ("b", 0 * cube(1), cube(1)), ("c", cube(1), 0 * cube(1)), ("d", 0 * cube(1), 0 * cube(1))):
        write(reference, name, r)
        write(prediction, name, p)
    return reference, prediction


def data(*parts):
    root = Path(os.environ.get("AUTOSEG_DATA", Path(__file__).parents[4] / "shared" / "data"))
    folder = root.joinpath(*parts)
    if not folder.exists():
        pytest.skip(f"needs {'/'.join(parts)} in the shared data: set AUTOSEG_DATA to its folder")
    return folder


def test_means_leave_out_what_is_undefined_and_count_it(folders):
    summary = evaluate(*folders, labels={"GTVp": 1}).summary("GTVp")
    dice = summary.means["dice"]
    assert (dice.mean, dice.count, dice.undefined) == (pytest.approx((0.5 + 0 + 0) / 3), 3, 1)
    distance = summary.means["hd95_mm"]
    assert (distance.mean, distance.count, distance.undefined, distance.infinite) == (1.0, 1, 1, 2)
    # voxels: 4 shared of 8 and 8; b claims 8; c misses 8
    assert summary.dice_aggregated == pytest.approx(8 / 32)
    assert summary.lesion_f1_aggregated == pytest.approx(2 / (2 + 1 + 1))


def test_volumes_and_empty_flags(folders):
    scores = {case.case: case.scores["GTVp"] for case in evaluate(*folders, labels=LABELS).cases}
    assert [scores[name].empty for name in "abcd"] == ["", "reference", "prediction", "both"]
    assert scores["a"].volume_reference_ml == pytest.approx(8 * 2.0 / 1000)
    assert math.isnan(scores["d"].dice)
    assert scores["a"].voxels.tn == math.prod(SHAPE) - 12


def test_centres(folders):
    result = evaluate(*folders, labels={"GTVp": 1}, centres={"a": "North", "c": "North", "b": "South"})
    assert result.centres == ("North", "South")
    assert result.summary("GTVp", "North").means["dice"].mean == pytest.approx(0.25)
    assert result.summary("GTVp", "South").cases == 1
    assert "North" in result.table()


def test_what_cannot_be_scored_is_named_and_the_rest_is_done(folders, tmp_path):
    reference, prediction = folders
    (prediction / "a.nii.gz").unlink()
    write(prediction, "b", cube(1), origin=(5.0, 0.0, 0.0))
    (prediction / "c.nii.gz").write_bytes(b"junk")
    write(prediction, "surplus", cube(1))
    (prediction / "._d.nii.gz").write_bytes(b"macOS")
    (prediction / "summary.json").write_text("{}")
    result = evaluate(reference, prediction, labels={"GTVp": 1})
    assert [case.case for case in result.cases] == ["d"]
    assert list(result.failures) == ["a", "b", "c"]
    assert "no prediction" in result.failures["a"]
    assert "b" in result.failures["b"]
    assert "grid" in result.failures["b"]
    assert result.extra_predictions == ("surplus",)
    for said in ("case a: no prediction", "surplus"):
        assert said in result.table()


def test_a_choice_of_cases(folders):
    result = evaluate(*folders, labels={"GTVp": 1}, cases=["c", "a"])
    assert [case.case for case in result.cases] == ["c", "a"]
    assert result.extra_predictions == ()
    with pytest.raises(DatasetError, match="no reference mask for: z"):
        evaluate(*folders, labels={"GTVp": 1}, cases=["z"])


def test_labels_found_where_none_are_given(tmp_path):
    write(tmp_path / "r", "a", cube(1, value=1) + cube(4, value=3))
    write(tmp_path / "p", "a", cube(1, value=1) + cube(4, value=5))
    result = evaluate(tmp_path / "r", tmp_path / "p")
    assert dict(result.labels) == {"label_1": 1, "label_3": 3}
    assert any("values found" in note for note in result.notes)
    assert any("case a: the prediction holds values that are no labels: 5" in note for note in result.notes)
    turned = evaluate(tmp_path / "p", tmp_path / "r", labels={"GTVp": 1})
    assert any("case a: the reference holds values that are no labels: 5" in note for note in turned.notes)


def test_regions_and_ignored_voxels():
    reference, prediction = cube(1, value=1) + cube(4, value=2), cube(1, value=2) + cube(4, value=2)
    scores = score_masks(prediction, reference, (1, 1, 1), {"both": (1, 2), "second": 2})
    assert scores["both"].dice == 1
    assert scores["second"].dice == pytest.approx(2 * 8 / (16 + 8))
    ignored = score_masks(prediction, np.where(reference == 1, 9, reference), (1, 1, 1), {"second": 2}, ignore=9)["second"]
    assert ignored.dice == 1
    assert ignored.voxels.tn == math.prod(SHAPE) - 8 - 8


@pytest.mark.parametrize("seed", range(3))
def test_no_metric_sees_what_is_predicted_where_nothing_is_known(seed):
    rng = np.random.default_rng(seed)
    reference = (cube(1, value=1) + cube(4, value=2)).astype(np.uint8)
    reference[rng.random(reference.shape) < 0.3] = 3
    labels = {"whole": (1, 2), "core": 2}
    prediction = rng.integers(0, 3, reference.shape)
    other = np.where(reference == 3, rng.integers(0, 3, reference.shape), prediction)
    assert (other != prediction).any()
    first, second = (score_masks(mask, reference, (1, 1, 1), labels, ignore=3) for mask in (prediction, other))
    assert first == second
    for name in labels:
        voxels = first[name].voxels
        assert voxels.tp + voxels.fp + voxels.fn + voxels.tn == np.count_nonzero(reference != 3)


def test_masks_in_one_slice_of_a_volume_are_scored_as_a_volume():
    reference = np.zeros(SHAPE, np.uint8)
    reference[2, 2:5, 2:5] = 1
    prediction = np.roll(reference, 1, axis=1)
    scores = score_masks(prediction, reference, (2.0, 1.0, 1.0), {"a": 1}, Settings(tolerance_mm=0.5))["a"]
    assert scores.surface_dice == pytest.approx(surface_dice(prediction == 1, reference == 1, (2.0, 1.0, 1.0), 0.5))
    assert scores.hd95_mm == 1.0


def test_the_label_named_ignore_counts_for_nothing(tmp_path):
    write(tmp_path / "r", "a", cube(1, value=1) + cube(4, value=3))
    write(tmp_path / "p", "a", cube(1, value=1) + cube(4, value=1))
    scores = evaluate(tmp_path / "r", tmp_path / "p", labels={"background": 0, "GTVp": 1, "ignore": 3}).cases[0].scores
    assert list(scores) == ["GTVp"]
    assert scores["GTVp"].dice == 1
    assert evaluate(tmp_path / "r", tmp_path / "p", labels={"GTVp": 1}).cases[0].scores["GTVp"].dice == pytest.approx(16 / 24)


def test_json_is_strict_and_csv_has_every_case(folders):
    reference, prediction = folders
    (prediction / "c.nii.gz").unlink()
    result = evaluate(reference, prediction, labels=LABELS)
    document = json.loads(result.to_json(), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert document["cases_failed"] == 1
    assert document["summary"]["all"]["GTVp"]["dice"]["count"] == 2
    case = {case["case"]: case for case in document["cases"]}["d"]
    assert case["labels"]["GTVp"]["dice"] is None
    assert case["labels"]["GTVp"]["empty"] == "both"
    rows = list(csv.DictReader(io.StringIO(result.to_csv())))
    assert [(row["case"], row["label"]) for row in rows] == [(c, n) for c in "abd" for n in ("GTVp", "GTVn")] + [("c", "")]
    assert "no prediction" in rows[-1]["failure"]
    assert rows[0]["dice"] == "0.5"


def test_nnunet_summary(folders):
    document = evaluate(*folders, labels=LABELS).to_nnunet_summary({"a": (Path("r/a"), Path("p/a"))}, keep_nan=True)
    first = document["metric_per_case"][0]
    assert first["metrics"]["1"] == {"Dice": 0.5, "IoU": 4 / 12, "TP": 4, "FP": 4, "FN": 4, "TN": 372, "n_pred": 8, "n_ref": 8}
    assert (first["reference_file"], first["prediction_file"]) == ("r/a", "p/a")
    assert math.isnan(document["metric_per_case"][3]["metrics"]["1"]["Dice"])
    assert document["mean"]["1"]["Dice"] == pytest.approx(0.5 / 3)
    assert math.isnan(document["mean"]["2"]["Dice"])
    assert document["foreground_mean"]["Dice"] == pytest.approx(0.5 / 3)
    json.dumps(evaluate(*folders, labels=LABELS).to_nnunet_summary(), allow_nan=False)


def test_processes_give_the_same(folders):
    assert evaluate(*folders, labels=LABELS, workers=2).to_dict() == evaluate(*folders, labels=LABELS).to_dict()


def test_other_formats_and_empty_predictions(folders, tmp_path):
    reference, _ = folders
    other = tmp_path / "nrrd"
    other.mkdir()
    write_mask(other / "a.nrrd", cube(1), Geometry(SHAPE, (2.0, 1.0, 1.0)))
    result = evaluate(reference, other, labels={"GTVp": 1})
    assert result.cases[0].scores["GTVp"].dice == 1
    assert len(result.failures) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "missing", "does not exist"),
        (lambda folder: folder, "holds no"),
    ],
)
def test_wrong_folders(tmp_path, make, message):
    with pytest.raises(DatasetError, match=message):
        find_masks(make(tmp_path), "reference")


def test_two_masks_of_one_case(tmp_path):
    for ending in (".nii.gz", ".nrrd"):
        (tmp_path / f"a{ending}").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"case a: two reference masks, a\.nii\.gz and a\.nrrd"):
        find_masks(tmp_path, "reference")


@pytest.mark.parametrize("wrong", [{"tolerance_mm": -1}, {"tolerance_mm": math.nan}, {"lesion_iou": 1}, {"connectivity": 4}])
def test_wrong_settings(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Settings(**wrong)


@pytest.mark.slow
def test_published_scores_of_hntsmrg():
    folder = data("hntsmrg_metric_check")
    references = {path.name.split("_")[0]: path for path in (folder / "groundtruth_masks").glob("[0-9]*.nii.gz")}
    predictions = {path.name.split("_")[0]: path for path in (folder / "prediction_masks").glob("[0-9]*.nii.gz")}
    result = evaluate(references, predictions, labels={"GTVp": 1, "GTVn": 2}, lesion_iou=0.3)
    assert len(result.cases) == 15
    masks = score_challenge(result, "hecktor2022").masks
    published = {"GTVp": (0.22517, 0.22471, 0.30642), "GTVn": (0.72495, 0.57010, 0.65781)}
    for label, (aggregated, mean_with_empty_as_0, mean_of_references) in published.items():
        assert result.summary(label).dice_aggregated == pytest.approx(aggregated, abs=5e-6)
        assert masks[label].mean_dsc == pytest.approx(mean_with_empty_as_0, abs=5e-6)
        assert masks[label].mean_dsc_of_references == pytest.approx(mean_of_references, abs=5e-6)
    assert score_challenge(result, "hecktor2022").figures["mean DSCagg of GTVp and GTVn"] == pytest.approx(0.47506, abs=5e-6)
    lesions = {label: (one.tp, one.fp, one.fn, round(one.f1_agg, 5)) for label, one in masks.items()}
    assert lesions == {"GTVp": (2, 11, 9, 0.16667), "GTVn": (19, 2, 1, 0.92683)}, "as docs/challenge.md says; nobody has published these"
