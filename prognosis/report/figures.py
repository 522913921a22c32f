"""Figures of the report as inline SVG: numbers in, a picture out. Nothing here knows of patients or files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autoseg.report.svg import COLOURS, LIGHT, MUTED, svg

DAYS_A_YEAR = 365.25


@dataclass(frozen=True)
class Interval:
    """A figure with its interval; `low` and `high` are nan where there is none."""

    name: str
    value: float
    low: float = float("nan")
    high: float = float("nan")
    emphasis: bool = False


def forest(rows: Sequence[Interval], *, metric: str, chance: float = 0.5, ceiling: float | None = None) -> str:
    """Models below each other with their intervals, a line where chance lies and one where the truth lies, if it is known."""

    def draw(axis: Any) -> None:
        for place, row in enumerate(rows):
            colour = COLOURS[0] if row.emphasis else MUTED
            if np.isfinite([row.low, row.high]).all():
                axis.plot([row.low, row.high], [place, place], color=colour, linewidth=2.2 if row.emphasis else 1.4, solid_capstyle="butt")
            axis.plot([row.value], [place], "o", color=colour, markersize=6 if row.emphasis else 5)
        axis.axvline(chance, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
        axis.text(chance, -0.85, "chance", ha="center", va="bottom", fontsize=8, color=MUTED)
        if ceiling is not None:
            axis.axvline(ceiling, color=COLOURS[1], linewidth=1.1)
            axis.text(ceiling, -0.85, "truth", ha="center", va="bottom", fontsize=8, color=COLOURS[1])
        axis.set_yticks(range(len(rows)), [row.name for row in rows])
        axis.set_ylim(len(rows) - 0.5, -0.6)
        axis.spines["left"].set_visible(False)
        axis.tick_params(axis="y", length=0)
        axis.set_xlabel(metric)

    return _svg(draw, height=0.9 + 0.33 * len(rows))


def kaplan_meier(groups: Mapping[str, tuple[np.ndarray, np.ndarray]], *, horizon_days: float | None, title: str) -> str:
    """Survival by group with the number at risk below.

    Args:
        groups: name -> (time in days, event), patients of that group.
        horizon_days: where a dotted line is drawn.
        title: of the vertical axis.
    """
    from sksurv.nonparametric import kaplan_meier_estimator

    longest = max((float(time.max()) for time, _ in groups.values() if len(time)), default=1.0)
    ticks = np.arange(0, longest / DAYS_A_YEAR, max(1, int(longest / DAYS_A_YEAR // 8)))

    def draw(axis: Any) -> None:
        for (name, (time, event)), colour in zip(groups.items(), COLOURS, strict=False):
            if len(time) == 0:
                continue
            at, survival = kaplan_meier_estimator(np.asarray(event, bool), np.asarray(time, float))
            at, survival = np.concatenate([[0.0], at]) / DAYS_A_YEAR, np.concatenate([[1.0], survival])
            axis.step(
                at, survival, where="post", color=colour, linewidth=1.8, label=f"{name} ({len(time)} patients, {int(event.sum())} events)"
            )
            censored = np.asarray(time)[~np.asarray(event, bool)] / DAYS_A_YEAR
            axis.plot(censored, survival[np.searchsorted(at, censored, side="right") - 1], "|", color=colour, markersize=5, alpha=0.6)
        if horizon_days is not None:
            axis.axvline(horizon_days / DAYS_A_YEAR, color=MUTED, linewidth=0.9, linestyle=(0, (1, 2)))
        axis.set_ylim(0, 1.02)
        axis.set_xlim(0, longest / DAYS_A_YEAR)
        axis.set_xticks(ticks)
        axis.set_ylabel(title)
        axis.set_xlabel("years")
        axis.legend(frameon=False, fontsize=8, loc="upper right")
        _numbers_at_risk(axis, groups, ticks)

    return _svg(draw, height=3.4 + 0.22 * len(groups), bottom=0.75 + 0.24 * len(groups))


def _counted(name: str, event: np.ndarray) -> str:
    return f"{name} ({len(event)} patients, {int(np.sum(event))} events)"


def _numbers_at_risk(axis: Any, groups: Mapping[str, tuple[np.ndarray, np.ndarray]], ticks: np.ndarray) -> None:
    transform = axis.get_xaxis_transform()
    for row, ((name, (time, _)), colour) in enumerate(zip(groups.items(), COLOURS, strict=False)):
        place = -0.22 - 0.075 * row
        axis.text(-0.06, place, name, transform=axis.transAxes, ha="right", va="center", fontsize=8, color=colour)
        for tick in ticks:
            left = int((np.asarray(time) >= tick * DAYS_A_YEAR).sum())
            axis.text(tick, place, str(left), transform=transform, ha="center", va="center", fontsize=8, color=colour)


def roc(folds: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> str:
    """Receiver operating characteristic of each fold; folds with one class only are left out.

    Args:
        folds: name -> (label, score).
    """
    from sklearn.metrics import roc_curve

    def draw(axis: Any) -> None:
        axis.plot([0, 1], [0, 1], color=LIGHT, linewidth=1)
        for (name, (label, score)), colour in zip(folds.items(), COLOURS * len(folds), strict=False):
            if 0 < np.sum(label) < len(label):
                false, true, _ = roc_curve(label, score)
                axis.step(false, true, where="post", color=colour, linewidth=1.5, label=f"{name} ({len(label)})")
        axis.set_aspect("equal")
        axis.set_xlabel("1 - specificity")
        axis.set_ylabel("sensitivity")
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, fontsize=8, loc="lower right", title="test fold (patients)", title_fontsize=8)

    return _svg(draw, width=4.2, height=4.0)


def calibration(points: Mapping[str, Sequence[tuple[float, float, int]]], *, quantity: str) -> str:
    """Predicted against observed, by fold.

    Args:
        points: fold -> (mean predicted, observed, patients) of each group of patients with similar predictions.
        quantity: what is predicted, for the axes.
    """

    def draw(axis: Any) -> None:
        axis.plot([0, 1], [0, 1], color=LIGHT, linewidth=1)
        for (name, groups), colour in zip(points.items(), COLOURS * len(points), strict=False):
            if groups:
                predicted, observed, _ = zip(*groups, strict=True)
                axis.plot(predicted, observed, "o-", color=colour, linewidth=1.2, markersize=4.5, label=name)
        axis.set_xlim(-0.02, 1.02)
        axis.set_ylim(-0.02, 1.02)
        axis.set_aspect("equal")
        axis.set_xlabel(f"predicted {quantity}")
        axis.set_ylabel(f"observed {quantity}")
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, fontsize=8, loc="upper left", title="test fold", title_fontsize=8)

    return _svg(draw, width=4.2, height=4.0)


def dots(groups: Mapping[str, Sequence[float]], *, metric: str) -> str:
    """One dot a patient (without a name), one row a group, the mean as a line."""

    def draw(axis: Any) -> None:
        for row, (_, values) in enumerate(groups.items()):
            known = np.asarray([value for value in values if np.isfinite(value)])
            if known.size:
                spread = np.linspace(-0.22, 0.22, known.size) if known.size > 1 else np.zeros(1)
                axis.plot(np.sort(known), row + spread, "o", color=COLOURS[0], markersize=3.5, alpha=0.55, markeredgewidth=0)
                axis.plot([known.mean()] * 2, [row - 0.34, row + 0.34], color=COLOURS[1], linewidth=2)
        axis.set_yticks(range(len(groups)), list(groups))
        axis.set_ylim(len(groups) - 0.4, -0.6)
        axis.set_xlim(-0.02, 1.02)
        axis.spines["left"].set_visible(False)
        axis.tick_params(axis="y", length=0)
        axis.set_xlabel(metric)

    return _svg(draw, height=0.9 + 0.42 * len(groups))


def _svg(draw: Callable[[Any], None], *, width: float = 7.2, height: float, bottom: float | None = None) -> str:
    """A figure of one panel; `bottom`: inches below it, where that is not left to matplotlib."""

    def panel(figure: Any) -> None:
        axis = figure.subplots()
        axis.spines[["top", "right"]].set_visible(False)
        draw(axis)
        if bottom is None:
            figure.tight_layout()
        else:
            figure.subplots_adjust(left=0.2, right=0.98, top=0.97, bottom=bottom / height)

    return svg(panel, width=width, height=height)
