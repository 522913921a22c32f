"""Prepared voxels beside nnunetv2's own, case by case, and the time of resampling beside scikit-image's.

Run it with a Python that has nnunetv2 installed and this checkout on PYTHONPATH:

    OMP_NUM_THREADS=1 PYTHONPATH=. PEER-PYTHON benchmarks/peer_preprocessing.py [--data DIR] [--cases N]

Every case is prepared by `autoseg.preprocessing.prepare` and by nnunetv2's DefaultPreprocessor with the same settings, as stored (nnunetv2
does not reorient). Ends with 1 where a voxel differs by more than 1e-4, or a label at all.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from skimage.transform import resize

from autoseg.images import Image, read_image, read_mask
from autoseg.preprocessing.prepare import Prepared, prepare
from autoseg.preprocessing.resample import resample_image
from planners.plan import Configuration, CTNormalisation, Normalisation, Plan, Resampling, UNetSpec, ZScoreNormalisation

TOLERANCE = 1e-4
CT = CTNormalisation(lower=-800.0, upper=1200.0, mean=40.0, std=120.0)
ZSCORE, MASKED = ZScoreNormalisation(), ZScoreNormalisation(masked=True)
PEER_NAMES = {"ct": "CTNormalization", "zscore": "ZScoreNormalization"}


@dataclass(frozen=True)
class Trial:
    """One case under one target grid."""

    title: str
    images: tuple[Path, ...]
    mask: Path
    spacing: tuple[float, ...]
    normalisation: tuple[Normalisation, ...]
    transpose: tuple[int, int, int] = (0, 1, 2)


def trials(data: Path, count: int) -> Iterator[Trial]:
    """What is compared: spacings that resample apart, together, up, down and in-plane only."""
    for folder in sorted((data / "sts_raw_grids").iterdir())[:count]:
        ct = ((folder / "CT_image.nii.gz",), folder / "CT_mask.nii.gz")
        yield Trial(f"{folder.name} CT, coarse z apart", *ct, (3.0, 1.2, 1.2), (CT,))
        yield Trial(f"{folder.name} CT, to isotropic", *ct, (2.0, 2.0, 2.0), (CT,))
        yield Trial(f"{folder.name} CT, 2-D", *ct, (0.8, 0.8), (CT,))
        yield Trial(f"{folder.name} CT, transposed", *ct, (1.5, 4.0, 1.3), (CT,), (1, 0, 2))
        pet = ((folder / "PET_image.nii.gz",), folder / "PET_mask.nii.gz")
        yield Trial(f"{folder.name} PET, all axes together", *pet, (2.5, 3.0, 3.0), (ZSCORE,))
        mr = ((folder / "MR_T1_image.nii.gz",), folder / "MR_T1_mask.nii.gz")
        yield Trial(f"{folder.name} MR, target apart", *mr, (6.0, 1.0, 1.0), (MASKED,))
    folder = data / "sts_petct_petgrid"
    for mask in sorted((folder / "labelsTr").glob("[!.]*.nii.gz"))[:count]:
        pair = tuple(folder / "imagesTr" / mask.name.replace(".nii.gz", f"_{channel:04d}.nii.gz") for channel in range(2))
        yield Trial(f"{mask.name} PET/CT", pair, mask, (3.0, 3.0, 3.0), (CT, MASKED))
    folder = data / "msd_hippocampus"
    for mask in sorted((folder / "labelsTr").glob("[!.]*.nii.gz"))[:count]:
        image = folder / "imagesTr" / mask.name
        yield Trial(f"{mask.name}, as is", (image,), mask, (1.0, 1.0, 1.0), (ZSCORE,))
        yield Trial(f"{mask.name}, finer", (image,), mask, (0.7, 0.8, 0.9), (ZSCORE,))
        yield Trial(f"{mask.name}, half (ties)", (image,), mask, (2.0, 2.0, 2.0), (ZSCORE,))


def plan_for(trial: Trial) -> Plan:
    """A plan that holds the trial's settings; its network is never built."""
    dimension = len(trial.spacing)
    network = UNetSpec(
        features=(8,), strides=((1,) * dimension,), kernels=((3,) * dimension,), convs_per_stage=(1,), convs_per_decoder_stage=()
    )
    configuration = Configuration(
        dimension=dimension,
        spacing=trial.spacing,
        median_shape=(32.0,) * dimension,
        patch_size=(32,) * dimension,
        batch_size=2,
        normalisation=trial.normalisation,
        network=network,
        inference={"mirror_axes": ()},
    )
    return Plan(
        channels=tuple(str(i) for i in range(len(trial.images))),
        labels={"background": 0, "one": 1, "two": 2},
        file_ending=".nii.gz",
        orientation="as_stored",
        transpose=trial.transpose,
        configurations={"c": configuration},
    )


