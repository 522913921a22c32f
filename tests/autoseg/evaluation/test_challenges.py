"""The challenges' figures against values worked out by hand."""

import importlib
import json
import math

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from autoseg.commands import evaluate as command
from autoseg.errors import DatasetError
from autoseg.evaluation import evaluate
from autoseg.evaluation.agreement import Agreement
from autoseg.evaluation.answers import HPV, predicted_values, stage, yes_no
from autoseg.evaluation.answers_scored import Answers
from autoseg.evaluation.challenges import CHALLENGES, LABELS, SETTINGS, score_challenge
from autoseg.images import Geometry, write_mask

SHAPE = (3, 3, 40)


def line(*runs):
    """A mask that is one row of voxels: (label, first, last + 1), ..."""
    mask = np.zeros(SHAPE, np.uint8)
    for label, start, stop in runs:
        mask[1, 1, start:stop] = label
    return mask


MASKS = {
    # voxels of 1 mm3. GTVp: 4 and 4 voxels, 2 in common. GTVn: in neither.
    "A-1": ((1, 1, 1), [(1, 0, 4)], [(1, 2, 6)]),
    # voxels of 2 mm3. GTVp: 2 and 1 voxels, 1 in common. GTVn: 10 voxels, 3 of them found (IoU 0.3, which is not above 0.3);
    # 10 voxels, 4 of them found (0.4); 2 voxels claimed where none are.
    "A-2": ((2, 1, 1), [(1, 0, 2), (2, 5, 15), (2, 17, 27)], [(1, 0, 1), (2, 5, 8), (2, 17, 21), (2, 30, 32)]),
    # voxels of 1 mm3. GTVp: none known, 2 claimed. GTVn: 3 and 3 voxels, the same.
    "B-3": ((1, 1, 1), [(2, 5, 8)], [(1, 0, 2), (2, 5, 8)]),
}


@pytest.fixture
def masks(tmp_path):
    for index, kind in enumerate(("reference", "prediction"), start=1):
        for case, parts in MASKS.items():
            path = tmp_path / kind / f"{case}.nii.gz"
            path.parent.mkdir(exist_ok=True)
            write_mask(path, line(*parts[index]), Geometry(SHAPE, tuple(map(float, parts[0]))))
    return tmp_path


@pytest.fixture
def evaluation(masks):
    return evaluate(masks / "reference", masks / "prediction", labels=LABELS, lesion_iou=SETTINGS.lesion_iou)


def table(path, header, *lines):
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def test_figures_of_masks(evaluation):
    scores = score_challenge(evaluation, "hecktor2025")
    primary, nodes = scores.masks["GTVp"], scores.masks["GTVn"]
    assert primary.mean_dsc == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)
    assert primary.mean_dsc_of_references == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert primary.dsc_agg == pytest.approx(2 * (2 * 1 + 1 * 2) / (8 * 1 + 3 * 2 + 2 * 1))
    assert (primary.empty_references, primary.both_empty) == (1, 0)
    assert nodes.mean_dsc == pytest.approx((0 + 2 * 7 / 29 + 1) / 3), "who has none in both masks counts 0"
    assert nodes.mean_dsc_of_references == pytest.approx((2 * 7 / 29 + 1) / 2)
    assert nodes.dsc_agg == pytest.approx(2 * (7 * 2 + 3 * 1) / (29 * 2 + 6 * 1))
    assert (nodes.tp, nodes.fp, nodes.fn) == (2, 2, 1), "IoU 0.3 is not above 0.3"
    assert nodes.f1_agg == pytest.approx(4 / 7)
    assert scores.figures == {
        "mean DSC of GTVp": primary.mean_dsc,
        "DSCagg of GTVn": nodes.dsc_agg,
        "F1agg of GTVn": nodes.f1_agg,
    }


