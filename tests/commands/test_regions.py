"""Overlapping regions, and masks that are annotated in part, by the installed commands: planned, trained, predicted and scored."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from safetensors.numpy import load_file
from tiny import TinyDataset

MODEL = ("default", "3d_fullres", "cv5")
SHORT = ("--epochs", 4, "--iterations", 10, "--set", "training.validation_iterations=2")
"""Enough for a ball that is far brighter than its surroundings."""


class Shells(TinyDataset):
    """A ball with a brighter core: the region "whole" is both, "core" the inner part."""

    def describe(self, **changes):
        super().describe(labels={"background": 0, "whole": [1, 2], "core": 2}, regions_class_order=[1, 2], **changes)

    def arrays(self, name):
        ct, pet, ball = super().arrays(name)
        centre = np.argwhere(ball).mean(0)
        distance = sum(((axis - c) * s) ** 2 for axis, c, s in zip(np.indices(self.shape), centre, self.spacing, strict=True))
        core = distance < 3.5**2
        return ct + (ball * 100 + core * 200).astype(np.float32), pet, (ball + core).astype(np.uint8)


class Slices(TinyDataset):
    """The ball is drawn in every third slice only; nothing is known of the others."""

    def describe(self, **changes):
        super().describe(labels={"background": 0, "ball": 1, "ignore": 2}, **changes)

    def arrays(self, name):
        ct, pet, mask = super().arrays(name)
        mask[np.arange(len(mask)) % 3 != 0] = 2
        return ct + 200 * (super().arrays(name)[2]).astype(np.float32), pet, mask


def array(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def chain(folder, kind, run, *settings):
    dataset = kind(folder, cases=5)
    run("plan", "-d", dataset.folder, "--preset", "laptop", "--workers", 0)
    run("train", 0, "-d", dataset.folder, *SHORT, "--workers", 0, *settings)
    return dataset


def test_regions_from_dataset_to_scores(tmp_path, run):
    dataset = chain(tmp_path / "D", Shells, run)
    fold = dataset.work.joinpath(*MODEL, "fold_0")
    heads = {w.shape[0] for name, w in load_file(fold / "model.safetensors").items() if "head" in name and name.endswith("weight")}
    assert heads == {2}, "one output a region, none for the background"
    card = (fold.parent / "README.md").read_text()
    assert "whole (values 1, 2; painted as 1), core (values 2; painted as 2)" in card
    assert json.loads((fold.parent / "dataset.json").read_text())["regions_class_order"] == [1, 2]

    summary = json.loads((fold / "summary.json").read_text())
    case = summary["cases"][0]["case"]
    truth, mask = array(dataset.label(case)), array(fold / "masks" / f"{case}.nii.gz")
    found = {name: summary["cases"][0]["labels"][name]["dice"] for name in ("whole", "core")}
    assert found == {"whole": pytest.approx(dice(truth > 0, mask > 0)), "core": pytest.approx(dice(truth == 2, mask == 2))}
    assert found["whole"] > 0.5
    assert set(summary["mean"]) == {"(1, 2)", "2"}, "as nnU-Net names regions"
    rows = [json.loads(line) for line in (fold / "logbook.jsonl").read_text().splitlines()]
    assert all(set(row["dice"]) == {"whole", "core"} for row in rows)

    images = [dataset.image(case, channel) for channel in (0, 1)]
    run("predict", "-m", fold.parent, "-i", *images, "-o", tmp_path / "out", "--save-probabilities")
    painted = array(tmp_path / "out" / f"{case}.nii.gz")
    whole, core = np.load(tmp_path / "out" / f"{case}.probabilities.npy", allow_pickle=False).astype(float)
    sure = (abs(whole - 0.5) > 1e-3) & (abs(core - 0.5) > 1e-3)  # stored in half precision
    np.testing.assert_array_equal(painted[sure], np.where(core > 0.5, 2, np.where(whole > 0.5, 1, 0))[sure])
    shell, inner, outside = (truth == value for value in (1, 2, 0))
    assert whole[shell].mean() > whole[outside].mean() + 0.2, "each output learned its own region"
    assert core[inner].mean() > core[shell].mean() + 0.2
    # status 3: the cases that are not held out have no prediction
    run("evaluate", dataset.folder / "labelsTr", fold / "masks", "-d", dataset.folder, "--json", tmp_path / "s.json", status=3)
    again = json.loads((tmp_path / "s.json").read_text())["result"]["cases"]
    assert [c["labels"]["core"]["dice"] for c in again if c["case"] == case] == [found["core"]]


def test_annotated_in_part_from_dataset_to_scores(tmp_path, run):
    dataset = chain(tmp_path / "D", Slices, run, "--set", 'training.sampling={"classes": "inverse_frequency", "lesion_exponent": 0.5}')
    fold = dataset.work.joinpath(*MODEL, "fold_0")
    heads = {w.shape[0] for name, w in load_file(fold / "model.safetensors").items() if "head" in name and name.endswith("weight")}
    assert heads == {2}, "background and ball; the ignore label is no class"
    fingerprint = json.loads((dataset.work / "fingerprint.json").read_text())
    drawn = {name: int((array(dataset.label(name)) == 1).sum()) for name in dataset.names}
    assert {case["case"]: case["label_voxels"] for case in fingerprint["cases"]} == {name: {"1": n} for name, n in drawn.items()}

    summary = json.loads((fold / "summary.json").read_text())
    case = summary["cases"][0]
    truth, mask = array(dataset.label(case["case"])), array(fold / "masks" / f"{case['case']}.nii.gz")
    assert set(np.unique(mask)) <= {0, 1}, "nothing is predicted to be unknown"
    known = truth != 2
    scores = case["labels"]["ball"]
    assert scores["dice"] == pytest.approx(dice(truth == 1, (mask == 1) & known))
    assert sum(scores[name] for name in ("tp", "fp", "fn", "tn")) == known.sum()
    assert scores["dice"] > 0.5
    whole = TinyDataset.arrays(dataset, case["case"])[2] == 1
    assert dice(whole, mask == 1) > 0.5, "what was not annotated is segmented too"


def test_what_does_not_fit_is_named_by_its_field(tmp_path, run):
    dataset = Shells(tmp_path / "D", cases=5)
    TinyDataset.describe(dataset, labels={"background": 0, "core": 2, "whole": [1, 2]}, regions_class_order=[2, 1])
    done = run("plan", "-d", dataset.folder, status=2)
    assert "regions_class_order: regions that are painted later cover all of 'core'" in done.stderr
    Shells.describe(dataset)
    done = run(
        "plan", "-d", dataset.folder, "--workers", 0, "--preset", "laptop", "--set", 'training.sampling.classes={"rim": 1}', status=2
    )
    assert "training.sampling.classes: no class is called rim; there are whole, core" in done.stderr
