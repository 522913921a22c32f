"""The lesions of a prepared mask as one small table, for sampling that knows how large a lesion is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from autoseg.augmentation.counters import generator
from autoseg.preprocessing.crop import bounding_box, slices

MOST_LOCATIONS = 1000
"""Voxels kept of a lesion: a patch centred on one of a thousand evenly drawn ones sees what any voxel would show it."""

COLUMNS = ("class", "lesion", "voxels", "z", "y", "x")


def lesion_locations(labels: np.ndarray, name: str, classes: Mapping[int, tuple[int, ...]]) -> np.ndarray:
    """Rows of class, lesion, the lesion's voxels, and the place (z, y, x) of one of them; int32 (n, 6).

    A lesion is a 26-connected component of a class; they are numbered from 1. Of each, `MOST_LOCATIONS` voxels are kept, drawn without
    replacement, or all where it has fewer; so many small ones cost little, and one large one no more than a small file.

    Args:
        labels: integers (z, y, x).
        name: the case; the draw depends on it and on the labels only.
        classes: class -> the values that belong to it.
    """
    import cc3d

    parts = [np.empty((0, len(COLUMNS)), np.int32)]
    for number, values in classes.items():
        mask = labels == values[0] if len(values) == 1 else np.isin(labels, values)
        box = bounding_box(mask)
        if box is None:
            continue
        components = cc3d.connected_components(np.ascontiguousarray(mask[slices(box)]), connectivity=26)
        flat = components.ravel()
        order = np.flatnonzero(flat)
        order = order[np.argsort(flat[order], kind="stable")]
        starts = np.flatnonzero(np.diff(flat[order], prepend=0))
        for lesion, places in enumerate(np.split(order, starts[1:]), 1):
            kept = places
            if len(places) > MOST_LOCATIONS:
                rng = generator("lesion locations", name, number, lesion)
                kept = places[np.sort(rng.choice(len(places), MOST_LOCATIONS, replace=False, shuffle=False))]
            voxels = np.stack(np.unravel_index(kept, components.shape), axis=1) + [start for start, _ in box]
            head = np.broadcast_to([number, lesion, len(places)], (len(kept), 3))
            parts.append(np.concatenate([head, voxels], axis=1).astype(np.int32))
    return np.concatenate(parts)


@dataclass(frozen=True)
class Lesions:
    """The lesions of one class in a case.

    Attributes:
        voxels: of each lesion, (n,).
        starts, stops: rows of each in `places`, (n,).
        places: (z, y, x), int32 (rows, 3).
    """

    voxels: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    places: np.ndarray


def lesions_of(table: np.ndarray, number: int) -> Lesions:
    """The lesions of a class out of a table of `lesion_locations`; none where the case lacks the class."""
    rows = np.asarray(table)[np.asarray(table)[:, 0] == number]
    _, starts = np.unique(rows[:, 1], return_index=True)
    return Lesions(rows[starts, 2], starts, np.append(starts[1:], len(rows))[: len(starts)], rows[:, 3:])
