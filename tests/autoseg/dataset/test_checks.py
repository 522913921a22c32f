import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from autoseg.dataset import CaseFacts, Dataset, Fold, Folds, check_case, check_labels, find_cases, presence
from autoseg.dataset.folds import Member
from autoseg.errors import AutosegError, DatasetError, GeometryError, ImageError

DATA = Path(os.environ.get("AUTOSEG_DATA") or Path(__file__).parents[4] / "shared" / "data")
real_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs the shared data: set AUTOSEG_DATA to its folder")

SHAPE = (4, 5, 6)
SPACING = (3.0, 1.5, 0.75)


def save(path: Path, array, origin=(0.0, 0.0, 0.0), spacing=SPACING):
    """Written by SimpleITK, not by the code under test."""
    image = SimpleITK.GetImageFromArray(array, isVector=False)
    image.SetSpacing([*reversed(spacing)] + [1.0] * (image.GetDimension() - 3))
    image.SetOrigin([*origin] + [0.0] * (image.GetDimension() - 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(image, str(path))


def ramp(shape=SHAPE):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def mask():
    array = np.zeros(SHAPE, np.uint8)
    array.reshape(-1)[:7] = 1
    array.reshape(-1)[7:10] = 2
    return array


@pytest.fixture
def pet_ct(make):
    make.describe(channel_names={"0": "CT", "1": "PET"}, labels={"background": 0, "tumour": 1, "node": 2, "never": 3}, file_ending=".nrrd")
    save(make.folder / "imagesTr/a_0000.nrrd", ramp())
    save(make.folder / "imagesTr/a_0001.nrrd", ramp() + 1)
    save(make.folder / "labelsTr/a.nrrd", mask())
    return make


def look(make, **options) -> CaseFacts:
    dataset = Dataset.open(make.folder)
    return check_case(dataset.cases[0], dataset, **options)


def test_what_is_ignored_is_counted_apart(pet_ct):
    pet_ct.describe(labels={"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}, regions_class_order=[1, 2])
    array = mask()
    array[1:] = 3
    save(pet_ct.folder / "labelsTr/a.nrrd", array)
    facts = look(pet_ct)
    assert facts.labels == {0: 30 - 10, 1: 7, 2: 3}
    assert facts.ignored == 90
    assert facts.present == (1, 2)
    assert check_labels([facts], {"background": 0, "whole": (1, 2), "core": 2, "ignore": 3}) == ()
    save(pet_ct.folder / "labelsTr/a.nrrd", np.full(SHAPE, 3, np.uint8))
    facts = look(pet_ct)
    assert facts.present == ()
    assert "case a: every voxel of its mask is 'ignore': nothing can be learnt or tested on it" in facts.notes
    save(pet_ct.folder / "labelsTr/a.nrrd", np.full(SHAPE, 4, np.uint8))
    with pytest.raises(
        DatasetError, match=r"does not name: 4 \(120 voxels\); it names 0 = background, \[1, 2\] = whole, 2 = core, 3 = ignore"
    ):
        look(pet_ct)


def test_a_region_is_where_any_of_its_values_is():
    facts = [
        CaseFacts(name, name, "", SHAPE, SPACING, {0: 9, 1: int(value == 1), 2: int(value == 2)}) for name, value in (("a", 1), ("b", 2))
    ]
    assert check_labels(facts, {"background": 0, "whole": (1, 2)}) == ()
    (warning,) = check_labels(facts, {"background": 0, "whole": (1, 2), "rim": 3})
    assert "the class 'rim' (3) is in no case" in warning


def test_facts_of_a_good_case(pet_ct):
    pet_ct.write("cases.csv", "case,patient,centre\na,P,C\n")
    facts = look(pet_ct)
    assert (facts.case, facts.patient, facts.centre) == ("a", "P", "C")
    assert facts.shape == SHAPE
    assert facts.spacing == pytest.approx(SPACING)
    assert facts.labels == {0: 4 * 5 * 6 - 10, 1: 7, 2: 3, 3: 0}
    assert facts.present == (1, 2)
    assert presence([facts]) == {"a": (1, 2)}


def test_channels_on_different_grids(pet_ct):
    save(pet_ct.folder / "imagesTr/a_0001.nrrd", ramp((4, 5, 7)))
    with pytest.raises(GeometryError) as caught:
        look(pet_ct)
    for part in ("case a", "CT", "PET", "7", "6"):
        assert part in str(caught.value)


def test_mask_on_another_grid_and_the_tolerance(pet_ct):
    # 0.3 mm along x are 0.4 voxel.
    save(pet_ct.folder / "labelsTr/a.nrrd", mask(), origin=(0.3, 0.0, 0.0))
    with pytest.raises(GeometryError, match="case a: mask and CT do not share a grid"):
        look(pet_ct)
    facts = look(pet_ct, tolerance=0.5)
    assert any("0.4 voxels" in note for note in facts.notes)


def test_unknown_values_with_case_value_and_count(pet_ct):
    wrong = mask()
    wrong.reshape(-1)[20:22] = 7
    wrong.reshape(-1)[30] = 200
    save(pet_ct.folder / "labelsTr/a.nrrd", wrong)
    with pytest.raises(DatasetError, match=r"case a: a.nrrd holds values .*: 7 \(2 voxels\), 200 \(1 voxel\); it names 0 = background"):
        look(pet_ct)


def test_values_far_above_all_labels(pet_ct):
    wrong = mask().astype(np.uint32)
    wrong.reshape(-1)[5] = 3_000_000_000
    save(pet_ct.folder / "labelsTr/a.nrrd", wrong)
    with pytest.raises(DatasetError, match=r"3000000000 \(1 voxel\)"):
        look(pet_ct)


def test_masks_with_fractions(pet_ct):
    save(pet_ct.folder / "labelsTr/a.nrrd", mask() * np.float32(0.9999))
    assert look(pet_ct).labels[2] == 3
    save(pet_ct.folder / "labelsTr/a.nrrd", mask() * np.float32(0.9))
    with pytest.raises(ImageError, match="case a"):
        look(pet_ct)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers(pet_ct, value):
    bad = ramp()
    bad[1, 2, 3] = value
    save(pet_ct.folder / "imagesTr/a_0001.nrrd", bad)
    with pytest.raises(ImageError, match="case a.*1 of 120 voxels are NaN or infinite"):
        look(pet_ct)


def test_a_constant_image_is_noted(pet_ct):
    save(pet_ct.folder / "imagesTr/a_0001.nrrd", np.full(SHAPE, 3, np.int16))
    assert any("PET" in note and "same value 3" in note for note in look(pet_ct).notes)


def test_everything_wrong_stands_in_one_message(pet_ct):
    save(pet_ct.folder / "imagesTr/a_0001.nrrd", ramp((4, 5, 7)))
    wrong = mask()
    wrong[0, 0, 0] = 9
    save(pet_ct.folder / "labelsTr/a.nrrd", wrong)
    with pytest.raises(AutosegError) as caught:
        look(pet_ct)
    assert str(caught.value).startswith("case a: 2 problems:")
    assert "do not share a grid" in str(caught.value)
    assert "9 (1 voxel)" in str(caught.value)


@pytest.mark.parametrize("volumes", [1, 2, 3])
def test_a_file_with_a_volume_a_channel(make, volumes):
    make.msd("BRATS_001", modality={"0": "T1", "1": "T2"})
    array = ramp((volumes, *SHAPE)) if volumes > 1 else ramp()
    save(make.folder / "imagesTr/BRATS_001.nii.gz", array)
    save(make.folder / "labelsTr/BRATS_001.nii.gz", np.minimum(mask(), 1))
    if volumes == 2:
        assert look(make).labels == {0: 110, 1: 10}
        cases, failures, _ = find_cases(make.folder / "imagesTr", ("T1", "T2"), ".nii.gz")
        assert [source.component for source in cases[0].images] == [0, 1]
        assert failures == ()
    else:
        with pytest.raises(AutosegError, match=rf"case BRATS_001.*{volumes} volume.*2 channels: T1, T2"):
            look(make)
        assert find_cases(make.folder / "imagesTr", ("T1", "T2"), ".nii.gz")[0] == ()


# --- all cases together


def fact(case, *present):
    return CaseFacts(case, case, "", SHAPE, SPACING, {0: 100, 1: 5 * (1 in present), 2: 5 * (2 in present)})


LABELS = {"background": 0, "tumour": 1, "node": 2}


def two_folds(first, second):
    members = {name: Member(name) for name in first + second}
    return Folds("cv2", {"0": Fold(tuple(second), tuple(first)), "1": Fold(tuple(first), tuple(second))}, members)


def test_all_masks_empty():
    with pytest.raises(DatasetError, match="all 2 masks are empty"):
        check_labels([fact("a"), fact("b")], LABELS)


def test_nothing_to_warn_of():
    facts = [fact("a", 1, 2), fact("b", 1, 2)]
    assert check_labels(facts, LABELS, two_folds("a", "b")) == ()


def test_empty_masks_are_counted():
    (warning,) = check_labels([fact("a", 1, 2), fact("b"), fact("c", 1, 2)], LABELS, two_folds("a", "bc"))
    assert warning == "1 of 3 masks are empty: b"


def test_a_class_in_no_case_and_in_one_fold_only():
    facts = [fact("a", 1), fact("b"), fact("c")]
    warnings = check_labels(facts, LABELS, two_folds("a", "bc"))
    assert any("'node' (2) is in no case" in warning for warning in warnings)
    assert any("'tumour' (1) is only in cases of fold 0 (a)" in warning for warning in warnings)
    assert not any("only in cases" in warning for warning in check_labels(facts, LABELS))


@real_data
def test_real_cases():
    for name in ("msd_hippocampus", "sts_petct_petgrid"):
        dataset = Dataset.open(DATA / name)
        for case in dataset.cases[:2]:
            facts = check_case(case, dataset)
            reference = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(case.label)))
            assert facts.labels == {value: int((reference == value).sum()) for value in dataset.labels.values()}
