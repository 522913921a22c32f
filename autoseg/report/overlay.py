"""One case as a picture: three planes through its largest lesion, every channel, both masks as contours."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autoseg import files
from planners.labels import Values

COLOURS = ("#ff3b30", "#00c8ff", "#ffd60a", "#34c759", "#ff7ae0", "#ff9500")
PLANES = ("axial", "coronal", "sagittal")
STYLES = {"reference": "-", "prediction": (0, (2.0, 1.6))}
CT_WINDOW = (-160.0, 240.0)
INCHES = 3.4


def draw_overlay(
    path: Path,
    images: np.ndarray,
    reference: np.ndarray | None,
    prediction: np.ndarray | None,
    spacing: tuple[float, float, float],
    *,
    labels: Mapping[str, Values],
    channels: Sequence[str],
    title: str,
    dice: Mapping[str, float] | None = None,
) -> None:
    """Writes a PNG, atomically: a row a channel, a column a plane; the reference solid, the prediction dashed.

    Args:
        path: the .png file.
        images: (c, z, y, x); axes run to superior, posterior and the patient's left.
        reference, prediction: integer masks (z, y, x) on the same grid, or None.
        spacing: mm, (z, y, x).
        labels: foreground labels, name -> value, or a region's values; a contour each.
        channels: names of the channels; a CT gets a soft-tissue window, a PET is shown dark on bright.
        title: the case.
        dice: label -> Dice, into the title; nan is shown as n/a.

    Raises:
        ValueError: the shapes do not fit each other.
    """
    masks = {name: mask for name, mask in (("reference", reference), ("prediction", prediction)) if mask is not None}
    if images.ndim != 4 or len(channels) != len(images) or any(mask.shape != images.shape[1:] for mask in masks.values()):
        shapes = {name: mask.shape for name, mask in masks.items()}
        raise ValueError(
            f"images must be (c, z, y, x) with {len(channels)} channels and masks (z, y, x); found {images.shape} and {shapes}"
        )
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    at = _planes_through(masks, labels)
    planes = [axis for axis in range(3) if min(size for other, size in enumerate(images.shape[1:]) if other != axis) > 1]
    widths, heights = zip(*(_extent(images.shape[1:], spacing, axis) for axis in planes), strict=True)
    scale = INCHES / max(widths)
    figure = Figure(figsize=(scale * sum(widths) + 0.4, scale * max(heights) * len(images) + 1.3), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(images), len(planes), squeeze=False, width_ratios=widths)
    for row, (channel, image) in enumerate(zip(channels, images, strict=True)):
        shown = _window(channel, image)
        for column, axis in enumerate(planes):
            _draw_plane(axes[row, column], image, shown, masks, labels, spacing, axis, at[axis])
            if row == 0:
                axes[row, column].set_title(f"{PLANES[axis]} {at[axis] + 1}/{images.shape[1 + axis]}", fontsize=9, color="#444444")
        axes[row, 0].set_ylabel(channel, fontsize=11)
    figure.suptitle(_title(title, dice), fontsize=12)
    present = {name for name, value in labels.items() if any(np.isin(mask, value).any() for mask in masks.values())}
    figure.legend(handles=_legend(labels, present, masks), loc="outside lower center", ncols=8, frameon=False, fontsize=9, handlelength=3)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=100)
    files.write_bytes(path, picture.getvalue())


def _planes_through(masks: Mapping[str, np.ndarray], labels: Mapping[str, Values]) -> tuple[int, ...]:
    """Index along each axis of the plane with most of the largest lesion, the reference's if it has one; without any, the middle."""
    from scipy.ndimage import find_objects, label

    for mask in masks.values():
        components, count = label(np.isin(mask, np.hstack(list(labels.values()))), structure=np.ones((3,) * mask.ndim))
        if count:
            largest = int(np.argmax(np.bincount(components.ravel())[1:])) + 1
            box = find_objects(components)[largest - 1]
            lesion = components[box] == largest
            axes = range(mask.ndim)
            areas = [lesion.sum(axis=tuple(other for other in axes if other != axis)) for axis in axes]
            return tuple(int(part.start + np.argmax(area)) for part, area in zip(box, areas, strict=True))
    return tuple(size // 2 for size in next(iter(masks.values())).shape) if masks else (0, 0, 0)


def _extent(shape: Sequence[int], spacing: Sequence[float], axis: int) -> tuple[float, float]:
    """Width and height of a plane in mm."""
    down, across = (other for other in range(3) if other != axis)
    return shape[across] * spacing[across], shape[down] * spacing[down]


def _window(channel: str, image: np.ndarray) -> dict[str, Any]:
    name = channel.upper()
    if name.startswith("CT"):
        return {"cmap": "gray", "vmin": CT_WINDOW[0], "vmax": CT_WINDOW[1]}
    low, high = np.percentile(image, (0.5, 99.8))
    if name.startswith(("PET", "PT")):
        return {"cmap": "gray_r", "vmin": 0.0, "vmax": max(float(high), 1e-6)}
    return {"cmap": "gray", "vmin": float(low), "vmax": float(max(high, low + 1e-6))}


def _draw_plane(
    axes: Any,
    image: np.ndarray,
    window: Mapping[str, Any],
    masks: Mapping[str, np.ndarray],
    labels: Mapping[str, Values],
    spacing: Sequence[float],
    axis: int,
    index: int,
) -> None:
    width, height = _extent(image.shape, spacing, axis)
    # head up in coronal and sagittal planes, front up in axial ones
    origin = "upper" if axis == 0 else "lower"
    extent = (0, width, height, 0) if axis == 0 else (0, width, 0, height)
    axes.imshow(np.take(image, index, axis), origin=origin, extent=extent, interpolation="nearest", aspect="equal", **window)
    for number, (kind, mask) in enumerate(masks.items()):
        plane = np.take(mask, index, axis)
        for value, colour in zip(labels.values(), _colours(len(labels)), strict=True):
            inside = np.isin(plane, value)
            if inside.any():
                _draw_contour(axes, inside, (height, width), colour, kind, zorder=2 + number)
    axes.set_xlim(0, width)
    axes.set_ylim((height, 0) if axis == 0 else (0, height))
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _draw_contour(axes: Any, inside: np.ndarray, size: tuple[float, float], colour: str, kind: str, *, zorder: int) -> None:
    for line in _outline(inside, (size[0] / inside.shape[0], size[1] / inside.shape[1])):
        xs, ys = zip(*line, strict=True)
        width = 1.6 if kind == "reference" else 2.0
        axes.plot(xs, ys, color="black", linewidth=width + 1.2, alpha=0.5, zorder=zorder, linestyle=STYLES[kind])
        axes.plot(xs, ys, color=colour, linewidth=width, zorder=zorder + 0.5, linestyle=STYLES[kind])


def _outline(inside: np.ndarray, steps: tuple[float, float]) -> list[list[tuple[float, float]]]:
    """Closed lines (x, y) in mm along the voxels' edges, so that the picture shows the mask and not a smoothed one."""
    padded = np.pad(inside, 1).astype(np.int8)
    down, across = np.nonzero(np.diff(padded, axis=0)[:, 1:-1])
    edges = [((x, y), (x + 1, y)) for y, x in zip(down.tolist(), across.tolist(), strict=True)]
    down, across = np.nonzero(np.diff(padded, axis=1)[1:-1])
    edges += [((x, y), (x, y + 1)) for y, x in zip(down.tolist(), across.tolist(), strict=True)]
    return [[(x * steps[1], y * steps[0]) for x, y in line] for line in _joined(edges)]


def _joined(edges: list[tuple[tuple[int, int], tuple[int, int]]]) -> list[list[tuple[int, int]]]:
    """Edges chained to lines, so that dashes run on around corners."""
    ends: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for a, b in edges:
        ends.setdefault(a, []).append(b)
        ends.setdefault(b, []).append(a)
    lines = []
    while ends:
        point = next(iter(ends))
        line = [point]
        while point in ends:
            following = ends[point].pop()
            if not ends[point]:
                del ends[point]
            ends[following].remove(point)
            if not ends[following]:
                del ends[following]
            line.append(following)
            point = following
        lines.append(line)
    return lines


def _colours(count: int) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(count)]


def _title(title: str, dice: Mapping[str, float] | None) -> str:
    if not dice:
        return title
    values = (f"{name} {value:.3f}" if math.isfinite(value) else f"{name} n/a" for name, value in dice.items())
    return f"{title}   Dice: {', '.join(values)}"


def _legend(labels: Mapping[str, Values], present: set[str], masks: Mapping[str, np.ndarray]) -> list[Any]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color=colour, linestyle=STYLES[kind], linewidth=1.8, label=f"{name} {kind}")
        for name, colour in zip(labels, _colours(len(labels)), strict=True)
        if name in present
        for kind in masks
    ]
