"""The rolling slab against a naive sum over the whole image, in numpy and float64."""

from itertools import chain, combinations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from autoseg.errors import ModelError
from autoseg.inference.sliding_window import Window, slide
from autoseg.inference.tiles import tile_starts

CLASSES = 3
CPU = torch.device("cpu")


class Toy(nn.Module):
    """A fixed random convolution that is not symmetric, so that flips and places matter."""

    def __init__(self, dimension, channels=2, seed=0):
        super().__init__()
        kind = nn.Conv3d if dimension == 3 else nn.Conv2d
        self.layer = kind(channels, CLASSES, 3, padding=1)
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.layer.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)

    def forward(self, x):
        return torch.tanh(self.layer(x))


def naive(networks, data, patch, step, axes, dimension):
    """Whole logits in memory: pad, sum Gaussian-weighted tiles, divide, cut the padding off."""
    missing = [max(p - n, 0) for p, n in zip(patch, data.shape[1:], strict=True)]
    before = [m // 2 for m in missing]
    padded = np.pad(data, [(0, 0), *[(b, m - b) for b, m in zip(before, missing, strict=True)]])
    shape = padded.shape[1:]
    weight = np.zeros(patch)
    weight[tuple(p // 2 for p in patch)] = 1
    weight = gaussian_filter(weight, [p / 8 for p in patch], mode="constant", truncate=10)
    weight = weight / weight.max()
    total, count = np.zeros((CLASSES, *shape)), np.zeros(shape)
    subsets = list(chain.from_iterable(combinations(axes, n) for n in range(len(axes) + 1)))
    for z in tile_starts(shape[0], patch[0], step):
        for y in tile_starts(shape[1], patch[1], step):
            for x in tile_starts(shape[2], patch[2], step):
                place = (slice(z, z + patch[0]), slice(y, y + patch[1]), slice(x, x + patch[2]))
                tile = torch.from_numpy(padded[(slice(None), *place)].copy())[None]
                tile = tile[:, :, 0] if dimension == 2 else tile
                outputs = []
                for subset in subsets:
                    dims = [axis + 2 for axis in subset]
                    for network in networks:
                        with torch.no_grad():
                            outputs.append(network(tile.flip(dims)).flip(dims)[0].double().numpy())
                logits = np.mean(outputs, axis=0)
                logits = logits[:, None] if dimension == 2 else logits
                total[(slice(None), *place)] += weight * logits
                count[place] += weight
    mean = total / count
    inside = tuple(slice(b, b + n) for b, n in zip(before, data.shape[1:], strict=True))
    return mean[(slice(None), *inside)]


def collect(blocks, shape):
    whole = np.full((CLASSES, *shape), np.nan)
    expected = 0
    for start, block in blocks:
        assert start == expected, "blocks are contiguous and in order"
        expected = start + block.shape[1]
        whole[:, start:expected] = block.numpy()
    assert expected == shape[0]
    return whole


@pytest.mark.parametrize(
    ("shape", "patch", "dimension", "axes", "folds", "step"),
    [
        ((19, 14, 17), (8, 8, 8), 3, (), 1, 0.5),
        ((19, 14, 17), (8, 8, 8), 3, (0, 1, 2), 2, 0.5),
        ((9, 11, 10), (4, 8, 6), 3, (0, 2), 3, 0.3),
        ((5, 6, 20), (8, 8, 8), 3, (1,), 1, 0.5),  # smaller than the patch on two axes
        ((1, 6, 7), (8, 8, 8), 3, (0, 1, 2), 1, 0.5),  # one slice
        ((4, 14, 9), (1, 8, 8), 2, (0, 1), 2, 0.5),
        ((1, 5, 9), (1, 8, 8), 2, (0,), 1, 1.0),
    ],
)
def test_slab_equals_the_whole_image_at_once(shape, patch, dimension, axes, folds, step):
    data = np.random.default_rng(1).normal(size=(2, *shape)).astype(np.float32)
    networks = [Toy(dimension, seed=fold) for fold in range(folds)]
    window = Window(patch, dimension, step, 0.125, axes)
    calls = []
    found = collect(slide(networks, data, CLASSES, window, device=CPU, progress=lambda: calls.append(1)), shape)
    np.testing.assert_allclose(found, naive(networks, data, patch, step, axes, dimension), atol=2e-6)
    assert len(calls) * folds * 2 ** len(axes) == window.passes(shape, folds)


def test_only_a_slab_of_logits_is_held():
    data = np.zeros((1, 64, 8, 8), np.float32)
    blocks = [(start, block.shape[1], block.untyped_storage().nbytes()) for start, block in _zeros(data)]
    assert sum(planes for _, planes, _ in blocks) == 64
    assert max(size for *_, size in blocks) == CLASSES * 8 * 8 * 8 * 4


def _zeros(data):
    return slide([Toy(3, channels=1)], data, CLASSES, Window((8, 8, 8), 3), device=CPU)


def test_the_same_input_gives_the_same_bits_also_from_a_memory_map(tmp_path):
    data = np.random.default_rng(0).normal(size=(2, 12, 10, 9)).astype(np.float32)
    np.save(tmp_path / "data.npy", data)
    window = Window((8, 8, 8), 3, mirror_axes=(0, 1))
    first = collect(slide([Toy(3)], data, CLASSES, window, device=CPU), (12, 10, 9))
    second = collect(slide([Toy(3)], np.load(tmp_path / "data.npy", mmap_mode="r"), CLASSES, window, device=CPU), (12, 10, 9))
    assert np.array_equal(first, second)


def test_logits_that_are_not_finite_are_an_error_and_say_so():
    network = Toy(3)
    network.layer.bias.data[1] = torch.nan
    with pytest.raises(ModelError, match="not finite in planes 0 to 3.*fp32"):
        list(slide([network], np.zeros((2, 12, 8, 8), np.float32), CLASSES, Window((8, 8, 8), 3), device=CPU))


def test_half_precision_stays_near_single():
    data = np.random.default_rng(0).normal(size=(2, 12, 10, 9)).astype(np.float32)
    window = Window((8, 8, 8), 3)
    exact = collect(slide([Toy(3)], data, CLASSES, window, device=CPU), (12, 10, 9))
    coarse = collect(slide([Toy(3)], data, CLASSES, window, device=CPU, precision="bf16"), (12, 10, 9))
    difference = np.abs(exact - coarse)
    assert 0 < difference.max() < 0.1
