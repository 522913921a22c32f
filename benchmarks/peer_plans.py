"""The fingerprint and the plans of a dataset beside nnunetv2's own, field by field, for every preset that both have.

Run it with a Python that has nnunetv2 installed and this checkout on PYTHONPATH:

    OMP_NUM_THREADS=1 PYTHONPATH=. PEER-PYTHON benchmarks/peer_plans.py [DATASET …] [--hecktor-sized]

`--hecktor-sized` plans a drawn cohort as well: 680 head-and-neck PET/CT studies of ten centres on their CT grids, fingerprints without
images. nnunetv2 plans images as they are stored, so autoseg is asked for the same (`orientation: as_stored`). nnunetv2 estimates intensity
statistics from a sample: their difference is printed, in shares of the standard deviation, and everything else must be equal. Ends with 1
where a field differs.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from autoseg import plan
from autoseg.dataset.dataset import Dataset
from autoseg.files import read_json
from planners.fingerprint import CaseFingerprint, merge, sketch
from planners.plan import Configuration, Plan
from planners.planner import plan as pure_plan

PEERS = {
    "default": "ExperimentPlanner",
    "resenc-m": "nnUNetPlannerResEncM",
    "resenc-l": "nnUNetPlannerResEncL",
    "resenc-xl": "nnUNetPlannerResEncXL",
}
TITLE = "Dataset001_Compared"
SCHEMES = {"ct": "CTNormalization", "zscore": "ZScoreNormalization", "pet": "ZScoreNormalization", "none": "NoNormalization"}
"""PET has a scheme of its own on purpose (docs/planning.md, Normalisation); all else must be equal."""
STATISTICS = {"lower": "percentile_00_5", "upper": "percentile_99_5", "mean": "mean", "std": "std"}


def main() -> int:
    """Prints the comparison; the exit status."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("dataset", type=Path, nargs="*", help="dataset folders in nnU-Net's or MSD's layout")
    options.add_argument("--hecktor-sized", action="store_true", help="also a drawn cohort of HECKTOR's size")
    parsed = options.parse_args()
    differing = 0
    for folder in parsed.dataset:
        with tempfile.TemporaryDirectory() as work:
            differing += compare(folder, Path(work))
    if parsed.hecktor_sized:
        with tempfile.TemporaryDirectory() as work:
            differing += compare_drawn(Path(work))
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
        differing += report(preset, ours, peer_plan(planner, peer_folder))
    print_intensities(ours, print_of_peer)
    return differing


def compare_drawn(work: Path) -> int:
    """The same for a drawn cohort, which both planners get as a fingerprint."""
    cases = drawn_cohort()
    print(f"drawn, HECKTOR-sized: {len(cases)} cases", flush=True)
    print_of_ours = merge(("CT", "PET"), {"background": 0, "GTVp": 1, "GTVn": 2}, cases)
    intensities = {}
    for channel, pooled in enumerate(print_of_ours.foreground):
        assert pooled is not None
        named = asdict(pooled)
        intensities[str(channel)] = {"min": named.pop("minimum"), "max": named.pop("maximum"), **named}
    description = {
        "channel_names": {"0": "CT", "1": "PET"},
        "labels": print_of_ours.labels,
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "SimpleITKIO",
        "dataset": {"none": {"images": ["none.nii.gz"], "label": "none.nii.gz"}},  # never opened: the fingerprint is given
    }
    folder = peer_folders(work, description)
    measured = {
        "spacings": [list(case.spacing) for case in print_of_ours.cases],
        "shapes_after_crop": [list(case.shape_after_crop) for case in print_of_ours.cases],
        "foreground_intensity_properties_per_channel": intensities,
        "median_relative_size_after_cropping": print_of_ours.relative_size,
    }
    (folder / "dataset_fingerprint.json").write_text(json.dumps(measured))
    return sum(report(preset, pure_plan(print_of_ours, preset=preset), peer_plan(planner, folder)) for preset, planner in PEERS.items())


