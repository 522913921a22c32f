"""A plan for head and neck on tall scans: a brain on top, a lesion in the neck, in one case a second lesion far below."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk
from tiny import TinyDataset

from autoseg.errors import PlanError
from autoseg.inference.predictor import Predictor
from autoseg.planning.planning import plan
from autoseg.preprocessing.store import open_case
from autoseg.training.segmentation import train

SIZE = {"region_of_interest.size_mm": [120, 80, 80]}


class Tall(TinyDataset):
    """Volumes of 300 x 150 x 150 mm; the last case has a labelled ball near the bottom as well."""

    spacing = (5.0, 5.0, 5.0)

    def __init__(self, folder):
        super().__init__(folder, cases=5, shape=(60, 30, 30))

    def arrays(self, name):
        rng = np.random.default_rng([self.seed, *name.encode()])
        z, y, x = np.indices(self.shape)
        middle = np.array([50, *rng.integers(13, 17, 2)])

        def ball(at, radius):
            return sum((axis - c) ** 2 for axis, c in zip((z, y, x), at, strict=True)) < radius**2

        mask = ball(middle - (10, 1, -1), 3)
        if name == self.names[-1]:
            mask = mask | ball((6, 15, 15), 3)
        pet = rng.gamma(2, 0.3, self.shape) + 3 * mask + 8 * ball(middle, 6) + 0.1
        return (rng.normal(0, 20, self.shape) + 60 * mask + 1).astype(np.float32), pet.astype(np.float32), mask.astype(np.uint8)


@pytest.fixture(scope="module")
def tall(tmp_path_factory):
    dataset = Tall(tmp_path_factory.mktemp("tall"))
    return dataset, plan(dataset.folder, region="head-and-neck", settings=SIZE, preset="laptop", workers=0)


def test_shapes_are_those_of_the_region(tall):
    dataset, made = tall
    region = made.plan.region_of_interest
    assert (region.channel, region.size_mm) == (1, (120.0, 80.0, 80.0))
    assert made.plan.configurations["3d_fullres"].median_shape == (24, 16, 16)
    assert "as asked for" in made.plan.reasons["region_of_interest"]
    # Cut to the region, the case is full: a z-score inside a mask would be a wrong consequence of the crop.
    assert json.loads(made.workspace.fingerprint.read_text())["cases"][0]["relative_size"] == 1.0


def test_labelled_voxels_outside_are_told_and_no_others(tall):
    dataset, made = tall
    below = int(dataset.arrays(dataset.names[-1])[2][:12].sum())
    total = int(dataset.arrays(dataset.names[-1])[2].sum())
    cut = [note for note in made.notes if "region of interest" in note]
    assert len(cut) == 1
    assert f"{dataset.names[-1]}: {below} of {total} voxels of 'ball' lie outside" in cut[0]


def test_prepared_cases_hold_the_region_only(tall):
    dataset, made = tall
    folder = next(path.parent for path in (made.workspace.root / "cases").glob("*/case00.json"))
    case = open_case(folder, "case00")
    assert case.labels.shape == (24, 16, 16)
    assert int((np.asarray(case.labels) == 1).sum()) == int(dataset.arrays("case00")[2].sum())


def test_the_plan_stays_without_being_asked_again(tall):
    dataset, made = tall
    again = plan(dataset.folder, workers=0)
    assert again.kept
    assert again.examined == 0
    with pytest.raises(PlanError, match="--region whole .it was planned with head-and-neck"):
        plan(dataset.folder, region="whole", workers=0)


@pytest.mark.slow
def test_masks_come_back_on_the_whole_image(tall, tmp_path):
    dataset, made = tall
    result = train(dataset.folder, 0, epochs=1, iterations=2, settings={"training.validation_iterations": 0}, workers=0)
    name = sorted(result.folder.glob("masks/*.nii.gz"))[0].name.split(".")[0]
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(result.folder / "masks" / f"{name}.nii.gz")))
    assert mask.shape == dataset.shape
    predictor = Predictor(result.folder.parent, device="cpu")
    ct, pet, _ = dataset.arrays("case00")
    whole = predictor.predict(np.stack([ct, pet]), spacing=dataset.spacing).mask
    # Far below the region the image may change (the PET's mean and deviation, which find the brain, stay), and the mask does not.
    ct[:15], pet[:15] = 0, pet[:15][::-1, ::-1]
    assert np.array_equal(predictor.predict(np.stack([ct, pet]), spacing=dataset.spacing).mask, whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"region": "legs"}, "--region must be one of whole, head-and-neck"),
        ({"region": "head-and-neck", "orientation": "as_stored"}, "needs to know where the head is"),
        ({"region": "head-and-neck", "settings": {"region_of_interest.size_mm": [0, 1, 1]}}, "size_mm must be positive"),
    ],
)
def test_what_cannot_be_is_refused(tall, options, message):
    with pytest.raises(PlanError, match=message):
        plan(tall[0].folder, name="other", workers=0, **options)


def test_without_a_pet_there_is_nothing_to_find_it_from(tall, tmp_path):
    dataset = TinyDataset(tmp_path / "ct", cases=2)
    dataset.describe(channel_names={"0": "CT", "1": "T1"})
    with pytest.raises(PlanError, match="none of the channels CT, T1 is called PET"):
        plan(dataset.folder, region="head-and-neck", workers=0)
