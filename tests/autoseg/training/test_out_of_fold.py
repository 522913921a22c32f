"""Which masks count as out of fold; what prognosis and choosing make of it is tested there."""

import json

import pytest
from segmented import CONFIGURATION, SegmentedDataset, head

from autoseg.dataset.folds import Fold, Folds
from autoseg.errors import TrainingError
from autoseg.images import write_mask
from autoseg.training.cascade import previous_stage
from autoseg.training.out_of_fold import held_out_masks, trace_of_held_out_cases
from planners.plan import Plan


@pytest.fixture
def segmented(tmp_path):
    dataset = SegmentedDataset(tmp_path / "D")
    dataset.predict_all()
    return dataset


def found(segmented, folds=None):
    plan = segmented.work.read_plan()
    return held_out_masks(segmented.dataset, folds or segmented.folds, segmented.fold("A").parent, plan, CONFIGURATION)


def edit_run(segmented, fold, **fields):
    path = segmented.fold(fold) / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def leak(*cases):
    return {"initial_weights": {"identity": "i", "source": {}, "trained_on": None, "despite_leak": True, "leaked": list(cases)}}


def test_what_the_initial_weights_were_trained_on_is_not_out_of_fold(segmented):
    """A fold that was fine-tuned with --init-despite-leak: of its two held-out cases one was known."""
    edit_run(segmented, "A", **leak("A-001"))
    masks = found(segmented)
    assert sorted(masks.masks) == ["A-000", "B-002", "B-003", "C-004", "C-005"]
    assert (masks.missing["A-001"].kind, masks.missing["A-001"].fold) == ("leaked", "A")
    assert masks.finished == ("A", "B", "C")


def test_where_several_folds_hold_a_case_out_the_first_whose_mask_counts_is_taken(segmented):
    """A-000 is held out by the fold that knew it, by one that was never trained, and by B."""
    edit_run(segmented, "A", **leak("A-000"))
    held = {name: segmented.folds.folds[name].validation for name in "ABC"} | {"B": ("A-000", "B-002", "B-003"), "D": ("A-000",)}
    everyone = segmented.names
    made = {name: Fold(tuple(c for c in everyone if c not in held[name]), held[name]) for name in ("A", "D", "B", "C")}
    folds = Folds("loco", made, segmented.folds.members)
    assert found(segmented, folds).missing["A-000"].kind == "leaked", "fold B was trained before it held that case out"

    segmented.folds = folds
    segmented.predict("B")
    masks = found(segmented, folds)
    assert (masks.masks["A-000"].fold, masks.masks["A-000"].path.parents[1].name) == ("B", "fold_B")
    assert masks.finished == ("A", "B", "C")


def test_why_a_mask_does_not_count(segmented):
    write_mask(segmented.mask("B-002"), head(0, nodes=0)[2], segmented.geometry)
    segmented.mask("B-003").unlink()
    edit_run(segmented, "C", finished_epochs=3)
    made = {name: fold for name, fold in segmented.folds.folds.items() if name != "A"}
    made["B"] = Fold((), (*made["B"].validation, "Z-9"))
    missing = found(segmented, Folds("loco", made, segmented.folds.members)).missing
    assert {case: why.kind for case, why in missing.items()} == {
        **dict.fromkeys(("A-000", "A-001"), "held out nowhere"),
        **dict.fromkeys(("B-002", "B-003"), "changed"),
        **dict.fromkeys(("C-004", "C-005"), "unfinished"),
        "Z-9": "gone",
    }


def test_a_run_that_is_none(segmented):
    (segmented.fold("A") / "run.json").write_text("[]")
    with pytest.raises(TrainingError, match=r"fold_A/run\.json: is not what training writes"):
        found(segmented)


def test_images_that_changed_are_no_longer_those_of_the_mask(segmented):
    mask, case = found(segmented).masks["A-000"], segmented.dataset.case("A-000")
    assert mask.is_of(case)
    segmented.write_images("A-000", *head(3)[:2])
    assert not mask.is_of(case)


def test_a_trace_through_each_stage_of_a_cascade(segmented):
    """low -> full -> fine: what full learns from masks of low, and fine from masks of full."""
    document = json.loads(segmented.work.plan.read_text())
    low = document["configurations"].pop(CONFIGURATION)

    def traces(second, third):
        document["configurations"]["low"] = low
        for name, previous, masks in (("full", "low", second), ("fine", "full", third)):
            document["configurations"][name] = {**low, "previous_stage": previous, "training": {**low["training"], "previous_masks": masks}}
        plan = Plan.from_json(json.dumps(document))
        return [trace_of_held_out_cases(plan, name) for name in ("low", "full", "fine")]

    assert traces("out_of_fold", "out_of_fold") == ["", "low", "full"]
    assert traces("out_of_fold", "nested") == ["", "low", "low"]
    assert traces("nested", "out_of_fold") == ["", "", "full"]
    assert traces("nested", "nested") == ["", "", ""]


def test_a_cascade_learns_from_no_mask_of_a_fold_that_knew_the_case(segmented):
    """Fold A of the cascade takes the masks of B and C for its training cases, and those of A for the cases that it holds out."""
    document = json.loads(segmented.work.plan.read_text())
    document["configurations"]["cascade"] = {**document["configurations"][CONFIGURATION], "previous_stage": CONFIGURATION}
    plan = Plan.from_json(json.dumps(document))
    for fold in "ABC":
        (segmented.fold(fold) / "model.safetensors").touch()
    for fold, case in (("B", "B-002"), ("A", "A-001")):
        edit_run(segmented, fold, **leak(case))
        with pytest.raises(
            TrainingError, match=rf"masks of {CONFIGURATION} are not out of fold.*: fold {fold}: {case}\. Train those folds"
        ):
            previous_stage(segmented.dataset, segmented.work, plan, "cascade", segmented.folds, "A")
        edit_run(segmented, fold, initial_weights=None)


def test_nested_masks_are_refused_where_their_network_began_from_weights_that_knew_the_folds_own_cases(segmented, monkeypatch):
    """Fold A+B draws B's cases for fold A of the cascade; what it began from must not know those of A either."""
    document = json.loads(segmented.work.plan.read_text())
    low = document["configurations"][CONFIGURATION]
    nested = low["training"] | {"previous_masks": "nested"}
    document["configurations"]["cascade"] = {**low, "previous_stage": CONFIGURATION, "training": nested}
    plan = Plan.from_json(json.dumps(document))
    monkeypatch.setattr("autoseg.training.cascade._is_finished", lambda folder, cases: True)
    model = segmented.work.nested_model(CONFIGURATION, segmented.folds.scheme)
    (model / "fold_A+B").mkdir(parents=True)
    (model / "fold_A+B" / "run.json").write_text(json.dumps({"schema": "autoseg-run/1", **leak("A-001")}))
    with pytest.raises(TrainingError, match=r"not out of fold.*: fold A\+B: A-001\."):
        previous_stage(segmented.dataset, segmented.work, plan, "cascade", segmented.folds, "A")
