"""How much memory examining a case is said to take, against what its arrays took."""

import gc
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from tiny import TinyDataset

from autoseg.dataset import Dataset
from autoseg.planning.examine import _examine_case, _Look, _memory_each, _Task

SHAPE = (40, 80, 80)


@pytest.fixture
def described(tmp_path):
    """Makes a dataset of one case that has so many channels of a type, in files of their own or together in one."""

    def make(channels, dtype, together):
        tiny = TinyDataset(tmp_path / f"{channels}-{dtype}-{together}", cases=0)
        names = {str(channel): f"MR{channel}" for channel in range(channels)}
        tiny.describe(channel_names=names, numTraining=1)
        rng = np.random.default_rng(0)
        z, y, x = np.ogrid[tuple(slice(-1, 1, n * 1j) for n in SHAPE)]
        radius = np.sqrt(z**2 + y**2 + x**2)
        volumes = [(rng.integers(500, 700, SHAPE) * (radius < 1.1)).astype(dtype) for _ in range(channels)]
        for channel, volume in enumerate(volumes):
            tiny.write(volume, tiny.image("case", channel))
        tiny.write((radius < 0.7).astype(np.uint8), tiny.label("case"))
        if together:
            for channel in range(channels):
                tiny.image("case", channel).unlink()
            joined = sitk.JoinSeries([_placed(volume, tiny.spacing) for volume in volumes])
            sitk.WriteImage(joined, str(tiny.folder / "imagesTr" / "case.nii.gz"))
            listed = {"image": "./imagesTr/case.nii.gz", "label": "./labelsTr/case.nii.gz"}
            tiny.describe(channel_names=names, training=[listed], numTraining=1)
        return Dataset.open(tiny.folder)

    return make


def _placed(volume, spacing):
    image = sitk.GetImageFromArray(volume)
    image.SetSpacing(spacing[::-1])
    image.SetOrigin((-20.0, 11.0, 3.5))
    return image


def traced(dataset):
    """Bytes that Python and numpy held at most at once."""
    task = _Task(dataset.cases[0], replace(dataset, cases=()), _Look("canonical", 0.1, None))
    gc.collect()
    tracemalloc.start()
    try:
        _examine_case(task)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("dtype", "together"), [("float32", False), ("int16", True)])
def test_no_case_takes_more_memory_than_is_said(described, monkeypatch, dtype, together):
    """What is measured for noise and blur takes the same of every image that is large, and is no part of it."""
    monkeypatch.setattr("autoseg.preprocessing.measures.MEASURED", 1 << 14)
    datasets = {channels: described(channels, dtype, together) for channels in (1, 2, 6)}
    said = {channels: _memory_each(dataset.cases) for channels, dataset in datasets.items()}
    more = int(np.prod(SHAPE)) * np.dtype(dtype).itemsize
    assert (said[2] - said[1], said[6] - said[2]) == (more, 4 * more), "all channels are in memory at once"
    for channels, dataset in datasets.items():
        took = traced(dataset)
        assert said[channels] / 3 < took < said[channels], f"{channels} channels took {took}"
