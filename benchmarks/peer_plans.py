"""The fingerprint and the plans of a dataset beside nnunetv2's own, field by field, for every preset that both have.

Run it with a Python that has nnunetv2 installed and this checkout on PYTHONPATH:

    OMP_NUM_THREADS=1 PYTHONPATH=. PEER-PYTHON benchmarks/peer_plans.py DATASET [DATASET …]

nnunetv2 plans images as they are stored, so autoseg is asked for the same (`orientation: as_stored`). nnunetv2 estimates intensity
statistics from a sample: their difference is printed, in shares of the standard deviation, and everything else must be equal. Ends with 1
where a field differs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from autoseg import plan
from autoseg.dataset.dataset import Dataset
from autoseg.files import read_json
from planners.plan import Configuration, Plan

PEERS = {
    "default": "ExperimentPlanner",
    "resenc-m": "nnUNetPlannerResEncM",
    "resenc-l": "nnUNetPlannerResEncL",
    "resenc-xl": "nnUNetPlannerResEncXL",
}
SCHEMES = {"ct": "CTNormalization", "zscore": "ZScoreNormalization", "none": "NoNormalization"}
STATISTICS = {"lower": "percentile_00_5", "upper": "percentile_99_5", "mean": "mean", "std": "std"}


def main() -> int:
    """Prints the comparison; the exit status."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("dataset", type=Path, nargs="+", help="dataset folders in nnU-Net's or MSD's layout")
    differing = 0
    for folder in options.parse_args().dataset:
        with tempfile.TemporaryDirectory() as work:
            differing += compare(folder, Path(work))
    return 1 if differing else 0


def compare(folder: Path, work: Path) -> int:
    """How many fields differ, over all presets."""
    dataset = Dataset.open(folder)
    print(f"{folder.name}: {len(dataset.cases)} cases", flush=True)
    peer_folder, print_of_peer = peer_fingerprint(dataset, work)
    differing = 0
    for preset, planner in PEERS.items():
        plan(folder, preset=preset, orientation="as_stored", work=work / "autoseg", name=preset, workers=0)
        ours = Plan.from_json((work / "autoseg" / preset / "plan.json").read_text())
        theirs = peer_plan(dataset, planner, peer_folder)
        wrong = [(name, a, b) for name, a, b in fields(ours, theirs) if a != b]
        count = sum(1 for _ in fields(ours, theirs))
        print(f"  {preset}: {count} fields, {len(wrong)} differ", flush=True)
        for name, a, b in wrong:
            print(f"    {name}: autoseg {a}, nnunetv2 {b}")
        differing += len(wrong)
    print_intensities(ours, print_of_peer)
    return differing


def peer_fingerprint(dataset: Dataset, work: Path) -> tuple[Path, dict[str, Any]]:
    """The dataset as nnunetv2 wants it, and what its extractor finds."""
    for name in ("raw", "preprocessed", "results"):
        (work / name).mkdir(exist_ok=True)
        os.environ[f"nnUNet_{name}"] = str(work / name)
    title = "Dataset001_Compared"
    raw = work / "raw" / title
    for name in ("imagesTr", "labelsTr"):
        (raw / name).mkdir(parents=True)
    for case in dataset.cases:
        for channel, source in enumerate(case.images):
            assert source.component is None, "4-D files are not compared"
            (raw / "imagesTr" / f"{case.name}_{channel:04d}{dataset.file_ending}").symlink_to(source.path.absolute())
        (raw / "labelsTr" / f"{case.name}{dataset.file_ending}").symlink_to(case.label.absolute())
    description = {
        "channel_names": {str(index): name for index, name in enumerate(dataset.channels)},
        "labels": dataset.labels,
        "numTraining": len(dataset.cases),
        "file_ending": dataset.file_ending,
    }
    (raw / "dataset.json").write_text(json.dumps(description))
    folder = work / "preprocessed" / title
    folder.mkdir()
    (folder / "dataset.json").write_text(json.dumps(description))
    import nnunetv2.paths

    nnunetv2.paths.nnUNet_raw, nnunetv2.paths.nnUNet_preprocessed = str(work / "raw"), str(work / "preprocessed")
    from nnunetv2.experiment_planning.dataset_fingerprint import fingerprint_extractor

    fingerprint_extractor.nnUNet_raw, fingerprint_extractor.nnUNet_preprocessed = str(work / "raw"), str(work / "preprocessed")
    fingerprint_extractor.DatasetFingerprintExtractor(title, num_processes=1).run(overwrite_existing=True)
    return folder, read_json(folder / "dataset_fingerprint.json")


