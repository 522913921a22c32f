"""The phantom's body in voxels: outline, bones, brain and airway as functions of place, and the structures drawn for one patient.

Frame: mm, z upwards with 0 at the height of the mandible, y backwards, x to the patient's left.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from autoseg.evaluation.overlap import bounding_box
from autoseg.importers.cohort.patients import Tumours
from autoseg.importers.cohort.structures import AIRWAY_RADIUS, AIRWAY_Y, Blob, draw_blobs
from autoseg.importers.shapes import Waves, ellipse_distance, ellipsoid_distance, soft_inside

AIR, FAT, MUSCLE, BONE, BRAIN, LUNG, NECROSIS = -1000.0, -95.0, 52.0, 700.0, 36.0, -820.0, -35.0
"""HU; necrosis is a change."""

FAT_UPTAKE = 0.35
"""SUV."""

CORE_UPTAKE = 0.25
"""Of a cold core, as a share of its lesion's."""

_OUTLINE = np.array(
    # z, half width, half depth, middle in y
    [
        (-460, 165, 105, 10),
        (-200, 185, 108, 10),
        (-140, 190, 105, 12),
        (-105, 165, 95, 13),
        (-84, 100, 72, 12),
        (-60, 66, 63, 11),
        (-25, 61, 68, 6),
        (10, 67, 84, -2),
        (40, 72, 94, -2),
        (80, 76, 98, 0),
        (115, 66, 84, 2),
        (138, 42, 52, 4),
        (150, 8, 8, 5),
    ],
    float,
)
CROWN, SKULL_BASE, PALATE, LUNG_APEX = 150.0, 24.0, 22.0, -150.0
"""Heights, mm."""


@dataclass(frozen=True)
class Frame:
    """Where voxels lie in the phantom, mm: z of shape (z, 1, 1), y and x of shape (1, y, x). `edge` is half a voxel, half a soft edge."""

    z: np.ndarray
    y: np.ndarray
    x: np.ndarray
    edge: float


@dataclass(frozen=True)
class Scene:
    """One patient, before any scanner.

    Attributes:
        blobs: lesions and look-alikes.
        brain_suv, brain_pattern: mean uptake of the brain, and its relative variation.
        vessel_ct: HU with contrast medium.
    """

    blobs: tuple[Blob, ...]
    brain_suv: float
    brain_pattern: Waves
    vessel_ct: float


def draw_scene(tumours: Tumours, scale: float, rng: np.random.Generator) -> Scene:
    """A patient with these lesions; everything else is drawn. The phantom will be enlarged by `scale`."""
    blobs = draw_blobs(tumours, scale, rng)
    return Scene(blobs, rng.uniform(6.5, 11.0), Waves.draw(rng, 12, (16.0, 40.0), 0.22), rng.uniform(90.0, 170.0))


