"""Tiny plans, networks with random weights and model folders."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from autoseg.inference.model_documents import ModelDataset
from autoseg.inference.model_writing import write_model_folder
from autoseg.networks import build_network
from planners.fingerprint import CaseFingerprint, merge, sketch
from planners.plan import Configuration, CTNormalisation, Inference, NoNormalisation, Plan, UNetSpec, ZScoreNormalisation

LABELS = {"background": 0, "tumour": 1, "node": 2}


def tiny_plan(
    *, dimension=3, spacing=(2.0, 2.0, 2.0), patch=None, transpose=(0, 1, 2), orientation="canonical", mirror_axes=None, channels=2
) -> Plan:
    """A plan whose network trains in no time; 2-D where told. CT and PET normalised differently."""
    patch = patch or (8,) * dimension
    ones, twos, threes = (1,) * dimension, (2,) * dimension, (3,) * dimension
    network = UNetSpec(
        features=(4, 8), strides=(ones, twos), kernels=(threes, threes), convs_per_stage=(1, 1), convs_per_decoder_stage=(1,)
    )
    normalisation = (CTNormalisation(lower=-200, upper=300, mean=20, std=80), ZScoreNormalisation(), NoNormalisation())
    configuration = Configuration(
        dimension=dimension,
        spacing=spacing[-dimension:],
        median_shape=(20.0,) * dimension,
        patch_size=patch,
        batch_size=2,
        normalisation=normalisation[:channels],
        network=network,
        inference=Inference(mirror_axes=tuple(range(dimension)) if mirror_axes is None else mirror_axes),
    )
    name = "2d" if dimension == 2 else "3d_fullres"
    return Plan(
        channels=("CT", "PT", "X")[:channels],
        labels=LABELS,
        file_ending=".nii.gz",
        orientation=orientation,
        transpose=transpose,
        configurations={name: configuration},
    )


def configuration_name(plan: Plan) -> str:
    return next(iter(plan.configurations))


def random_network(plan: Plan, seed: int = 0):
    """The plan's network, with output biases small enough that all labels win somewhere."""
    settings = next(iter(plan.configurations.values()))
    return build_network(settings.network, len(plan.channels), len(plan.labels), settings.dimension, seed=seed).eval()


def a_fingerprint(plan: Plan):
    """Two training cases at 2 mm and 2.5 mm."""
    values = sketch([0.0, 1.0, 2.0])
    cases = [
        CaseFingerprint(
            case=f"SECRET-{number}",
            patient=f"Jane Doe {number}",
            centre="A",
            spacing=(spacing,) * 3,
            shape=(20, 20, 20),
            shape_after_crop=(20, 20, 20),
            relative_size=1.0,
            orientation="LPS",
            foreground=(values,) * len(plan.channels),
            body=(values,) * len(plan.channels),
            label_voxels={1: 3},
            lesions={1: (8.0,)},
        )
        for number, spacing in enumerate((2.0, 2.5))
    ]
    return merge(plan.channels, plan.labels, cases)


def dataset_of(plan: Plan) -> ModelDataset:
    return ModelDataset("Tiny", plan.channels, dict(plan.labels), plan.file_ending, configuration_name(plan), "cv5")


@pytest.fixture
def tiny():
    """The functions above; test modules cannot import a conftest."""
    return SimpleNamespace(plan=tiny_plan, network=random_network, fingerprint=a_fingerprint, dataset=dataset_of, name=configuration_name)


@pytest.fixture
def plan():
    """The tiny 3-D plan."""
    return tiny_plan()


@pytest.fixture
def make_model(tmp_path):
    """A function that writes a model folder for a plan, with some folds."""

    def make(plan: Plan, folds=("0",), name="model", fingerprint=True):
        weights = {fold: random_network(plan, seed=index).state_dict() for index, fold in enumerate(folds)}
        return write_model_folder(
            tmp_path / name, plan=plan, dataset=dataset_of(plan), fingerprint=a_fingerprint(plan) if fingerprint else None, weights=weights
        )

    return make