def test_what_2022_and_2026_make_of_the_same_masks(evaluation):
    masks = score_challenge(evaluation, "hecktor2025").masks
    (of_2022,) = score_challenge(evaluation, "hecktor2022").figures.values()
    (of_2026,) = score_challenge(evaluation, "hecktor2026").figures.values()
    assert of_2022 == pytest.approx((masks["GTVp"].dsc_agg + masks["GTVn"].dsc_agg) / 2)
    assert of_2026 == pytest.approx((masks["GTVp"].mean_dsc + masks["GTVn"].mean_dsc) / 2)


def test_balanced_accuracy_is_the_mean_recall():
    known, predicted = ["T1", "T2", "T2", "T3"], ["T1", "T2", "T4", "T2"]
    found = Agreement.of(known, predicted)
    assert found.recall == {"T1": 1.0, "T2": 0.5, "T3": 0.0}
    assert found.balanced_accuracy == 0.5
    assert math.isnan(Agreement.of([], []).balanced_accuracy)
    rng = np.random.default_rng(0)
    known, predicted = (rng.integers(0, 4, 200).astype(str).tolist() for _ in range(2))
    assert Agreement.of(known, predicted).balanced_accuracy == pytest.approx(balanced_accuracy_score(known, predicted))


@pytest.mark.parametrize(
    ("text", "letter", "found"),
    [("T2", "T", "T2"), ("4a", "T", "T4"), ("cT1", "T", "T1"), ("N2b", "N", "N2"), ("n2C", "N", "N2"), ("0", "N", "N0"), ("3.0", "N", "N3")]
    + [("T0", "T", None), ("TX", "T", None), ("N4", "N", None), ("T2", "N", None), ("", "N", None)],
)
def test_stages_lose_their_subdivision(text, letter, found):
    assert stage(text, letter) == found


def test_yes_and_no():
    assert [yes_no(text) for text in ("1", "1.0", "true", "True", "0", "false", "0.7", "maybe")] == [
        "1",
        "1",
        "1",
        "1",
        "0",
        "0",
        None,
        None,
    ]


# --- survival, HPV and stages

OUTCOMES = (
    "PatientID,Relapse,RFS,HPV Status,T-stage,N-stage",
    "A_1,1,100,1,T1,N0",
    "A-2,0,300,0,T2,N2b",
    "B-3,1,200,0,T2,N1",
    "C-9,1,5,1,T4,N3",
)


def test_concordance_of_a_risk_and_of_a_time(evaluation, masks):
    """A-1 relapsed at 100, B-3 at 200, A-2 was seen until 300: three pairs, of which the risks put (A-1, B-3) wrong."""
    outcomes = table(masks / "known.csv", *OUTCOMES)
    risks = table(masks / "rfs.csv", "PatientID,Prediction", "A-1,0.5", "A-2,0.1", "b_3,0.9", "X-1,3")
    for sense, index in (("risk", 2 / 3), ("time", 1 / 3)):
        scores = score_challenge(evaluation, "hecktor2022", Answers({"rfs": risks}, outcomes, sense))
        assert scores.figures["C-index of RFS"] == pytest.approx(index)
        assert scores.details["RFS"] == {"patients": 3, "relapses": 2, "comparable pairs": 3, "sense": sense}
        assert scores.failures == ()
        assert any("without a reference mask are not scored: x-1" in note for note in scores.notes)


def test_hpv_and_stages(evaluation, masks):
    outcomes = table(masks / "known.csv", *OUTCOMES)
    hpv = table(masks / "hpv.csv", "case,Prediction", "A-1,1", "A-2,true", "B-3,0")
    figures = score_challenge(evaluation, "hecktor2025", Answers({"hpv": hpv}, outcomes)).figures
    assert figures["balanced accuracy of HPV status"] == 0.75
    assert (figures["specificity of HPV status"], figures["sensitivity of HPV status"]) == (0.5, 1.0)
    stages = {
        "t-stage": table(masks / "t.csv", "PatientID,Prediction", "A-1,T1", "A-2,T2", "B-3,T3"),
        "n-stage": table(masks / "n.csv", "PatientID,Prediction", "A-1,N0", "A-2,N2", "B-3,stage 1"),
    }
    scores = score_challenge(evaluation, "hecktor2026", Answers(stages, outcomes))
    assert scores.figures["balanced accuracy of T stage"] == 0.75
    assert scores.figures["balanced accuracy of N stage"] == pytest.approx(2 / 3)
    assert scores.figures["balanced accuracy of TN stage"] == pytest.approx((0.75 + 2 / 3) / 2)
    assert scores.failures == ("case B-3: 'stage 1' is no N stage; it counts as a miss",)