def render(scene: Scene, frame: Frame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noise-free CT (HU), uptake (SUV) and labels (uint8) of a patient, each (z, y, x).

    Edges are as wide as a voxel, so that they carry where a surface lies inside it.
    """
    shape = np.broadcast_shapes(frame.z.shape, frame.y.shape)
    ct, uptake = np.full(shape, AIR, np.float32), np.full(shape, 0.02, np.float32)
    for distance, hu, suv in _tissues(scene, frame):
        share = soft_inside(distance, frame.edge)
        _paint(ct, share, hu)
        _paint(uptake, share, suv)
    labels = np.zeros(shape, np.uint8)
    for blob in scene.blobs:
        _draw_fat(blob, frame, ct, uptake)
    # GTVp last: where lesions touch, it is the one that counts
    for blob in sorted(scene.blobs, key=lambda blob: (blob.kind.label > 0, -blob.kind.label)):
        _draw(blob, frame, ct, uptake, labels)
    return ct, uptake, labels


def _paint(volume: np.ndarray, share: np.ndarray, value: float | np.ndarray) -> None:
    volume += share * (value - volume)


def _tissues(scene: Scene, frame: Frame) -> Iterator[tuple[np.ndarray, float, float | np.ndarray]]:
    """Signed distance, HU and SUV of each tissue, painted one over the other."""
    z, y, x = frame.z, frame.y, frame.x
    half_x, half_y, middle = (np.interp(z, _OUTLINE[:, 0], column).astype(z.dtype) for column in _OUTLINE.T[1:])
    aside = np.abs(x)
    skin = np.maximum(ellipse_distance(y - middle, x, half_y, half_x), z - CROWN)
    yield skin, FAT, FAT_UPTAKE
    fat = np.interp(z, (-105, -60, 0, 40), (18, 10, 9, 5)).astype(z.dtype)
    yield skin + fat, MUSCLE, 0.75
    if z.min() < LUNG_APEX:
        yield ellipsoid_distance((z + 290, y - 5, aside - 88), np.array([130.0, 78.0, 62.0])), LUNG, 0.4
    if z.max() > SKULL_BASE - frame.edge:
        forehead = -50 - 0.8 * (z - 30) - y
        skull = np.maximum(np.maximum(skin + 9, SKULL_BASE - z), forehead)
        yield skull, BONE, 1.0
        yield skull + 6, BRAIN, scene.brain_suv * (1 + scene.brain_pattern.at(z, y, x))
    yield ellipsoid_distance((z - 18, y + 54, aside - 22), np.array([14.0, 14.0, 12.0])), AIR, 0.2
    yield ellipsoid_distance((z - 14, y + 52, x), np.array([15.0, 26.0, 7.0])), AIR, 0.2
    jaw = np.abs(ellipse_distance(y + 16, x, 46.0, 46.0)) - 4.5
    yield np.maximum(np.maximum(jaw, y + 4), np.abs(z + 10) - 15), BONE, 0.9
    yield np.maximum(ellipse_distance(y - 36, x, 13.0, 16.0), z - SKULL_BASE), BONE * 0.4, 1.3
    yield np.maximum(ellipse_distance(y - 8, aside - 33, 5.5, 6.5), z - PALATE), scene.vessel_ct, 1.6
    yield np.maximum(ellipse_distance(y - AIRWAY_Y, x, AIRWAY_RADIUS - 1, AIRWAY_RADIUS), z - PALATE), AIR, 0.2


def _draw(blob: Blob, frame: Frame, ct: np.ndarray, uptake: np.ndarray, labels: np.ndarray) -> None:
    """Draws a structure into the part of the arrays that it reaches."""
    box = _box(blob, frame)
    if box is None:
        return
    z, y, x = _inside(frame, box)
    distance = ellipsoid_distance(_offset(blob, z, y, x), blob.radii) + blob.ripple.at(z, y, x)
    share = soft_inside(distance, frame.edge)
    cold = soft_inside(distance + (1 - blob.core) * float(blob.radii.min()), frame.edge) if blob.core else 0.0
    _paint(ct[box], share, blob.kind.ct + NECROSIS * cold + blob.grain.at(z, y, x))
    _paint(uptake[box], share, blob.uptake * (1 - (1 - CORE_UPTAKE) * cold))
    if blob.kind.label:
        labels[box][distance < 0] = blob.kind.label


def _draw_fat(blob: Blob, frame: Frame, ct: np.ndarray, uptake: np.ndarray) -> None:
    """Draws the fat that a structure lies in."""
    box = _box(blob, frame)
    if box is None or not blob.kind.fat:
        return
    distance = ellipsoid_distance(_offset(blob, *_inside(frame, box)), blob.radii + blob.kind.fat)
    share = soft_inside(distance, frame.edge)
    _paint(ct[box], share, FAT)
    _paint(uptake[box], share, FAT_UPTAKE)


def _inside(frame: Frame, box: tuple[slice, slice, slice]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return frame.z[box[0]], frame.y[:, box[1], box[2]], frame.x[:, box[1], box[2]]


def _offset(blob: Blob, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return z - float(blob.position[0]), y - float(blob.position[1]), x - float(blob.position[2])


def _box(blob: Blob, frame: Frame) -> tuple[slice, slice, slice] | None:
    """The part of the arrays around a structure; None where it lies outside."""
    reach = blob.radii + 4.0 + blob.kind.fat + 2 * frame.edge
    along = bounding_box(np.abs(frame.z[:, 0, 0] - blob.position[0]) < reach[0])
    near = (np.abs(frame.y[0] - blob.position[1]) < reach[1]) & (np.abs(frame.x[0] - blob.position[2]) < reach[2])
    across = bounding_box(near)
    return None if along is None or across is None else (along[0], across[0], across[1])
