"""Small plans and images in memory."""

from pathlib import Path

import numpy as np
import pytest

from autoseg.images import Geometry, Image
from planners.plan import Configuration, NoNormalisation, Plan, UNetSpec


def make_image(array, spacing=(1.0, 1.0, 1.0), direction=(1, 0, 0, 0, 1, 0, 0, 0, 1), path="image.nii.gz"):
    array = np.asarray(array)
    return Image(array, Geometry(array.shape, spacing, (0.0, 0.0, 0.0), tuple(float(d) for d in direction)), Path(path), ())


def make_plan(spacing=(1.0, 1.0, 1.0), normalisation=None, labels=None, **fields):
    dimension = len(spacing)
    normalisation = normalisation or (NoNormalisation(),)
    network = UNetSpec(
        features=(8,), strides=((1,) * dimension,), kernels=((3,) * dimension,), convs_per_stage=(1,), convs_per_decoder_stage=()
    )
    configuration = Configuration(
        dimension=dimension,
        spacing=spacing,
        median_shape=(8.0,) * dimension,
        patch_size=(8,) * dimension,
        batch_size=2,
        normalisation=normalisation,
        network=network,
        inference={"mirror_axes": ()},
    )
    return Plan(
        channels=tuple(f"c{i}" for i in range(len(normalisation))),
        labels=labels or {"background": 0, "tumour": 1},
        file_ending=".nii.gz",
        configurations={"c": configuration},
        **fields,
    )


@pytest.fixture(name="image_of")
def _image_of():
    return make_image


@pytest.fixture(name="plan_of")
def _plan_of():
    return make_plan


@pytest.fixture
def body():
    """(image (9, 10, 11) with values above 0 in a box of (5, 6, 7), mask with labels 1 and 2 in it)."""
    rng = np.random.default_rng(5)
    image = np.zeros((9, 10, 11), np.float32)
    image[2:7, 3:9, 1:8] = rng.uniform(1, 100, (5, 6, 7))
    mask = np.zeros(image.shape, np.uint8)
    mask[3:5, 4:6, 2:5] = 1
    mask[5, 6, 6] = 2
    return image, mask
