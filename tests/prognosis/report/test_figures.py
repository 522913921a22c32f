"""Figures are sound SVG, the same for the same numbers, and show what they were given."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from prognosis.report.figures import Interval, calibration, dots, forest, kaplan_meier, roc

TIME, EVENT = np.array([100.0, 200, 300, 400, 900]), np.array([True, False, True, False, True])

FIGURES = {
    "forest": lambda: forest([Interval("a < b", 0.6, 0.5, 0.7, True), Interval("no interval", 0.5)], metric="C-index", ceiling=0.72),
    "kaplan_meier": lambda: kaplan_meier({"low": (TIME, EVENT), "none": (TIME[:0], EVENT[:0])}, horizon_days=365.0, title="survival"),
    "roc": lambda: roc({"A": (np.array([0, 1, 1]), np.array([0.1, 0.7, 0.4])), "one class": (np.array([1, 1]), np.array([0.2, 0.3]))}),
    "calibration": lambda: calibration({"A": [(0.1, 0.2, 10), (0.5, 0.4, 10)], "too small": []}, quantity="risk"),
    "dots": lambda: dots({"A": [0.5, 0.7, float("nan")], "B": []}, metric="Dice"),
}


def texts(svg):
    return " ".join("".join(element.itertext()) for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text"))


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_one_svg_element_and_always_the_same(name):
    svg = FIGURES[name]()
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert svg == FIGURES[name]()
    assert "<script" not in svg
    assert 'href="http' not in svg


def test_what_the_figures_say():
    assert "a < b" in texts(FIGURES["forest"]())
    assert "truth" in texts(FIGURES["forest"]())
    assert "truth" not in texts(forest([Interval("a", 0.6)], metric="AUC"))
    assert "one class" not in texts(FIGURES["roc"]())
    assert "A (3)" in texts(FIGURES["roc"]())
    assert "low (5 patients, 3 events)" in texts(FIGURES["kaplan_meier"]())


def test_numbers_at_risk_are_those_still_under_observation():
    # at 0, 1 and 2 years: all five, those of 400 and 900 days, the last
    written = texts(kaplan_meier({"low": (TIME, EVENT)}, horizon_days=None, title="survival")).split("years", 1)[1]
    assert "low 5 2 1" in " ".join(written.split())