def drawn_cohort() -> list[CaseFingerprint]:
    """680 studies of ten centres: slices of 1.5 to 5 mm, pixels of 0.6 to 1.4 mm, 512 to 700 mm wide, 200 to 1 100 mm long."""
    rng = np.random.default_rng(2025)
    cases = []
    for centre in range(10):
        slices, pixel = rng.choice([1.5, 2.0, 2.5, 3.0, 3.27, 3.75, 5.0]), rng.choice([0.68, 0.78, 0.98, 1.17, 1.37])
        for number in range(68):
            along = max(60, round(float(rng.normal(600, 200)) / slices))
            shape = (along, 512, 512)
            cropped = (along, int(rng.integers(380, 513)), int(rng.integers(440, 513)))
            ct, pet = sketch(rng.normal(40, 60, 2000)), sketch(rng.gamma(3.0, 2.5, 2000))
            name = f"C{centre}-{number:03d}"
            cases.append(
                CaseFingerprint(
                    case=name,
                    patient=name,
                    centre=f"C{centre}",
                    spacing=(float(slices), float(pixel), float(pixel)),
                    shape=shape,
                    shape_after_crop=cropped,
                    relative_size=float(np.prod(cropped) / np.prod(shape)),
                    orientation="LPS",
                    foreground=(ct, pet),
                    body=(ct, pet),
                    label_voxels={1: 1000, 2: 800},
                    lesions={1: (1e4,), 2: (8e3,)},
                )
            )
    return cases


def report(preset: str, ours: Plan, theirs: dict[str, Any]) -> int:
    """Prints how many fields are compared and which differ; how many differ."""
    compared = list(fields(ours, theirs))
    wrong = [(name, a, b) for name, a, b in compared if a != b]
    print(f"  {preset}: {', '.join(ours.configurations)}; {len(compared)} fields, {len(wrong)} differ", flush=True)
    for name, a, b in wrong:
        print(f"    {name}: autoseg {a}, nnunetv2 {b}")
    return len(wrong)


def peer_fingerprint(dataset: Dataset, work: Path) -> tuple[Path, dict[str, Any]]:
    """The dataset as nnunetv2 wants it, and what its extractor finds."""
    description = {
        "channel_names": {str(index): name for index, name in enumerate(dataset.channels)},
        "labels": dataset.labels,
        "numTraining": len(dataset.cases),
        "file_ending": dataset.file_ending,
    } | ({"regions_class_order": dataset.region_order} if dataset.region_order else {})
    folder = peer_folders(work, description)
    raw = work / "raw" / TITLE
    for case in dataset.cases:
        for channel, source in enumerate(case.images):
            assert source.component is None, "4-D files are not compared"
            (raw / "imagesTr" / f"{case.name}_{channel:04d}{dataset.file_ending}").symlink_to(source.path.absolute())
        (raw / "labelsTr" / f"{case.name}{dataset.file_ending}").symlink_to(case.label.absolute())
    from nnunetv2.experiment_planning.dataset_fingerprint import fingerprint_extractor

    fingerprint_extractor.nnUNet_raw, fingerprint_extractor.nnUNet_preprocessed = str(work / "raw"), str(work / "preprocessed")
    fingerprint_extractor.DatasetFingerprintExtractor(TITLE, num_processes=1).run(overwrite_existing=True)
    return folder, read_json(folder / "dataset_fingerprint.json")


def peer_folders(work: Path, description: dict[str, Any]) -> Path:
    """nnunetv2's folders with the dataset's description; the one that its fingerprint and plans go to."""
    for name in ("raw", "preprocessed", "results"):
        (work / name).mkdir(exist_ok=True)
        os.environ[f"nnUNet_{name}"] = str(work / name)
    for folder in (work / "raw" / TITLE / "imagesTr", work / "raw" / TITLE / "labelsTr", work / "preprocessed" / TITLE):
        folder.mkdir(parents=True)
    for folder in (work / "raw" / TITLE, work / "preprocessed" / TITLE):
        (folder / "dataset.json").write_text(json.dumps(description))
    import nnunetv2.paths

    nnunetv2.paths.nnUNet_raw, nnunetv2.paths.nnUNet_preprocessed = str(work / "raw"), str(work / "preprocessed")
    return work / "preprocessed" / TITLE


def peer_plan(planner: str, folder: Path) -> dict[str, Any]:
    """What one of nnunetv2's planners plans from its own fingerprint."""
    from nnunetv2.experiment_planning.experiment_planners import default_experiment_planner
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    default_experiment_planner.nnUNet_raw = str(folder.parents[1] / "raw")
    default_experiment_planner.nnUNet_preprocessed = str(folder.parent)
    modules = str(Path(default_experiment_planner.__file__).parent)
    kind = recursive_find_python_class(modules, planner, "nnunetv2.experiment_planning.experiment_planners")
    with contextlib.redirect_stdout(io.StringIO()):
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
    for scheme, masked in zip(mine.normalisation, other["use_mask_for_norm"], strict=True):
        if scheme.kind != "pet":
            yield "masked", bool(getattr(scheme, "masked", False)), masked
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
