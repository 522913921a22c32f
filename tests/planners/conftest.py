"""Fingerprints made from numbers, for the planner's tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from planners.fingerprint import CaseFingerprint, Fingerprint, IntensitySketch, merge, sketch

SKETCH = sketch([0.0, 1.0, 2.0, 3.0])


def build(
    spacings: Sequence[Sequence[float]],
    shapes: Sequence[Sequence[int]],
    *,
    cases: int | None = None,
    channels: Sequence[str] = ("MR",),
    labels: int = 2,
    relative_size: float = 1.0,
    foreground: IntensitySketch | None = SKETCH,
) -> Fingerprint:
    """A fingerprint of `cases` cases that repeat the given spacings and shapes in order; `labels` counts the background."""
    records = [
        CaseFingerprint(
            case=f"case_{index:04d}",
            patient=f"patient_{index}",
            centre="ab"[index % 2],
            spacing=tuple(spacings[index % len(spacings)]),
            shape=tuple(shapes[index % len(shapes)]),
            shape_after_crop=tuple(shapes[index % len(shapes)]),
            relative_size=relative_size,
            orientation="LPS",
            foreground=(foreground,) * len(channels),
            body=(SKETCH,) * len(channels),
            label_voxels={1: 10},
            lesions={1: (4.0, 6.0)},
        )
        for index in range(cases or len(spacings))
    ]
    return merge(channels, {"background": 0} | {f"label_{value}": value for value in range(1, labels)}, records)


@pytest.fixture(scope="session")
def make_fingerprint() -> Callable[..., Fingerprint]:
    """The function `build` above."""
    return build
