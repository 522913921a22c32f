import pytest

from autoseg.dataset.sides import left_right_pairs, paired_axes


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
    assert paired_axes(pair) == (2,)


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
    assert paired_axes(names) == ()
