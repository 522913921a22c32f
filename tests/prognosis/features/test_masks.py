"""Only masks that a network made of cases it never saw are measured; everything else is told and left out."""

import json

import pytest
from segmented import SegmentedDataset, head

from autoseg.dataset.case import Case
from autoseg.dataset.folds import Folds, make_folds
from autoseg.images import write_mask
from prognosis.errors import FeatureError
from prognosis.features.masks import out_of_fold_masks, segmentation_saw_centre


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


def cases(centres):
    return [Case(f"c{index}", (), patient=f"p{index}", centre=centre) for index, centre in enumerate(centres)]


@pytest.mark.parametrize(
    ("scheme", "centres", "saw"),
    [
        ("loco", "AABBCC", False),
        ("grouped2", "AABBCC", False),
        ("cv3", "AABBCC", True),
        ("cv3", "AAAAAA", True),
    ],
)
def test_which_folds_saw_the_centre(scheme, centres, saw):
    folds = make_folds(cases(centres), scheme, seed=0)
    assert segmentation_saw_centre(folds) is saw
    assert segmentation_saw_centre(Folds.from_json(folds.to_json())) is saw


def test_a_case_without_a_centre_may_be_of_any():
    assert segmentation_saw_centre(make_folds(cases(["", "", "", ""]), "cv2", seed=0)) is True


def test_cv_masks_carry_that_their_centre_was_seen(tmp_path):
    segmented = SegmentedDataset(tmp_path / "D", scheme="cv3")
    segmented.predict_all()
    assert any(mask.saw_centre for mask in found(segmented).masks)
