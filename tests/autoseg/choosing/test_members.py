"""What is compared, and what is not, on overlapping regions; networks of random weights, so that nothing has to be trained."""

import json

import numpy as np
import pytest
from segmented import CONFIGURATION, SegmentedDataset, head

from autoseg.choosing.choose import choose
from autoseg.choosing.members import find_members
from autoseg.dataset.workspace import Workspace
from autoseg.errors import TrainingError
from autoseg.images import read_mask, write_mask
from autoseg.inference.model_documents import ModelDataset
from autoseg.inference.model_writing import write_model_folder
from autoseg.inference.predict import predict_folder
from autoseg.inference.predictor import Predictor
from autoseg.networks import build_network

LABELS = {"background": 0, "tumour": [1, 2], "core": 2}
ORDER = [1, 2]
PLANS = {"one": 1, "two": 2}
"""Name -> seed of its networks."""


class Regions(SegmentedDataset):
    """The regions "tumour" (1 and 2) and "core" (2); two plans with a network each, whose held-out masks are the references."""

    def __init__(self, folder):
        super().__init__(folder, scheme="cv2")
        path = folder / "dataset.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"labels": LABELS, "regions_class_order": ORDER}))
        plan = json.loads(self.work.plan.read_text()) | {"labels": LABELS, "region_order": ORDER}
        folds = self.work.folds.read_text()
        for name, seed in PLANS.items():
            self.work = Workspace.of(folder, name=name)
            self.work.plan.parent.mkdir(parents=True)
            self.work.plan.write_text(json.dumps(plan))
            self.work.folds.write_text(folds)
            read = self.work.read_plan()
            network = build_network(read.configuration(CONFIGURATION).network, 2, 2, 3, seed=seed)
            about = ModelDataset("D", read.channels, dict(read.labels), ".nii.gz", CONFIGURATION, "cv2", region_order=read.region_order)
            weights = dict.fromkeys("01", network.state_dict())
            write_model_folder(self.work.model(CONFIGURATION, "cv2"), plan=read, dataset=about, weights=weights)
            self.predict_all()
        self.work = Workspace.of(folder, name="one")


@pytest.fixture
def regions(tmp_path):
    return Regions(tmp_path / "D")


def members(regions, *names):
    return find_members(regions.dataset, [Workspace.of(regions.folder, name=name) for name in names or ("one",)])


def test_two_models_of_regions_together(regions, tmp_path):
    """The pair's masks by hand: each region where the mean of both sigmoids is above 1/2, the core over the tumour."""
    case = regions.names[0]
    found = choose(regions.folder, names=list(PLANS), take=f"one-{CONFIGURATION}+two-{CONFIGURATION}", workers=0, device="cpu")
    assert found.judged.classes == ("tumour", "core")
    assert found.judged.decision.scores[f"one-{CONFIGURATION}"] == 1.0, "the masks of single ones are the reference here"
    images = [regions.folder / "imagesTr" / f"{case}_{channel:04d}.nii.gz" for channel in (0, 1)]
    tumour, core = np.mean(
        [
            Predictor(Workspace.of(regions.folder, name=name).model(CONFIGURATION, "cv2"), folds=["0"], device="cpu")
            .predict(images, probabilities=True)
            .probabilities.astype(np.float32)
            for name in PLANS
        ],
        axis=0,
    )
    drawn = np.where(core > 0.5, 2, np.where(tumour > 0.5, 1, 0))
    assert set(np.unique(drawn)) == {0, 1, 2}
    (pair,) = (regions.work.choosing).iterdir()
    mask = read_mask(pair / "masks" / f"{case}.nii.gz", case=case).array
    assert np.mean(mask == drawn) > 0.999, "but for rounding at 1/2"
    truth = read_mask(regions.folder / "labelsTr" / f"{case}.nii.gz", case=case).array
    index = found.judged.cases.index(case)
    for column, values in enumerate(([1, 2], [2])):
        a, b = np.isin(mask, values), np.isin(truth, values)
        assert found.judged.dice[found.choice.name][index, column] == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))

    path = regions.work.chosen
    rules = [{"rule": "minimum_size", "of": ["core"], "mm3": 1e9}]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"postprocessing": rules}))
    again = predict_folder(images, tmp_path / "out", dataset=regions.folder, name="one", folds=["0"], device="cpu", workers=0)
    without_core = read_mask(again.cases[0].path, case=case).array
    assert np.array_equal(without_core, np.minimum(mask, 1)), "what was core is tumour still"


def test_masks_that_the_initial_weights_knew_do_not_count(regions):
    known, *others = regions.folds.fold("0").validation
    run = regions.fold("0") / "run.json"
    leaked = {"identity": "i", "source": {}, "trained_on": None, "despite_leak": True, "leaked": [known]}
    run.write_text(json.dumps(json.loads(run.read_text()) | {"initial_weights": leaked}))
    (member,), notes = members(regions)
    assert sorted(member.masks) == sorted(set(regions.names) - {known})
    assert notes == [f"{CONFIGURATION}: the initial weights of fold 0 were trained on {known}, so their masks do not count"]
    compared = choose(regions.folder, names=list(PLANS), pairs=False, postprocessing=False, workers=0)
    assert compared.judged.cases == tuple(sorted(member.masks)), "nor does the other model's mask of that case"


def test_a_fold_that_does_not_say_that_it_held_the_case_out(regions):
    """The folds now hold it out, but the fold was trained before: only its record tells whether it had learned from it."""
    joined = regions.folds.fold("0").validation[0]
    run = regions.fold("0") / "run.json"
    document = json.loads(run.read_text())
    del document["validated"]["cases"][joined]
    run.write_text(json.dumps(document))
    (member,), notes = members(regions)
    assert joined not in member.masks
    assert f"1 out-of-fold masks are missing, changed, or of images that have changed: {joined}" in notes[0]


def test_where_no_mask_counts_it_is_told_why(regions):
    for fold in "01":
        for case in regions.folds.fold(fold).validation:
            write_mask(regions.fold(fold) / "masks" / f"{case}.nii.gz", head(0, nodes=0)[2], regions.geometry)
    with pytest.raises(TrainingError, match=r"and has a mask that counts.*\n  - 3d_fullres: 6 out-of-fold masks are missing, changed"):
        members(regions)
    (member,), notes = members(regions, "one", "two")
    assert member.name == f"two-{CONFIGURATION}"
    assert notes[0].startswith(f"one-{CONFIGURATION}: 6 out-of-fold masks are missing, changed")
