"""Only masks that a network made of cases it never saw are measured; everything else is told and left out."""

import json

import pytest
from segmented import CONFIGURATION, SegmentedDataset, head

from autoseg.images import write_mask
from prognosis.errors import FeatureError
from prognosis.features.masks import out_of_fold_masks


def found(segmented):
    return out_of_fold_masks(segmented.dataset, segmented.work)


def test_every_mask_is_that_of_the_fold_that_held_its_case_out(tmp_path):
    segmented = SegmentedDataset(tmp_path / "D")
    segmented.predict_all()
    masks = found(segmented)
    assert {mask.case.name: mask.fold for mask in masks.masks} == {name: name[0] for name in segmented.names}
    assert masks.missing == {}
    assert masks.scheme == "loco"
    assert not any(mask.saw_centre for mask in masks.masks)


def test_a_case_that_a_network_trained_on_is_never_measured_by_it(tmp_path):
    """Swapping a mask in from another fold's folder is no way around."""
    segmented = SegmentedDataset(tmp_path / "D")
    segmented.predict("A")
    segmented.predict("C")
    b = segmented.names[2]
    write_mask(segmented.fold("A") / "masks" / f"{b}.nii.gz", head(2)[2], segmented.geometry)
    masks = found(segmented)
    assert b not in [mask.case.name for mask in masks.masks]
    assert "fold B is not finished: autoseg_train B" in masks.missing[b]


def test_masks_of_the_fold_all_are_refused(tmp_path):
    segmented = SegmentedDataset(tmp_path / "D")
    segmented.predict("all")
    with pytest.raises(FeatureError, match="trained on every case"):
        found(segmented)
    segmented.predict("A")
    assert {mask.fold for mask in found(segmented).masks} == {"A"}


def test_nothing_trained(tmp_path):
    with pytest.raises(FeatureError, match="autoseg_train A"):
        found(SegmentedDataset(tmp_path / "D"))


def test_a_mask_that_was_changed_by_hand_is_left_out(tmp_path):
    segmented = SegmentedDataset(tmp_path / "D")
    segmented.predict_all()
    name = segmented.names[0]
    write_mask(segmented.mask(name), head(0, nodes=0)[2], segmented.geometry)
    masks = found(segmented)
    assert "was changed after it was predicted" in masks.missing[name]
    assert name not in [mask.case.name for mask in masks.masks]
    segmented.mask(name).unlink()
    assert "is missing" in found(segmented).missing[name]


def test_weights_that_trained_on_since_then_make_the_masks_stale(tmp_path):
    segmented = SegmentedDataset(tmp_path / "D")
    segmented.predict_all()
    run = segmented.fold("A") / "run.json"
    run.write_text(json.dumps(json.loads(run.read_text()) | {"finished_epochs": 5}))
    assert set(found(segmented).missing) == set(segmented.names[:2])


def test_a_case_that_joined_after_training_has_no_mask(tmp_path):
    """The folds now hold it out, but the fold was trained before: nobody recorded that it was held out then."""
    segmented = SegmentedDataset(tmp_path / "D")
    segmented.predict_all()
    run = segmented.fold("A") / "run.json"
    document = json.loads(run.read_text())
    del document["validated"]["cases"][segmented.names[0]]
    run.write_text(json.dumps(document))
    assert "joined" in found(segmented).missing[segmented.names[0]]


@pytest.mark.parametrize(("scheme", "saw"), [("loco", False), ("grouped2", False), ("cv3", True)])
def test_which_networks_saw_the_centre(tmp_path, scheme, saw):
    segmented = SegmentedDataset(tmp_path / "D", scheme=scheme)
    segmented.predict_all()
    assert any(mask.saw_centre for mask in found(segmented).masks) is saw


def test_a_case_without_a_centre_may_be_of_any(tmp_path):
    segmented = SegmentedDataset(tmp_path / "D")
    segmented.predict_all()
    folds = segmented.folds.to_json()
    folds["cases"]["A-000"]["centre"] = ""
    segmented.work.folds.write_text(json.dumps(folds))
    unseen = [mask.case.name for mask in found(segmented).masks if not mask.saw_centre]
    assert unseen == ["A-001"], "fold A was trained on B and C alone; all others on a case that may be of theirs"


@pytest.mark.parametrize(("previous_masks", "saw"), [("out_of_fold", True), ("nested", False)])
def test_a_cascades_masks_carry_that_its_previous_stage_knew_the_patients(tmp_path, previous_masks, saw):
    """By the settings that the model was trained with, which its own folder keeps, whatever the plan says since."""
    segmented = SegmentedDataset(tmp_path / "D")
    segmented.predict_all()
    assert found(segmented).saw_patients is False
    document = json.loads(segmented.work.plan.read_text())
    full = document["configurations"][CONFIGURATION]
    document["configurations"]["3d_lowres"] = json.loads(json.dumps(full))
    full["previous_stage"] = "3d_lowres"
    full["training"]["previous_masks"] = previous_masks
    (segmented.fold("A").parent / "plan.json").write_text(json.dumps(document))
    assert found(segmented).saw_patients is saw