def peer_plan(dataset: Dataset, planner: str, folder: Path) -> dict[str, Any]:
    """What one of nnunetv2's planners plans from its own fingerprint."""
    from nnunetv2.experiment_planning.experiment_planners import default_experiment_planner
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    default_experiment_planner.nnUNet_raw = str(folder.parents[1] / "raw")
    default_experiment_planner.nnUNet_preprocessed = str(folder.parent)
    modules = str(Path(default_experiment_planner.__file__).parent)
    kind = recursive_find_python_class(modules, planner, "nnunetv2.experiment_planning.experiment_planners")
    made = kind(folder.name)
    made.plan_experiment()
    return read_json(folder / f"{made.plans_identifier}.json")


def fields(ours: Plan, theirs: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(name, autoseg's value, nnunetv2's value) of everything that both plans say."""
    yield "transpose", list(ours.transpose), theirs["transpose_forward"]
    ours_named = set(ours.configurations)
    theirs_named = set(theirs["configurations"])
    yield "configurations", sorted(ours_named), sorted(theirs_named)
    for name in sorted(ours_named & theirs_named):
        mine, other = ours.configurations[name], theirs["configurations"][name]
        if "previous_stage" in other:
            yield f"{name} previous_stage", mine.previous_stage, other["previous_stage"]
        if "patch_size" in other:
            yield from ((f"{name} {field}", a, b) for field, a, b in configuration_fields(mine, other))


def configuration_fields(mine: Configuration, other: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """The same of one configuration."""
    network, theirs = mine.network, other["architecture"]["arch_kwargs"]
    blocks = theirs["n_conv_per_stage"] if "n_conv_per_stage" in theirs else theirs["n_blocks_per_stage"]
    yield "patch_size", list(mine.patch_size), list(other["patch_size"])
    yield "batch_size", mine.batch_size, other["batch_size"]
    yield "spacing", [round(v, 9) for v in mine.spacing], [round(v, 9) for v in other["spacing"]]
    yield "median_shape", list(mine.median_shape), list(other["median_image_size_in_voxels"])
    yield "normalisation", [SCHEMES[n.kind] for n in mine.normalisation], other["normalization_schemes"]
    yield "masked", [bool(getattr(n, "masked", False)) for n in mine.normalisation], other["use_mask_for_norm"]
    yield "batch_dice", mine.training.loss.batch_dice, other["batch_dice"]
    yield "features", list(network.features), theirs["features_per_stage"]
    yield "strides", [list(s) for s in network.strides], [list(s) for s in theirs["strides"]]
    yield "kernels", [list(k) for k in network.kernels], [list(k) for k in theirs["kernel_sizes"]]
    yield "encoder", list(getattr(network, "convs_per_stage", None) or network.blocks_per_stage), list(blocks)
    yield "decoder", list(network.convs_per_decoder_stage), list(theirs["n_conv_per_stage_decoder"])


def print_intensities(ours: Plan, theirs: dict[str, Any]) -> None:
    """The CT statistics of the plan beside nnunetv2's sampled ones."""
    configuration = next(iter(ours.configurations.values()))
    for channel, scheme in enumerate(configuration.normalisation):
        if scheme.kind != "ct":
            continue
        sampled = theirs["foreground_intensity_properties_per_channel"][str(channel)]
        apart = {name: round(abs(getattr(scheme, name) - sampled[key]) / sampled["std"], 4) for name, key in STATISTICS.items()}
        values = {name: (round(getattr(scheme, name), 2), round(float(np.float64(sampled[key])), 2)) for name, key in STATISTICS.items()}
        print(f"  {ours.channels[channel]}: (autoseg, nnunetv2) {values}; apart, in standard deviations: {apart}")


if __name__ == "__main__":
    sys.exit(main())