def test_an_evaluation_by_other_rules_has_no_challenges_figures(masks):
    other = evaluate(masks / "reference", masks / "prediction", labels=LABELS)
    with pytest.raises(ValueError, match=r"lesion_iou 0\.3 is expected, found .* and 0\.1"):
        score_challenge(other, "hecktor2025")


def test_masks_that_cannot_be_scored_are_told_beside_the_figures(masks):
    """B-3's is missing and A-2's lies on another grid: they count as empty, with 10 + 10 + 3 voxels of nodes in three lesions missed."""
    (masks / "prediction" / "B-3.nii.gz").unlink()
    write_mask(masks / "prediction" / "A-2.nii.gz", line(), Geometry(SHAPE, (3.0, 1.0, 1.0)))
    rules = {"labels": LABELS, "lesion_iou": SETTINGS.lesion_iou}
    scores = score_challenge(evaluate(masks / "reference", masks / "prediction", missing_is_empty=True, **rules), "hecktor2022")
    assert scores.notes[0] == "2 of 3 references have no prediction that can be scored: they count as empty masks"
    primary, nodes = scores.masks["GTVp"], scores.masks["GTVn"]
    assert primary.mean_dsc == pytest.approx((1 / 2 + 0 + 0) / 3)
    assert primary.dsc_agg == pytest.approx(2 * 2 / (8 * 1 + 2 * 2))
    assert (nodes.tp, nodes.fp, nodes.fn, nodes.dsc_agg) == (0, 0, 3, 0.0)

    one = evaluate(masks / "reference", masks / "prediction", **rules)
    assert [case.case for case in one.cases] == ["A-1"]
    assert list(one.failures) == ["A-2", "B-3"]
    left = score_challenge(one, "hecktor2022")
    assert left.notes[0] == "2 of 3 references have no prediction that can be scored: 2 of them are left out of the figures of masks"


def test_a_machine_without_memory_is_no_empty_mask(masks, monkeypatch):
    module = importlib.import_module("autoseg.evaluation.evaluate")

    def without_memory(*arguments, **keywords):
        raise MemoryError("too little")

    monkeypatch.setattr(module, "score_masks", without_memory)
    found = evaluate(masks / "reference", masks / "prediction", labels=LABELS, missing_is_empty=True)
    assert (list(found.failures), found.cases) == (["A-1", "A-2", "B-3"], ())


def test_a_reference_that_cannot_be_read_is_no_empty_mask(masks):
    (masks / "reference" / "A-1.nii.gz").write_bytes(b"no image")
    found = evaluate(masks / "reference", masks / "prediction", labels=LABELS, missing_is_empty=True)
    assert list(found.failures) == ["A-1"]
    assert [case.case for case in found.cases] == ["A-2", "B-3"]


def test_who_has_no_prediction_is_named_and_counts(evaluation, masks):
    """A-1 relapsed at 100, B-3 at 200, A-2 was seen until 300. Without A-2: (A-1, B-3) is right, the other two pairs count one half."""
    outcomes = table(masks / "known.csv", *OUTCOMES)
    risks = table(masks / "rfs.csv", "PatientID,Prediction", "A-1,0.5", "A-2,inf", "B-3,0.1")
    scores = score_challenge(evaluation, "hecktor2022", Answers({"rfs": risks}, outcomes, "risk"))
    assert scores.failures == (f"case A-2: 'inf' in {risks} is no finite number; its pairs count one half",)
    assert scores.figures["C-index of RFS"] == pytest.approx((1 + 1 / 2 + 1 / 2) / 3)
    assert scores.details["RFS"]["without a prediction"] == 1
    nobody = table(masks / "none.csv", "PatientID,Prediction", "X-1,0.5")
    assert score_challenge(evaluation, "hecktor2022", Answers({"rfs": nobody}, outcomes, "risk")).figures["C-index of RFS"] == 0.5

    hpv = table(masks / "hpv.csv", "PatientID,Prediction", "A-1,1", "A-2,0", "B-3,")
    scores = score_challenge(evaluation, "hecktor2025", Answers({"hpv": hpv}, outcomes))
    assert scores.figures["balanced accuracy of HPV status"] == pytest.approx((1 + 1 / 2) / 2)
    assert scores.failures == (f"case B-3: no prediction of the HPV status in {hpv}; it counts as a miss",)


