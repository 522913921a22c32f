"""Tiny models in nnU-Net's files, one a convention, imported and predicted beside nnunetv2 itself: masks and probabilities.

    OMP_NUM_THREADS=1 PYTHONPATH=. python benchmarks/peer_import_conventions.py --peer PEER-PYTHON

Each model has random weights and differs from the plain one in what CONVENTIONS says: regions with an ignore label, an axis order, 2-D, the
readers, the normalisations, the resampling, a cascade. nnunetv2 adds its logits up in float32 here, as autoseg does: its own float16 runs
out of digits at an image's corners. Ends with 1 where a grid is not the image's, a probability differs by more than 5e-4 (ours are stored
in float16), or more than 2 of 1000 foreground voxels differ.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE), str(HERE.parent / "tests")]

PROBABILITY_TOLERANCE = 5e-4
VOXELS_TOLERANCE = 2e-3
PURPOSES = ("data", "seg", "probabilities")


def regions(model: Any) -> dict[str, Any]:
    """Three nested regions, an ignore label, another axis order, two folds."""
    from nnunet_model import Weights, architecture

    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3], "ignore": 4}
    model.dataset |= {"labels": labels, "regions_class_order": [1, 2, 3]}
    model.plans |= {"transpose_forward": [1, 0, 2], "transpose_backward": [1, 0, 2]}
    model.weights = {fold: Weights(architecture(3), heads=3, seed=int(fold)) for fold in ("0", "2")}
    return {}


def reader(name: str, letters: str, model: Any) -> dict[str, Any]:
    """Another reader, and images stored in another orientation."""
    model.plans["image_reader_writer"] = name
    return {"letters": letters}


def normalised(names: tuple[str, str], model: Any) -> dict[str, Any]:
    """Other normalisations, the second one inside the non-zero region where it can be."""
    for configuration in model.plans["configurations"].values():
        if "architecture" in configuration:
            configuration |= {"normalization_schemes": list(names), "use_mask_for_norm": [False, True]}
    return {"positive": True, "border": 4}


def resampled_by_torch(apart: bool, model: Any) -> dict[str, Any]:
    """nnU-Net's linear resampling, with a coarse axis apart or not."""
    for configuration in model.plans["configurations"].values():
        for purpose in PURPOSES if "architecture" in configuration else ():
            options = {"is_seg": purpose == "seg", "force_separate_z": None if apart else False, "memefficient_seg_resampling": False}
            configuration |= {f"resampling_fn_{purpose}": "resample_torch_fornnunet", f"resampling_fn_{purpose}_kwargs": options}
    return {"spacing": (1.1, 1.7, 6.0), "shape": (8, 26, 23)} if apart else {}


CONVENTIONS: dict[str, tuple[dict[str, Any], Callable[[Any], dict[str, Any]]]] = {
    "plain": ({}, lambda model: {}),
    "residual encoder": ({"residual": True}, lambda model: {}),
    "regions, ignore label, axis order, two folds": ({}, regions),
    "2d, residual encoder, two folds": ({"dimension": 2, "residual": True, "folds": ("0", "1")}, lambda model: {}),
    "NibabelIO": ({}, partial(reader, "NibabelIO", "RAS")),
    "NibabelIOWithReorient": ({}, partial(reader, "NibabelIOWithReorient", "PIR")),
    "RescaleTo01, RGBTo01": ({}, partial(normalised, ("RescaleTo01Normalization", "RGBTo01Normalization"))),
    "NoNormalization, masked z-score": ({}, partial(normalised, ("NoNormalization", "ZScoreNormalization"))),
    "resampling by torch": ({}, partial(resampled_by_torch, False)),
    "resampling by torch, coarse axis": ({}, partial(resampled_by_torch, True)),
    "coarse axis": ({}, lambda model: {"spacing": (1.1, 1.7, 6.0), "shape": (8, 26, 23)}),
    "an image smaller than the patch": ({}, lambda model: {"shape": (3, 6, 5), "border": 0}),
    "cascade": ({"configuration": "3d_cascade_fullres", "channels": 4}, lambda model: {}),
}
"""Name -> how the model is made, and what changes it then and tells of its image."""


def main() -> int:
    """0 where everything agrees."""
    options = argparse.ArgumentParser(description="Imported models of each convention beside nnunetv2.")
    options.add_argument("--peer", default=sys.executable, help="a Python that has nnunetv2")
    options.add_argument("--as-peer", type=Path, help=argparse.SUPPRESS)
    parsed = options.parse_args()
    if parsed.as_peer:
        _peer(parsed.as_peer)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        folders = {name: Path(scratch) / f"{number:02d}" for number, name in enumerate(CONVENTIONS)}
        for name, folder in folders.items():
            _ours(name, folder)
        unused = {f"nnUNet_{name}": scratch for name in ("raw", "preprocessed", "results")}
        kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}
        subprocess.run([parsed.peer, __file__, "--as-peer", scratch], check=True, env=kept | unused, stdout=subprocess.DEVNULL)
        agreed = [_agrees(name, folder) for name, folder in folders.items()]
        return 0 if all(agreed) else 1


