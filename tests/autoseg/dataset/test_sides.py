import pytest

from autoseg.dataset.sides import left_right_axes, left_right_pairs


@pytest.mark.parametrize(
    "pair",
    [
        ("kidney_left", "kidney_right"),
        ("Left Lung", "Right Lung"),
        ("LeftFemur", "RightFemur"),
        ("leftkidney", "rightkidney"),
        ("Parotid_L", "Parotid_R"),
        ("ParotidL", "ParotidR"),
        ("Lt optic nerve", "Rt optic nerve"),
        ("rib_left_1", "rib_right_1"),
        ("ctx-lh-insula", "ctx-rh-insula"),
        ("L", "R"),
    ],
)
def test_pairs(pair):
    assert left_right_pairs(["background", *pair, "tumour"]) == (pair,)
    assert left_right_pairs(["background", *reversed(pair)]) == (pair,)


@pytest.mark.parametrize(
    "names",
    [
        ["background", "left atrium"],
        ["background", "Anterior", "Posterior"],
        ["background", "LV", "RV"],
        ["background", "GTVp", "GTVn"],
        ["background", "liver", "tumour"],
        ["background", "kidney_left", "lung_right"],
        ["background", "rib_left_1", "rib_right_2"],
        ["background", "bright spot", "bleft"],
        [],
    ],
)
def test_no_pairs(names):
    assert left_right_pairs(names) == ()


@pytest.mark.parametrize(
    ("orientations", "axes"),
    [(["LPS"], (2,)), (["RAS", "LPI"], (2,)), (["PSL"], (0,)), (["SLA"], (1,)), (["LPS", "PSL"], (0, 2))],
)
def test_axes_between_left_and_right(orientations, axes):
    """Letters stand for x, y, z; arrays are (z, y, x)."""
    assert left_right_axes(orientations) == axes
