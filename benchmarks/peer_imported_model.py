"""A model that nnunetv2 trained, imported, beside nnunetv2 itself: logits on the same patch, and masks from disk to disk.

    OMP_NUM_THREADS=1 PYTHONPATH=. python benchmarks/peer_imported_model.py MODEL IMAGES --peer PEER-PYTHON [--cases N] [--folds 0 ...]

MODEL is a folder of nnU-Net's (TRAINER__PLANS__CONFIGURATION), IMAGES holds CASE_0000.nii.gz, ...; PEER-PYTHON has nnunetv2 installed. The
model is imported; nnunetv2 prepares patches of two cases and computes their logits, which are compared with ours on the same patches.
Then nnUNetv2_predict_from_modelfolder and autoseg's Predictor, which autoseg_predict calls, segment the first N cases and copies of
the first one that are stored in other orientations (sagittal, coronal, RAS, LPS, ...). All on the CPU, in fp32, with the model's own flips.

nnunetv2 adds its logits up in float16; the masks are compared with those of its own command, and with those it writes when the same code
adds in float32 (--exact, only run in place of the command). Ends with 1 where a logit differs by more than 1e-4, a mask's grid is not its
image's, or fewer than 99.99 % of the foreground voxels (of either mask) are equal.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

LOGITS_TOLERANCE = 1e-4
SHARE_WANTED = 0.9999
ORIENTATIONS = {"axial RAS": "RAS", "axial LPS": "LPS", "axial LAS": "LAS", "sagittal": "PIR", "coronal": "RSA"}
"""Name -> the letters that a copy's axes x, y, z run to: its slices, along z, are sagittal where z runs left or right, and so on."""


def main() -> int:
    """0 where everything agrees."""
    parsed = _arguments()
    if parsed.as_peer:
        _peer(parsed)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(parsed.work or scratch)
        model = _imported(parsed, work / "imported")
        images = work / "images"
        cases = _write_images(parsed.images, images, parsed.cases)
        as_they_are = [case for case in cases if case.rpartition("-")[2] not in ORIENTATIONS.values()]
        _run_peer(parsed, work, "logits", as_they_are[:2])
        good = _compare_logits(model, work / "logits")
        _run_peer(parsed, work, "exact" if parsed.exact else "command", cases)
        _predict(model, images, work / "ours", cases)
        return 0 if _compare_masks(images, work / "ours", work / "theirs", cases) and good else 1


def _arguments() -> argparse.Namespace:
    options = argparse.ArgumentParser(description="An imported model beside nnunetv2 itself.")
    options.add_argument("model", type=Path)
    options.add_argument("images", type=Path)
    options.add_argument("--peer", default=sys.executable, help="a Python that has nnunetv2")
    options.add_argument("--cases", type=int, default=4)
    options.add_argument("--folds", nargs="+", default=["0"])
    options.add_argument("--work", type=Path, help="where everything is written (default: a temporary folder)")
    options.add_argument("--exact", action="store_true", help="let nnunetv2 add its logits up in float32")
    options.add_argument("--as-peer", choices=("logits", "command", "exact"), help=argparse.SUPPRESS)
    options.add_argument("--names", nargs="*", help=argparse.SUPPRESS)
    return options.parse_args()


def _imported(parsed: argparse.Namespace, folder: Path) -> Any:
    from autoseg.importers.nnunet import import_nnunet_model
    from autoseg.inference.model_folder import ModelFolder

    if not folder.exists():
        print(import_nnunet_model(parsed.model, folder, folds=parsed.folds).text())
    return ModelFolder.open(folder)


def _write_images(source: Path, target: Path, count: int) -> list[str]:
    """Copies of the first cases, and of the first one in other orientations: the same voxels, axes swapped and reversed, grid to match."""
    target.mkdir(parents=True, exist_ok=True)
    names = sorted(path.name.removesuffix("_0000.nii.gz") for path in source.glob("*_0000.nii.gz"))[:count]
    written = []
    for name in names:
        for path in sorted(source.glob(f"{name}_*.nii.gz")):
            image = sitk.ReadImage(str(path))
            sitk.WriteImage(image, str(target / path.name))
            if name != names[0]:
                continue
            for letters in ORIENTATIONS.values():
                turned = sitk.DICOMOrient(image, letters)
                sitk.WriteImage(turned, str(target / path.name.replace(name, f"{name}-{letters}")))
        written += [name, *([f"{name}-{letters}" for letters in ORIENTATIONS.values()] if name == names[0] else [])]
    return written


def _run_peer(parsed: argparse.Namespace, work: Path, what: str, cases: Sequence[str]) -> None:
    """This file under the peer's Python, without our packages."""
    command = [parsed.peer, __file__, str(parsed.model), str(parsed.images), "--as-peer", what, "--work", str(work)]
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    unused = {f"nnUNet_{name}": str(work) for name in ("raw", "preprocessed", "results") if f"nnUNet_{name}" not in environment}
    subprocess.run([*command, "--folds", *parsed.folds, "--names", *cases], check=True, env=environment | unused, stdout=subprocess.DEVNULL)


