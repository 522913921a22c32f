"""Milliseconds of augmentation a patch, own transforms beside batchgenerators, for the same draws.

python benchmarks/augmentation.py [--draws N]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from autoseg.augmentation import blur, gamma, intensity, low_resolution, mirror, noise, spatial
from autoseg.augmentation.counters import generator
from autoseg.augmentation.pipeline import Augmenter
from planners.plan import Augmentation

PATCHES = (((40, 56, 40), 1), ((64, 192, 160), 2))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=100, help="samples a patch size (default: %(default)s)")
    draws = parser.parse_args().draws
    torch.set_num_threads(1)
    print(f"{'patch':>16} {'channels':>8} {'fused ms':>9} {'batchgenerators ms':>19} {'ratio':>6}   (CPU time, one thread, {draws} draws)")
    for patch_size, channels in PATCHES:
        fused, reference = (_milliseconds(backend, patch_size, channels, draws) for backend in ("fused", "batchgenerators"))
        name = "x".join(map(str, patch_size))
        print(f"{name:>16} {channels:>8} {fused:>9.2f} {reference:>19.2f} {reference / fused:>5.1f}x", flush=True)
    for patch_size, channels in PATCHES:
        _print_families(patch_size, channels)


def _milliseconds(backend: str, patch_size: tuple[int, ...], channels: int, draws: int) -> float:
    augmenter = Augmenter(Augmentation(backend=backend), patch_size)
    data, labels = _sample(augmenter.read_size, channels)
    warm_up = augmenter.draw(generator("warm up"), channels)
    augmenter.apply(_middle(data, warm_up.read_size), _middle(labels, warm_up.read_size), warm_up)
    total = 0.0
    for k in range(draws):
        begin = time.process_time()
        draw = augmenter.draw(generator("benchmark", k), channels)
        total += time.process_time() - begin
        # Cropping is the reader's work.
        crops = [np.ascontiguousarray(_middle(array, draw.read_size)) for array in (data, labels)]
        begin = time.process_time()
        augmenter.apply(*crops, draw)
        total += time.process_time() - begin
    return total / draws * 1e3


def _print_families(patch_size: tuple[int, ...], channels: int) -> None:
    augmenter = Augmenter(Augmentation(), patch_size)
    data, labels = _sample(augmenter.read_size, channels)
    patch = torch.from_numpy(_middle(data, patch_size).copy())
    angles = (20.0, -10.0, 15.0)
    one_each = (0.8,) * channels
    sigmas = blur.BlurParameters(((0.75,) * 3,) * channels)
    cases: dict[str, tuple[float, Callable[[], object]]] = {
        "rotated": (0.2, _spatial(augmenter, data, labels, spatial.SpatialParameters(angles, 1.1))),
        "scaled only": (0.16, _spatial(augmenter, data, labels, spatial.SpatialParameters((0.0,) * 3, 1.1))),
        "noise": (0.1, lambda: noise.apply(patch, noise.NoiseParameters(0.05, 1))),
        "blur, all channels": (0.1, lambda: blur.apply(patch, sigmas)),
        "brightness": (0.15, lambda: intensity.apply_brightness(patch, intensity.BrightnessParameters(one_each))),
        "contrast": (0.15, lambda: intensity.apply_contrast(patch, intensity.ContrastParameters(one_each))),
        "low resolution, all channels": (0.125, lambda: low_resolution.apply(patch, low_resolution.LowResolutionParameters(one_each))),
        "gamma": (0.4, lambda: gamma.apply(patch, gamma.GammaParameters(one_each))),
        "mirror": (0.875, lambda: mirror.apply(patch, mirror.MirrorParameters((0, 1, 2)))),
    }
    print(f"\n{'x'.join(map(str, patch_size))} x {channels}: ms when applied, and its share in the mean")
    for name, (rate, call) in cases.items():
        call()
        times = []
        for _ in range(5):
            begin = time.process_time()
            call()
            times.append((time.process_time() - begin) * 1e3)
        print(f"  {name:<30} {min(times):8.2f} {min(times) * rate:8.2f}")


def _spatial(augmenter: Augmenter, data: np.ndarray, labels: np.ndarray, parameters: spatial.SpatialParameters) -> Callable[[], object]:
    size = spatial.read_size(parameters, augmenter.patch_size, augmenter.read_size)
    image, mask = (torch.from_numpy(_middle(array, size).copy()) for array in (data, labels))
    return lambda: spatial.apply(image, mask, parameters, augmenter.patch_size)


def _middle(array: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    return array[(slice(None), *(slice((n - m) // 2, (n - m) // 2 + m) for n, m in zip(array.shape[1:], size, strict=True)))]


def _sample(size: tuple[int, ...], channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise, and labels of two nested balls with a rim of -1."""
    data = generator("data").standard_normal((channels, *size), dtype=np.float32)
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in size), indexing="ij")
    radius = np.sqrt(sum(axis**2 for axis in axes))
    labels = np.select([radius < 0.2, radius < 0.4, radius < 1.2], [2, 1, 0], -1).astype(np.int16)[None]
    return data, labels


if __name__ == "__main__":
    main()