def peer(trial: Trial, images: list[Image], mask: Image) -> tuple[np.ndarray, np.ndarray]:
    """(data (c, z, y, x), labels (z, y, x)) from nnunetv2."""
    statistics = {
        str(i): {"percentile_00_5": n.lower, "percentile_99_5": n.upper, "mean": n.mean, "std": n.std} if n.kind == "ct" else {}
        for i, n in enumerate(trial.normalisation)
    }
    plans = PlansManager(
        {
            "dataset_name": "Dataset001_x",
            "plans_name": "p",
            "transpose_forward": list(trial.transpose),
            "transpose_backward": [int(i) for i in np.argsort(trial.transpose)],
            "label_manager": "LabelManager",
            "foreground_intensity_properties_per_channel": statistics,
            "configurations": {},
        }
    )
    resampling = "resample_data_or_seg_to_shape"
    apart = {"order_z": 0, "force_separate_z": None}
    configuration = ConfigurationManager(
        {
            "spacing": list(trial.spacing),
            "architecture": {"network_class_name": "none", "arch_kwargs": {}, "_kw_requires_import": []},
            "normalization_schemes": [PEER_NAMES[n.kind] for n in trial.normalisation],
            "use_mask_for_norm": [bool(getattr(n, "masked", False)) for n in trial.normalisation],
            "resampling_fn_data": resampling,
            "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, **apart},
            "resampling_fn_seg": resampling,
            "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, **apart},
        }
    )
    description = {"labels": {"background": 0, "one": 1, "two": 2}, "channel_names": {}, "file_ending": ".nii.gz"}
    data = np.stack([image.array.astype(np.float32) for image in images])
    result = DefaultPreprocessor(verbose=False).run_case_npy(
        data, mask.array.astype(np.int16)[None], {"spacing": list(images[0].geometry.spacing)}, plans, configuration, description
    )
    return result[0], result[1][0]


def cpu(function: Callable[[], Any]) -> tuple[Any, float]:
    """The value and the CPU seconds."""
    start = time.process_time()
    value = function()
    return value, time.process_time() - start


def compare(data: Path, count: int) -> bool:
    """Whether all trials agree; prints each."""
    agreed = True
    totals = np.zeros(2)
    print(f"{'trial':58} {'shape':>16} {'image max diff':>14} {'labels':>8} {'peer CPU s':>10} {'own':>7}")
    for trial in trials(data, count):
        images, mask = [read_image(path) for path in trial.images], read_mask(trial.mask)
        plan = plan_for(trial)
        own, own_time = cpu(lambda images=images, mask=mask, plan=plan: prepare(images, mask, plan, "c"))
        theirs, peer_time = cpu(lambda trial=trial, images=images, mask=mask: peer(trial, images, mask))
        difference, labels = differences(own, *theirs)
        totals += peer_time, own_time
        agreed = agreed and difference <= TOLERANCE and labels == 0
        shape = "x".join(str(n) for n in own.data.shape[1:])
        print(f"{trial.title:58} {shape:>16} {difference:14.2e} {labels:8d} {peer_time:10.2f} {own_time:7.2f}", flush=True)
    print(f"whole preparation: peer {totals[0]:.1f} CPU s, own {totals[1]:.1f}, factor {totals[0] / totals[1]:.1f}")
    return agreed


def differences(own: Prepared, data: np.ndarray, labels: np.ndarray) -> tuple[float, int]:
    """(largest difference of a voxel, voxels whose label differs); infinite where shapes differ."""
    if own.data.shape != data.shape:
        return float("inf"), labels.size
    return float(np.abs(own.data - data).max()), int((own.labels != labels).sum())


def resampling() -> None:
    """Ratios of CPU time of the spline alone, beside scikit-image called as nnunetv2 calls it."""
    rng = np.random.default_rng(0)
    print(f"\n{'resampling, order 3':40} {'skimage CPU s':>13} {'own':>7} {'factor':>7} {'max diff':>9}")
    for old, new in (((128, 160, 160), (160, 200, 200)), ((91, 256, 256), (100, 279, 279)), ((200, 512, 512), (160, 400, 400))):
        image = rng.normal(size=old).astype(np.float32)
        run = lambda image=image, new=new: resample_image(image[None], new, (1, 1, 1), (1, 1, 1), Resampling())[0]  # noqa: E731
        run()
        own, own_time = cpu(run)
        theirs, time_ = cpu(lambda image=image, new=new: resize(image.astype(float), new, 3, mode="edge", anti_aliasing=False))
        print(f"{f'{old} -> {new}':40} {time_:13.2f} {own_time:7.3f} {time_ / own_time:7.1f} {np.abs(own - theirs).max():9.1e}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(os.environ.get("AUTOSEG_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=default, help="the folder of shared test data")
    parser.add_argument("--cases", type=int, default=8, help="cases of each data set")
    arguments = parser.parse_args()
    agreed = compare(arguments.data, arguments.cases)
    resampling()
    return 0 if agreed else 1


if __name__ == "__main__":
    sys.exit(main())