def _compare_logits(model: Any, folder: Path) -> bool:
    import torch

    worst = 0.0
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as saved:
            patch, theirs = saved["patch"], saved["logits"]
        network = model.load_network(path.stem.rpartition("-fold")[2])
        with torch.inference_mode():
            ours = network(torch.from_numpy(patch)).numpy()
        difference = float(np.abs(ours - theirs).max())
        print(f"logits {path.stem}: patch {patch.shape[2:]}, largest {np.abs(theirs).max():.3g}, difference at most {difference:.2e}")
        worst = max(worst, difference)
    return worst <= LOGITS_TOLERANCE


def _predict(model: Any, images: Path, folder: Path, cases: Sequence[str]) -> None:
    from autoseg.dataset.prediction import find_cases
    from autoseg.inference.predictor import Predictor

    predictor = Predictor(model, device="cpu", precision="fp32")
    found = [case for case in find_cases(images, model.plan.channels, model.plan.file_ending)[0] if case.name in cases]
    predictor.predict_cases(found, folder)


def _compare_masks(images: Path, ours: Path, theirs: Path, cases: Sequence[str]) -> bool:
    letters = {value: name for name, value in ORIENTATIONS.items()}
    good, wrong, foreground = True, 0, 0
    for case in cases:
        mine, peer = (sitk.ReadImage(str(folder / f"{case}.nii.gz")) for folder in (ours, theirs))
        image = sitk.ReadImage(str(images / f"{case}_0000.nii.gz"))
        grids = [(i.GetSize(), i.GetSpacing(), i.GetOrigin(), i.GetDirection()) for i in (image, mine, peer)]
        same_grid = all(np.allclose(np.concatenate([*map(np.ravel, grid)]), np.concatenate([*map(np.ravel, grids[0])])) for grid in grids)
        a, b = sitk.GetArrayFromImage(mine), sitk.GetArrayFromImage(peer)
        union, different = int(((a > 0) | (b > 0)).sum()), int((a != b).sum())
        name = f"{case} ({letters[case.rpartition('-')[2]]})" if case.rpartition("-")[2] in letters else case
        counts = ", ".join(f"{value}: {int((b == value).sum())}" for value in range(1, int(b.max()) + 1))
        print(f"{name}: {different} of {union} foreground voxels differ ({counts}); grid {'kept' if same_grid else 'CHANGED'}")
        good &= same_grid and union > 0
        wrong, foreground = wrong + different, foreground + union
    share = 1 - wrong / max(foreground, 1)
    print(json.dumps({"images": len(cases), "foreground_voxels": foreground, "different": wrong, "equal_percent": round(100 * share, 4)}))
    return good and share >= SHARE_WANTED


def _peer(parsed: argparse.Namespace) -> None:
    """What runs under the peer's Python."""
    import torch
    from nnunetv2.inference import predict_from_raw_data as peer

    if parsed.as_peer == "exact":
        peer.torch = Float32Sums()
        peer.compute_gaussian = partial(peer.compute_gaussian, dtype=torch.float32)
    images, target = parsed.work / "images", parsed.work / "theirs"
    if parsed.as_peer == "logits":
        predictor = peer.nnUNetPredictor(device=torch.device("cpu"), use_mirroring=False, allow_tqdm=False)
        for fold in parsed.folds:
            predictor.initialize_from_trained_model_folder(str(parsed.model), (fold,))
            for name in parsed.names:
                _peer_logits(predictor, name, fold, images, parsed.work / "logits")
        return
    options = ["-i", str(images), "-o", str(target), "-m", str(parsed.model), "-f", *parsed.folds, "-device", "cpu"]
    sys.argv = ["nnUNetv2_predict_from_modelfolder", *options, "-npp", "1", "-nps", "1", "--disable_progress_bar"]
    peer.predict_entry_point_modelfolder()


class Float32Sums:
    """torch as the peer's sliding window sees it, its half precision a full one."""

    def __getattr__(self, name: str) -> Any:
        import torch

        return torch.float32 if name == "half" else getattr(torch, name)


def _peer_logits(predictor: Any, name: str, fold: str, images: Path, folder: Path) -> None:
    import torch
    from acvl_utils.cropping_and_padding.padding import pad_nd_image

    settings = predictor.configuration_manager
    files = [str(path) for path in sorted(images.glob(f"{name}_[0-9][0-9][0-9][0-9].nii.gz"))]
    prepared = settings.preprocessor_class(verbose=False).run_case(files, None, predictor.plans_manager, settings, predictor.dataset_json)[
        0
    ]
    if len(settings.patch_size) == 2:
        prepared = prepared[:, prepared.shape[1] // 2]
    padded = pad_nd_image(prepared, settings.patch_size, "constant", {"constant_values": 0})
    starts = [(have - want) // 2 for have, want in zip(padded.shape[1:], settings.patch_size, strict=True)]
    window = tuple(slice(start, start + want) for start, want in zip(starts, settings.patch_size, strict=True))
    patch = np.ascontiguousarray(padded[(slice(None), *window)][None], dtype=np.float32)
    with torch.inference_mode():
        logits = predictor.network.eval()(torch.from_numpy(patch)).numpy()
    folder.mkdir(exist_ok=True)
    np.savez(folder / f"{name}-fold{fold}.npz", patch=patch, logits=logits)


if __name__ == "__main__":
    sys.exit(main())
