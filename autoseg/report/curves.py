"""The learning curve of a fold as a picture, from the rows of its logbook."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autoseg import files

INK, LIGHT = "#222222", "#bbbbbb"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's palette: told apart by colour-blind readers too."""


def write_learning_curve(rows: Sequence[Mapping[str, Any]], path: Path, *, title: str = "") -> None:
    """Draws loss, patch Dice, learning rate and seconds over epochs as a PNG, atomically; without rows it writes nothing.

    Args:
        rows: one an epoch, with `epoch` and any of: `loss`, `validation_loss`, `dice` (label -> value or None), `lr`, `seconds`,
            `validation_seconds`, `data_wait` (share of the training time). A panel without values is left out.
        path: the .png file.
        title: above the picture.
    """
    rows = [row for row in rows if "epoch" in row]
    panels = [panel for panel in (_losses(rows), _dice(rows), _rate(rows), _seconds(rows)) if panel[1]]
    if not panels:
        return
    picture = io.BytesIO()
    _figure(rows, panels, title).savefig(picture, format="png", dpi=110)
    files.write_bytes(path, picture.getvalue())


def _figure(rows: Sequence[Mapping[str, Any]], panels: Sequence[Panel], title: str) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 0.6 + 2.3 * len(panels)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    epochs = [row["epoch"] + 1 for row in rows]
    for axis, (name, series) in zip(axes, panels, strict=True):
        _draw_panel(axis, name, epochs, series)
    axes[-1].set_xlabel("epoch")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    if title:
        figure.suptitle(title, color=INK)
    return figure


def _draw_panel(axis: Any, name: str, epochs: list[int], series: dict[str, list[float]]) -> None:
    # a dot where a line would have no length; and to show that points are few
    marker = "." if len(epochs) <= 40 else None
    for (label, values), colour in zip(series.items(), COLOURS * (1 + len(series) // len(COLOURS)), strict=False):
        axis.plot(epochs, values, color=colour, linewidth=1.4, marker=marker, label=label)
    axis.set_ylabel(name)
    axis.grid(color=LIGHT, linewidth=0.4)
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(x=0.01)
    if name.startswith("Dice"):
        axis.set_ylim(-0.02, 1.02)
    if len(series) > 1:
        axis.legend(frameon=False, fontsize=8, ncols=min(len(series), 4))


Panel = tuple[str, dict[str, list[float]]]


def _losses(rows: Sequence[Mapping[str, Any]]) -> Panel:
    return "loss", _series(rows, {"training": "loss", "validation": "validation_loss"})


def _dice(rows: Sequence[Mapping[str, Any]]) -> Panel:
    """Dice by label, and its mean over labels where there are several."""
    labels = list(dict.fromkeys(label for row in rows for label in row.get("dice") or {}))
    series = {label: [_number((row.get("dice") or {}).get(label)) for row in rows] for label in labels}
    if len(labels) > 1:
        series["mean of labels"] = [_mean(values) for values in zip(*series.values(), strict=True)]
    return "Dice of patches", {label: values for label, values in series.items() if any(map(math.isfinite, values))}


def _rate(rows: Sequence[Mapping[str, Any]]) -> Panel:
    return "learning rate", _series(rows, {"learning rate": "lr"})


def _seconds(rows: Sequence[Mapping[str, Any]]) -> Panel:
    series = _series(rows, {"training": "seconds", "validation": "validation_seconds"})
    if "training" in series:
        waited = [_number(row.get("seconds")) * _number(row.get("data_wait")) for row in rows]
        if any(map(math.isfinite, waited)):
            series["waiting for data"] = waited
    return "seconds", series


def _series(rows: Sequence[Mapping[str, Any]], keys: Mapping[str, str]) -> dict[str, list[float]]:
    series = {label: [_number(row.get(key)) for row in rows] for label, key in keys.items()}
    return {label: values for label, values in series.items() if any(map(math.isfinite, values))}


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return math.fsum(finite) / len(finite) if finite else math.nan