def _ours(name: str, folder: Path) -> None:
    from nnunet_model import NNUNetModel

    from autoseg.importers.nnunet import import_nnunet_model
    from autoseg.inference.predictor import Predictor

    made, change = CONVENTIONS[name]
    model = NNUNetModel(folder / "models", **made)
    image = change(model)
    models = [model] if name != "cascade" else [NNUNetModel(folder / "models", configuration="3d_lowres"), model]
    for number, each in enumerate(models):
        _balance(each)
        (folder / "models").mkdir(parents=True, exist_ok=True)
        (folder / "models" / f"{number}.txt").write_text(str(each.write()))
    _write_image(folder / "images", **image)
    import_nnunet_model(model.folder, folder / "imported")
    predictor = Predictor(folder / "imported", device="cpu", precision="fp32")
    found = predictor.predict(sorted((folder / "images").iterdir()), probabilities=True)
    np.savez(folder / "ours.npz", mask=found.mask, probabilities=found.probabilities)


def _balance(model: Any) -> None:
    """Every output wins somewhere: the last features are all of one size."""
    for weights in model.weights.values():
        weights.state["decoder.stages.0.convs.0.norm.weight"].fill_(1)
        weights.state["decoder.stages.0.convs.0.norm.bias"].zero_()
        weights.state["decoder.seg_layers.0.bias"].zero_()


def _write_image(
    folder: Path,
    *,
    shape: tuple[int, int, int] = (11, 26, 23),
    spacing: tuple[float, float, float] = (1.1, 1.7, 2.6),
    letters: str = "LPS",
    border: int = 2,
    positive: bool = False,
) -> None:
    """Two channels of smooth noise, 0 in a border; `spacing` is ITK's, x first."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)
    folder.mkdir()
    for channel, scale in enumerate((400.0, 10.0)):
        values = gaussian_filter(rng.normal(size=shape), 1.2) * scale
        values = 255 * (values - values.min()) / np.ptp(values) if positive else values
        array = np.zeros(shape, np.float32)
        inside = tuple(slice(border, n - border) for n in shape)
        array[inside] = values[inside]
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(spacing)
        sitk.WriteImage(sitk.DICOMOrient(image, letters), str(folder / f"case_{channel:04d}.nii.gz"))


def _peer(scratch: Path) -> None:
    """What runs under the peer's Python: each model on its image, a cascade's first stage before it."""
    import torch
    from nnunetv2.inference import predict_from_raw_data as peer
    from peer_imported_model import Float32Sums

    peer.torch = Float32Sums()
    kept, peer.compute_gaussian = peer.compute_gaussian, partial(peer.compute_gaussian, dtype=torch.float32)
    peer.compute_gaussian.cache_clear = kept.cache_clear
    for folder in sorted(path for path in scratch.iterdir() if (path / "images").is_dir()):
        before = None
        for stage in sorted((folder / "models").glob("*.txt")):
            predictor = peer.nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False)
            predictor.initialize_from_trained_model_folder(stage.read_text(), None)
            target = folder / f"stage{stage.stem}"
            target.mkdir()
            predictor.predict_from_files_sequential(str(folder / "images"), str(target), True, folder_with_segs_from_prev_stage=before)
            before = str(target)
        (folder / f"stage{stage.stem}").rename(folder / "theirs")


def _agrees(name: str, folder: Path) -> bool:
    with np.load(folder / "ours.npz") as ours, np.load(folder / "theirs" / "case.npz") as theirs:
        mask, ours_probable, theirs_probable = ours["mask"], ours["probabilities"].astype(np.float32), theirs["probabilities"]
    image, peer = sitk.ReadImage(str(folder / "images" / "case_0000.nii.gz")), sitk.ReadImage(str(folder / "theirs" / "case.nii.gz"))
    same_grid = np.allclose(image.GetOrigin(), peer.GetOrigin(), atol=1e-4) and image.GetSize() == peer.GetSize()
    expected = sitk.GetArrayFromImage(peer)
    foreground, different = int(((mask > 0) | (expected > 0)).sum()), int((mask != expected).sum())
    told = "in another orientation there"  # nnunetv2 leaves them as its reader turned them
    far = 0.0
    if ours_probable.shape == theirs_probable.shape:
        far = float(np.abs(ours_probable - theirs_probable).max())
        told = f"differ by at most {far:.1e}"
    counts = ", ".join(f"{value}: {int((expected == value).sum())}" for value in np.unique(expected))
    print(f"{name}: {different} of {foreground} foreground voxels differ ({counts}); probabilities {told}", flush=True)
    return same_grid and far <= PROBABILITY_TOLERANCE and different <= VOXELS_TOLERANCE * foreground


if __name__ == "__main__":
    sys.exit(main())
