"""What one case tells planning: its grid, its intensities in the labelled and the non-zero region, noise, sharpness, how PET lies on CT,
labels, lesions. And what an image that is to be predicted tells of the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from autoseg.images import Image, orientation_code, reorientation_for, reorientation_to_canonical
from autoseg.preprocessing.alignment import alignment
from autoseg.preprocessing.cases import read_case
from autoseg.preprocessing.crop import Box, bounding_box, nonzero_box, nonzero_mask, slices
from autoseg.preprocessing.measures import measure
from autoseg.preprocessing.region import region_box
from planners.fingerprint import CaseFingerprint, IntensitySketch, sketch
from planners.measures import Alignment
from planners.normalisation import pet_channel
from planners.plan import Plan, Region

if TYPE_CHECKING:
    from autoseg.dataset import Case, Dataset

SKETCHED = 1 << 21
"""Of a body with more voxels every n-th is sketched: it serves comparisons between centres, while the CT scheme comes from the foreground,
which is always sketched whole."""


def case_fingerprint(
    case: Case, dataset: Dataset, orientation: Literal["canonical", "as_stored"], region: Region | None = None
) -> tuple[CaseFingerprint, list[str]]:
    """The fingerprint of one case, each of its files read once, and what the region of interest takes away from it.

    Args:
        case: of the dataset, with a mask.
        dataset: for its label values.
        orientation: the plan's; spacing and shapes are told after reorientation.
        region: the plan's region of interest.

    Raises:
        ImageError: a file cannot be read.
    """
    images, mask = read_case(case)
    scheme = dataset.label_scheme
    if region is None:
        found = fingerprint_images(case, images, mask, orientation, scheme.mask_values, ignore=scheme.ignore, channels=dataset.channels)
        return found, []
    turn = reorientation_to_canonical(images[0].geometry)
    whole = turn.apply_geometry(images[0].geometry)
    box, note = region_box([turn.apply(image.array) for image in images], whole.spacing, region)
    notes = [f"case {case.name}: {note}"] if note else []
    if box is not None and mask is not None:
        notes += _cut_labels(case, dataset, turn.apply(mask.array), box)
    return fingerprint_images(case, images, mask, orientation, scheme.mask_values, box, scheme.ignore, dataset.channels), notes


def measure_images(case: Case, images: Sequence[Image], plan: Plan) -> CaseFingerprint:
    """What the images of a case to be predicted tell, measured as the training cases of the plan were.

    Args:
        case: name, patient and centre are taken.
        images: one a channel, in the plan's order, as read, on one grid, finite.
    """
    box = None
    if plan.region_of_interest is not None:
        turn = reorientation_for(images[0].geometry, plan.orientation)
        spacing = turn.apply_geometry(images[0].geometry).spacing
        box, _ = region_box([turn.apply(image.array) for image in images], spacing, plan.region_of_interest)
    return fingerprint_images(case, images, None, plan.orientation, region=box, channels=plan.channels)


def _cut_labels(case: Case, dataset: Dataset, mask: np.ndarray, box: Box) -> list[str]:
    everywhere, kept = label_voxels(mask), label_voxels(mask[slices(box)])
    notes = []
    for name, values in dataset.label_scheme.foreground.items():
        before, after = (sum(counts.get(value, 0) for value in values) for counts in (everywhere, kept))
        if after < before:
            notes.append(
                f"case {case.name}: {before - after} of {before} voxels of {name!r} lie outside the region of interest: they are not "
                "trained on, and count as missed when the case is scored"
            )
    return notes


def fingerprint_images(
    case: Case,
    images: Sequence[Image],
    mask: Image | None,
    orientation: Literal["canonical", "as_stored", "ras"],
    labels: Sequence[int] = (),
    region: Box | None = None,
    ignore: int | None = None,
    channels: Sequence[str] = (),
) -> CaseFingerprint:
    """The fingerprint of a case that is in memory already.

    Args:
        case: name, patient and centre are taken.
        images: one a channel, as read, on one grid.
        mask: on the same grid, or None.
        orientation: the plan's.
        labels: values that are counted even where the mask has none of them.
        region: of the reoriented image, what counts; None: all of it.
        ignore: the value of voxels that say nothing: they count as background, since nobody knows what is in them.
        channels: their names; CT and PET among them are laid on each other.
    """
    stored = images[0].geometry
    turn = reorientation_for(stored, orientation)
    geometry, arrays = turn.apply_geometry(stored), [turn.apply(image.array) for image in images]
    values = None if mask is None else mask.array if ignore is None else np.where(mask.array == ignore, 0, mask.array)
    values = None if values is None else turn.apply(values)

    shape = arrays[0].shape
    if region is not None:
        arrays = [array[slices(region)] for array in arrays]
        values = None if values is None else values[slices(region)]
    box = slices(nonzero_box(arrays))
    cropped = [array[box] for array in arrays]
    inside = nonzero_mask(cropped)
    labelled = None if values is None else values[box] > 0
    counts = {label: 0 for label in labels if label > 0 and label != ignore} | ({} if values is None else label_voxels(values))
    volume = float(np.prod(geometry.spacing))
    return CaseFingerprint(
        case=case.name,
        patient=case.patient,
        centre=case.centre,
        spacing=_three(geometry.spacing),
        shape=_three(shape),
        shape_after_crop=_three(cropped[0].shape),
        relative_size=cropped[0].size / arrays[0].size,
        orientation=orientation_code(stored),
        foreground=tuple(None if labelled is None else _sketch(channel[labelled]) for channel in cropped),
        body=tuple(_thinned_sketch(channel.ravel() if inside is None else channel[inside]) for channel in cropped),
        label_voxels=counts,
        lesions={} if values is None else lesion_volumes(values, volume),
        measures=tuple(measure(channel, geometry.spacing, inside) for channel in cropped),
        alignment=_alignment(cropped, channels, geometry.spacing),
    )


def _alignment(arrays: Sequence[np.ndarray], channels: Sequence[str], spacing: Sequence[float]) -> Alignment | None:
    ct = next((index for index, name in enumerate(channels) if name.lower() == "ct"), None)
    pet = pet_channel(channels)
    return None if ct is None or pet is None else alignment(arrays[ct], arrays[pet], spacing)


def label_voxels(mask: np.ndarray) -> dict[int, int]:
    """Label above 0 -> its voxels, ascending; labels that are absent are left out."""
    found, counts = np.unique(mask[mask > 0], return_counts=True)
    return {int(label): int(count) for label, count in zip(found, counts, strict=True)}


def lesion_volumes(mask: np.ndarray, voxel_volume: float) -> dict[int, tuple[float, ...]]:
    """Label above 0 -> the volume (mm3) of each of its 26-connected components, largest first.

    Args:
        mask: integers (z, y, x); touching voxels of different labels are different components.
        voxel_volume: mm3.
    """
    box = bounding_box(mask > 0)
    if box is None:
        return {}
    import cc3d

    part = np.ascontiguousarray(mask[slices(box)].clip(min=0)).astype(np.uint16)
    components, count = cc3d.connected_components(part, connectivity=26, return_N=True)
    sizes = np.bincount(components.ravel(), minlength=count + 1)[1:]
    label_of = np.zeros(count + 1, dtype=part.dtype)
    label_of[components.ravel()] = part.ravel()
    return {
        int(label): tuple(float(n * voxel_volume) for n in sorted(sizes[label_of[1:] == label].tolist(), reverse=True))
        for label in np.unique(label_of[1:])
    }


def _sketch(values: np.ndarray) -> IntensitySketch | None:
    return sketch(values) if values.size else None


def _thinned_sketch(values: np.ndarray) -> IntensitySketch | None:
    step = -(-values.size // SKETCHED)
    if step <= 1:
        return _sketch(values)
    thinned = sketch(values[::step])
    low, high = float(values.min()), float(values.max())
    quantiles = (low, *thinned.quantiles[1:-1], high)
    return replace(thinned, count=values.size, minimum=low, maximum=high, quantiles=quantiles)


def _three(values: Sequence[float]) -> tuple:
    first, second, third = values
    return first, second, third