def test_what_prognosis_predicts_is_read(masks):
    path = table(
        masks / "predictions.csv", "case,patient,predicted_hpv_status,predicted_hpv_positive", "A-1,Ann,ok,1", "A-2,Bob,not_predicted,"
    )
    assert predicted_values(path, HPV) == {"a-1": "1", "ann": "1"}


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        command.main([str(argument) for argument in arguments])
    return ended.value.code


def test_command_on_what_containers_wrote(masks, capsys):
    outcomes, outputs = table(masks / "known.csv", *OUTCOMES), masks / "outputs"
    for index, (case, parts) in enumerate(MASKS.items()):
        write_mask(
            _made(outputs / case / "images" / "a-slug" / "output.mha"), line(*parts[2]), Geometry(SHAPE, tuple(map(float, parts[0])))
        )
        for name, value in (("rfs", -index / 10), ("hpv-status", index == 0)):
            (outputs / case / f"{name}.json").write_text(json.dumps(value))
    told = masks / "result.json"
    more = ("--rfs", outputs, "--hpv", outputs, "--outcomes", outcomes)
    assert run(masks / "reference", outputs, "--scores", "hecktor2025", *more, "--sense", "risk", "--json", told, "--workers", 0) == 0
    out = capsys.readouterr().out
    assert "HECKTOR 2025:" in out
    assert "C-index of RFS                   0.66667" in out
    result = json.loads(told.read_text())["result"]
    assert result["challenge"]["figures"]["balanced accuracy of HPV status"] == 1
    assert result["challenge"]["figures"]["F1agg of GTVn"] == pytest.approx(4 / 7)
    (outputs / "A-2" / "rfs.json").unlink()
    assert run(masks / "reference", outputs, "--scores", "hecktor2025", *more, "--sense", "risk", "--json", told, "--workers", 0) == 3
    assert "failed: case A-2: no prediction of the RFS" in capsys.readouterr().out
    assert json.loads(told.read_text())["result"]["challenge"]["figures"]["DSCagg of GTVn"] > 0


def test_a_patients_outputs_hold_one_mask(masks, capsys):
    for slug in ("one-slug", "other-slug"):
        write_mask(_made(masks / "outputs" / "A-1" / "images" / slug / "output.mha"), line(), Geometry(SHAPE, (1.0, 1.0, 1.0)))
    assert run(masks / "reference", masks / "outputs", "--scores", "hecktor2026") == 2
    assert "case A-1: two masks, A-1/images/one-slug/output.mha and A-1/images/other-slug/output.mha" in capsys.readouterr().err


def test_a_dataset_with_other_values_is_not_scored_by_these(masks, capsys):
    (masks / "dataset.json").write_text(
        json.dumps({"channel_names": {"0": "CT"}, "labels": {"background": 0, "GTVn": 1, "GTVp": 2}, "file_ending": ".nii.gz"})
    )
    assert run(masks / "reference", masks / "prediction", "-d", masks, "--scores", "hecktor2025") == 2
    assert "has GTVp 2 and GTVn 1; in the challenge's masks GTVp is 1 and GTVn is 2" in capsys.readouterr().err


