"""Presets beyond the default: planned, trained for a moment and used to predict, by the installed commands."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from tiny import TinyDataset


@pytest.mark.parametrize(("preset", "kind"), [("resenc-m", "residual_unet"), ("segresnet", "segresnet")])
def test_trained_and_predicted(preset, kind, tmp_path, run):
    tiny = TinyDataset(tmp_path / "Tiny", cases=5, shape=(8, 16, 16))
    run("plan", "-d", tiny.folder, "--preset", preset, "--memory", 6, "--workers", 0)
    plan = json.loads((tiny.work / "default" / "plan.json").read_text())
    assert plan["configurations"]["3d_fullres"]["network"]["kind"] == kind
    assert plan["reasons"]["memory"].startswith("6 GB were asked for")
    quick = ("--epochs", 1, "--iterations", 2, "--set", "training.validation_iterations=1", "--set", "batch_size=2")
    run("train", 0, "-d", tiny.folder, *quick, "--workers", 0, "--threads", 1)
    fold = tiny.work / "default" / "3d_fullres" / "cv5" / "fold_0"
    (row,) = [json.loads(line) for line in (fold / "logbook.jsonl").read_text().splitlines()]
    assert np.isfinite(row["loss"])
    assert np.isfinite(json.loads((fold / "summary.json").read_text())["dice"]["ball"])
    run(
        "predict", "-d", tiny.folder, "-i", *[tiny.image("case00", channel) for channel in (0, 1)], "-o", tmp_path / "out", "--no-mirroring"
    )
    image, mask = sitk.ReadImage(str(tiny.image("case00", 0))), sitk.ReadImage(str(tmp_path / "out" / "case00.nii.gz"))
    assert mask.GetSize() == image.GetSize()
    assert mask.GetSpacing() == pytest.approx(image.GetSpacing())
