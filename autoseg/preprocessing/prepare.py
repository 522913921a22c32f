"""One case onto the plan's grid and scale: reorient, transpose, crop, normalise, resample; and what is needed to come back."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from autoseg.errors import DatasetError, GeometryError
from autoseg.images import Geometry, Image, reorientation_for
from autoseg.preprocessing.crop import Box, nonzero_box, nonzero_mask, slices
from autoseg.preprocessing.normalise import normalise
from autoseg.preprocessing.region import region_box
from autoseg.preprocessing.resample import new_shape, resample_channel, resample_labels, separate_axis
from planners.plan import Configuration, Plan

logger = logging.getLogger(__name__)

OUTSIDE = -1
"""Label of background voxels outside the non-zero mask."""

PREPARATION_VERSION = 1
"""Raised when the same plan and files would give other prepared voxels than before."""


class StoredGeometry(BaseModel):
    """A `Geometry` as JSON: shape and spacing (z, y, x); origin and direction in ITK's order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    direction: tuple[float, ...]
    dimension: Literal[2, 3] = 3


class CaseProperties(BaseModel):
    """How a prepared case came from its files, enough to bring a result back onto their grid.

    The way back: resample to `shape_after_crop`, paste into zeros of `shape_before_crop` at `crop_box`, undo `transpose`, undo the
    reorientation (`orientation` and `geometry` say which). Everything but `geometry` stands in network order.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    geometry: StoredGeometry
    orientation: Literal["canonical", "as_stored", "ras"]
    transpose: tuple[int, int, int]
    shape_before_crop: tuple[int, int, int]
    crop_box: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    shape_after_crop: tuple[int, int, int]
    shape_after_resampling: tuple[int, int, int]
    spacing: tuple[float, float, float]
    new_spacing: tuple[float, float, float]
    separate_axis: int | None
    labels: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    def image_geometry(self) -> Geometry:
        """The grid of the image as it was read."""
        return Geometry(**self.geometry.model_dump())

    def crop_slices(self) -> tuple[slice, ...]:
        """The crop box as an index on the transposed, reoriented image."""
        return slices(self.crop_box)


@dataclass(frozen=True)
class Prepared:
    """A case as the network's loader wants it.

    Attributes:
        data: float32 (c, z, y, x) in network order.
        labels: int8, or int16 where a label needs it, (z, y, x), -1 outside the non-zero mask; None without a mask.
        properties: how it came about.
    """

    data: np.ndarray
    labels: np.ndarray | None
    properties: CaseProperties


def prepare(images: Sequence[Image], mask: Image | None, plan: Plan, configuration: str) -> Prepared:
    """A case on the grid and scale of one configuration.

    Args:
        images: one a channel, in the plan's order, all on one grid, as read.
        mask: labels on the same grid; None for a case to be predicted.
        plan: orientation, transpose and the configuration's spacing, normalisation and resampling are used.
        configuration: its name in the plan. A 2-D one leaves network axis 0 alone.

    Raises:
        DatasetError: the number of channels is not the plan's.
        GeometryError: channels or mask differ in shape.
    """
    settings = plan.configuration(configuration)
    _check(images, mask, settings)
    geometry = images[0].geometry
    arrays, spacing = _network_order([*images, *([mask] if mask else [])], plan)
    channels, labels = arrays[: len(images)], arrays[len(images)] if mask else None

    box, found = _box(channels, spacing, plan)
    cropped = [channel[slices(box)] for channel in channels]
    inside = nonzero_mask(cropped) if labels is not None or _looks_at_mask(settings) else None
    target = (*spacing[: 3 - settings.dimension], *settings.spacing)
    before = cropped[0].shape
    after = new_shape(before, spacing, target)
    coarse = separate_axis(spacing, target, settings.resampling.separate_z_ratio)

    data = np.empty((len(cropped), *after), dtype=np.float32)
    notes = [*(note for image in images for note in image.notes), *found]
    for index, channel in enumerate(cropped):
        values = np.array(channel, dtype=np.float32, order="C")
        notes += _remarks(values, plan.channels[index])
        normalise(values, settings.normalisation[index], inside)
        resample_channel(values, data[index], coarse, settings.resampling.image_order)

    resampled = None
    if labels is not None:
        own = _with_outside(labels[slices(box)], inside)
        resampled = resample_labels(own, after, spacing, target, settings.resampling)

    properties = CaseProperties(
        geometry=StoredGeometry(**asdict(geometry)),
        orientation=plan.orientation,
        transpose=plan.transpose,
        shape_before_crop=channels[0].shape,
        crop_box=_plain(box),
        shape_after_crop=before,
        shape_after_resampling=after,
        spacing=spacing,
        new_spacing=target,
        separate_axis=coarse,
        labels=() if resampled is None else tuple(np.unique(resampled[resampled > 0]).tolist()),
        notes=tuple(notes),
    )
    return Prepared(data, resampled, properties)


def network_view(array: np.ndarray, properties: CaseProperties) -> np.ndarray:
    """A view of an array on the image's own grid that shows the cropped part in network order: reading crops, writing restores.

    Args:
        array: (..., z, y, x) on the grid of the image as read.
        properties: of the prepared case.
    """
    view = reorientation_for(properties.image_geometry(), properties.orientation).apply(array)
    lead = view.ndim - 3
    view = view.transpose(*range(lead), *(lead + axis for axis in properties.transpose))
    view = view[(..., *properties.crop_slices())]
    assert np.may_share_memory(view, array), "reorientation made a copy"
    return view


def _check(images: Sequence[Image], mask: Image | None, settings: Configuration) -> None:
    wanted = len(settings.normalisation)
    if len(images) != wanted:
        raise DatasetError(f"{images[0].path if images else 'a case'}: the plan is for {wanted} channels, found {len(images)}")
    for other in (*images[1:], *([mask] if mask else [])):
        if other.array.shape != images[0].array.shape:
            raise GeometryError(
                f"{other.path} has shape {other.array.shape} (z, y, x), {images[0].path} has {images[0].array.shape}: "
                "all channels and the mask of a case must share one grid. Resample them onto one of them first"
            )


def _network_order(images: Sequence[Image], plan: Plan) -> tuple[list[np.ndarray], tuple[float, float, float]]:
    """Views of the arrays in network order, and the spacing (mm) in that order."""
    geometry = images[0].geometry
    arrays = [image.array for image in images]
    turn = reorientation_for(geometry, plan.orientation)
    arrays = [turn.apply(array) for array in arrays]
    geometry = turn.apply_geometry(geometry)
    first, second, third = (float(geometry.spacing[axis]) for axis in plan.transpose)
    return [array.transpose(plan.transpose) for array in arrays], (first, second, third)


def _box(channels: Sequence[np.ndarray], spacing: Sequence[float], plan: Plan) -> tuple[Box, list[str]]:
    """What of a case is prepared: the non-zero part of the plan's region of interest, and notes. All in network order."""
    if plan.region_of_interest is None:
        return nonzero_box(channels), []
    back = np.argsort(plan.transpose)
    found, note = region_box([c.transpose(back) for c in channels], [spacing[axis] for axis in back], plan.region_of_interest)
    if found is None:
        return nonzero_box(channels), [note]
    region = tuple(found[axis] for axis in plan.transpose)
    inner = nonzero_box([channel[slices(region)] for channel in channels])
    return tuple((start + low, start + high) for (start, _), (low, high) in zip(region, inner, strict=True)), []


def _looks_at_mask(settings: Configuration) -> bool:
    return any(getattr(scheme, "masked", False) for scheme in settings.normalisation)


def _with_outside(labels: np.ndarray, inside: np.ndarray | None) -> np.ndarray:
    """The labels in the smallest signed type that holds them, -1 where they are 0 outside the mask."""
    kind = np.int8 if labels.size == 0 or labels.max() <= np.iinfo(np.int8).max else np.int16
    result = np.array(labels, dtype=kind, order="C")
    if inside is not None:
        result[(result == 0) & ~inside] = OUTSIDE
    return result


def _remarks(values: np.ndarray, channel: str) -> list[str]:
    low, high = values.min(), values.max()
    if low != high:
        return []
    remark = f"channel {channel!r} is {'0' if low == 0 else 'constant'} everywhere"
    logger.warning(remark)
    return [remark]


def _plain(box: Box) -> Box:
    return tuple((int(start), int(stop)) for start, stop in box)