def _made(path):
    path.parent.mkdir(parents=True)
    return path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rfs", "rfs.csv", "--outcomes", "known.csv"), "--rfs: belongs to a challenge; name it with --scores"),
        (("--scores", "hecktor2025", "--rfs", "rfs.csv", "--outcomes", "known.csv"), "with --sense risk"),
        (("--scores", "hecktor2025", "--rfs", "rfs.csv", "--sense", "risk"), "name their table with --outcomes"),
        (("--scores", "hecktor2025", "--t-stage", "t.csv", "--outcomes", "known.csv"), "HECKTOR 2025 does not ask for it"),
        (("--scores", "hecktor2025", "--lesion-iou", "0.5"), "detects lesions above 0.3"),
    ],
)
def test_what_cannot_be_meant_is_told_before_masks_are_read(tmp_path, arguments, message, capsys):
    assert run(tmp_path / "absent", tmp_path, *arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("outcomes", "risks", "message"),
    [
        ("PatientID,RFS,Relapse\nA-1,long,1", "PatientID,Prediction\nA-1,1", "case A-1: RFS is 'long' and Relapse '1'"),
        ("PatientID,RFS,Relapse\nA-1,10,1", "Name,Prediction\nA-1,1", "no column of patients"),
        ("PatientID,RFS,Relapse\nZ-1,10,1", "PatientID,Prediction\nA-1,1", "of none of the 3 cases"),
    ],
)
def test_tables_that_cannot_be_scored_are_told_before_masks_are_read(masks, outcomes, risks, message, capsys, monkeypatch):
    monkeypatch.setattr("autoseg.evaluation.evaluate", lambda *given, **named: pytest.fail("masks were scored first"))
    tables = ("--rfs", table(masks / "risks.csv", *risks.split()), "--outcomes", table(masks / "known.csv", *outcomes.split()))
    more = ("--scores", "hecktor2025", "--sense", "risk", "--csv", masks / "scores.csv", *tables)
    assert run(masks / "reference", masks / "prediction", *more) == 2
    assert message in capsys.readouterr().err
    assert not (masks / "scores.csv").exists()


def test_unusable_tables(evaluation, masks):
    outcomes = table(masks / "known.csv", *OUTCOMES)
    bad = {
        "no column of patients": table(masks / "1.csv", "Name,Prediction", "A-1,1"),
        r"no column of the HPV status \(prediction or predictedhpvpositive\)": table(masks / "2.csv", "PatientID,Age", "A-1,1"),
        "HPV status of a-1 is '0' here and '1' above": table(masks / "3.csv", "PatientID,Prediction", "A-1,1", "A_1,0"),
    }
    for message, path in bad.items():
        with pytest.raises(DatasetError, match=message):
            score_challenge(evaluation, "hecktor2025", Answers({"hpv": path}, outcomes))
    with pytest.raises(DatasetError, match=r"holds no PATIENT/hpv-status\.json"):
        score_challenge(evaluation, "hecktor2025", Answers({"hpv": masks}, outcomes))
    for name in ("A-1", "a_1"):
        _made(masks / "twice" / name / "hpv-status.json").write_text("true")
    with pytest.raises(DatasetError, match="A-1 and a_1 are one patient"):
        score_challenge(evaluation, "hecktor2025", Answers({"hpv": masks / "twice"}, outcomes))
    strangers = table(masks / "others.csv", "PatientID,HPV Status", "Z-1,1")
    with pytest.raises(DatasetError, match="of none of the 3 cases"):
        score_challenge(evaluation, "hecktor2025", Answers({"hpv": table(masks / "4.csv", "PatientID,Prediction", "A-1,1")}, strangers))
    wrong = table(masks / "days.csv", "PatientID,RFS,Relapse", "A-1,long,1")
    with pytest.raises(DatasetError, match="case A-1: RFS is 'long' and Relapse '1'"):
        score_challenge(evaluation, "hecktor2022", Answers({"rfs": table(masks / "5.csv", "PatientID,Prediction", "A-1,1")}, wrong, "risk"))


def test_every_challenge_of_the_command_is_there():
    assert tuple(CHALLENGES) == command.CHALLENGES
    assert {question.name for challenge in CHALLENGES.values() for question in challenge.questions} == set(command.ANSWERS)
