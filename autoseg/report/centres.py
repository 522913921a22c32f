"""The centres of a dataset as a picture: every case, every centre, and where a further centre may lie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from autoseg.report.svg import COLOURS, LIGHT, MUTED, svg
from planners.centres import KINDS, Spread

COLUMNS = 3
WIDTH = 9.6
"""Inches."""

MOST_DOTS = 200
"""Of a centre with more cases so many are drawn, evenly spread over their ranks."""


def draw_spreads(spreads: Sequence[Spread]) -> str:
    """One panel a measure, as an <svg> element; "" for none.

    In each panel a row a centre: a dot a case, the centre's value (drawn to the overall one where it has few cases) as a line. Where the
    centres lie apart by more than chance a band tells where a further centre may lie. Ratios are drawn on a logarithmic axis.
    """
    if not spreads:
        return ""
    centres = sorted({centre for spread in spreads for centre in spread.values})
    rows = math.ceil(len(spreads) / COLUMNS)

    def draw(figure: Any) -> None:
        axes = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
        for place, (axis, spread) in enumerate(zip(axes, spreads, strict=False)):
            _draw_panel(axis, spread, centres, named=place % COLUMNS == 0)
        for axis in axes[len(spreads) :]:
            axis.set_visible(False)
        figure.tight_layout(h_pad=1.6, w_pad=1.2)

    return svg(draw, width=WIDTH, height=rows * (1.25 + 0.2 * len(centres)))


def _draw_panel(axis: Any, spread: Spread, centres: Sequence[str], *, named: bool) -> None:
    kind = KINDS[spread.kind]
    apart = spread.between > 0
    shown = np.exp if kind.ratio else np.asarray
    if apart:
        low, high = (float(shown(spread.overall + sign * spread.reach)) for sign in (-1, 1))
        axis.axvspan(low, high, color=COLOURS[4], alpha=0.18, linewidth=0)
        axis.axvline(float(shown(spread.overall)), color=COLOURS[4], linewidth=1)
    for row, centre in enumerate(centres):
        axis.axhline(row, color=LIGHT, linewidth=0.5, zorder=0)
        if centre not in spread.values:
            continue
        ranked = np.sort(spread.values[centre])
        ranked = ranked[np.unique(np.linspace(0, len(ranked) - 1, min(len(ranked), MOST_DOTS)).round().astype(int))]
        offsets = 0.22 * np.sin(2.4 * np.arange(len(ranked)))  # apart, and the same every time
        axis.plot(shown(ranked), row + offsets, "o", color=COLOURS[0], markersize=3.2, alpha=0.55, markeredgewidth=0)
        value = float(shown(spread.centres[centre]))
        axis.plot([value, value], [row - 0.36, row + 0.36], color=COLOURS[1], linewidth=2)
    axis.set_ylim(len(centres) - 0.4, -0.6)
    axis.set_yticks(range(len(centres)), centres if named else [""] * len(centres))
    axis.tick_params(axis="y", length=0)
    axis.spines[["top", "right", "left"]].set_visible(False)
    _set_scale(axis, spread, kind.ratio)
    axis.set_title(kind.title, loc="left", fontsize=9.5, pad=14)
    told = axis.text(0, 1.04, _verdict(spread), transform=axis.transAxes, fontsize=8, color=COLOURS[1] if apart else MUTED)
    told.set_in_layout(False)
    axis.set_xlabel(kind.unit, fontsize=8, color=MUTED)


def _set_scale(axis: Any, spread: Spread, ratio: bool) -> None:
    """Limits around all that is drawn, never narrower than a factor of 1.2 (or 0.2), and about four round ticks."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    known = [value for values in spread.values.values() for value in values]
    known += [spread.overall - spread.reach, spread.overall + spread.reach]
    low, high = min(known), max(known)
    margin = max(0.06 * (high - low), 0.1 - (high - low) / 2, 0.0)
    low, high = low - margin, high + margin
    if not ratio:
        axis.set_xlim(low, high)
        axis.xaxis.set_major_locator(MaxNLocator(4))
        return
    axis.set_xscale("log")
    axis.set_xlim(math.exp(low), math.exp(high))
    axis.xaxis.set_major_locator(FixedLocator(_round_steps(math.exp(low), math.exp(high))))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))


def _round_steps(low: float, high: float) -> list[float]:
    """Round numbers between two positive ones: 1-2-5 steps where they span much, even steps where they span little; at most 5."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        steps = [digit * 10.0**decade for decade in decades for digit in digits if low <= digit * 10.0**decade <= high]
        if len(steps) <= 5:
            break
    if len(steps) >= 2:
        return steps
    size = 10.0 ** math.floor(math.log10(high - low))
    step = next(factor * size for factor in (0.2, 0.5, 1, 2, 5) if (high - low) / (factor * size) <= 5)
    return [index * step for index in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _verdict(spread: Spread) -> str:
    if spread.between == 0:
        return "alike within noise"
    apart = max(spread.means.values()) - min(spread.means.values())
    distance = f"apart by a factor of {math.exp(apart):.3g}" if KINDS[spread.kind].ratio else f"apart by {apart:.3g}"
    return f"{distance} ({apart / spread.within:.2g} SD)" if spread.within > 1e-9 else distance
