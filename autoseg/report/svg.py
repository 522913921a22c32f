"""A figure as an <svg> element inside a page."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

INK, MUTED, LIGHT = "#1d2733", "#6b7785", "#d4dae1"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's palette: told apart by colour-blind readers too."""


def svg(draw: Callable[[Any], None], *, width: float, height: float) -> str:
    """The figure as an <svg> element, the same for the same numbers.

    Args:
        draw: draws into an empty matplotlib Figure.
        width, height: inches.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings = {"svg.hashsalt": "autoseg", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9.5, "text.color": INK}
    settings |= {"axes.edgecolor": MUTED, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(width, height))
        FigureCanvasSVG(figure)
        draw(figure)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = stream.getvalue()
    return text[text.index("<svg") :]
