"""Only masks that a network made of cases it never saw are measured; everything else is told and left out."""

import json

import pytest
from segmented import CONFIGURATION, SegmentedDataset, head

from autoseg import files
from autoseg.images import write_mask
from autoseg.inference.trained_on import DIGITS, TrainedOn
from prognosis.errors import FeatureError
from prognosis.features.extract import extract_features
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


# --- weights that a fold began from (--init)


def marks(segmented, *cases):
    """The marks of the image files of some cases, as weights carry them."""
    paths = [segmented.folder / "imagesTr" / f"{case}_{channel:04d}.nii.gz" for case in cases for channel in range(2)]
    return frozenset(files.sha256_file(path)[:DIGITS] for path in paths)


def begin(folder, seen, leaked=()):
    """Notes in a fold's run.json that it began from weights which had seen this; None for weights that do not tell."""
    path = folder / "run.json"
    trained_on = seen.to_dict() if seen else None
    source = {"path": "/models/other", "fold": "0", "sha256": ""}
    part = {"identity": "", "source": source, "trained_on": trained_on, "despite_leak": bool(leaked), "leaked": list(leaked)}
    document = json.loads(path.read_text()) if path.exists() else {}
    files.write_json(path, document | {"initial_weights": part})


@pytest.fixture
def segmented(tmp_path):
    """Folds of whole centres, so that no network saw the centre whose masks it drew, unless its initial weights had."""
    dataset = SegmentedDataset(tmp_path / "D")
    dataset.predict_all()
    return dataset


def saw(segmented):
    return {mask.case.name for mask in found(segmented).masks if mask.saw_centre}


def test_weights_that_saw_only_the_folds_own_training_cases_change_nothing(segmented):
    begin(segmented.fold("A"), TrainedOn(marks(segmented, "B-002", "C-005")))
    assert (saw(segmented), found(segmented).saw_patients, found(segmented).untold) == (set(), False, ())


@pytest.mark.parametrize(
    ("seen", "why", "patients"),
    [
        (None, "does not tell which images it was trained on", None),
        (TrainedOn(frozenset(), complete=False), "does not tell all the images that it was trained on", None),
        (TrainedOn(frozenset({"0123456789abcdef"})), "was trained on 1 image(s) of no case of this dataset", False),
    ],
)
def test_what_nobody_can_tell_is_never_called_unseen(segmented, seen, why, patients):
    """Only the masks of the fold that began so are doubtful."""
    begin(segmented.fold("A"), seen)
    assert saw(segmented) == {"A-000", "A-001"}
    assert found(segmented).saw_patients is patients
    (told,) = found(segmented).untold
    assert told.startswith(f"{CONFIGURATION}, fold A, began (--init) from /models/other, which {why}")
    table = extract_features(segmented.dataset, segmented.work, workers=0)
    assert (table.segmentation_saw_centre, table.segmentation_saw_patient) == (True, patients)
    assert [origin.saw_centre for origin in table.masks.values()] == [True, True, False, False, False, False]
    assert f"segmentation_saw_centre is true because nobody can tell otherwise: {told}" in table.notes


def test_weights_that_saw_another_patient_of_the_centre_count(segmented):
    """A-000's mask is not out of fold, and A-001's network has seen its centre."""
    begin(segmented.fold("A"), TrainedOn(marks(segmented, "A-000", "B-002")), leaked=["A-000"])
    assert saw(segmented) == {"A-001"}
    assert "A-000" in found(segmented).missing
    assert found(segmented).untold == ()


@pytest.mark.parametrize(("previous_masks", "fold"), [("out_of_fold", "fold_A"), ("nested", "fold_A"), ("nested", "fold_A+B")])
def test_what_a_cascades_previous_stage_began_from_counts_too(segmented, previous_masks, fold):
    document = json.loads(segmented.work.plan.read_text())
    full = document["configurations"][CONFIGURATION]
    document["configurations"]["3d_lowres"] = json.loads(json.dumps(full))
    full["previous_stage"] = "3d_lowres"
    full["training"]["previous_masks"] = previous_masks
    segmented.work.plan.write_text(json.dumps(document))
    assert saw(segmented) == set()
    work, scheme = segmented.work, segmented.scheme
    model = work.nested_model("3d_lowres", scheme) if "+" in fold else work.model("3d_lowres", scheme)
    begin(model / fold, None)
    assert saw(segmented) == {"A-000", "A-001"} | ({"B-002", "B-003"} if "+" in fold else set())
    assert found(segmented).saw_patients is (None if previous_masks == "nested" else True)
