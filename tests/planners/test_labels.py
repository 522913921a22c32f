"""Labels and regions: worked out by hand on BraTS' regions and a tumour with nodes."""

from planners.labels import LabelScheme

PLAIN = LabelScheme({"background": 0, "nodes": 2, "tumour": 1})
REGIONS = LabelScheme({"background": 0, "whole": (1, 2, 3), "core": (2, 3), "enhancing": 3, "ignore": 4}, (1, 2, 3))


def test_labels_are_classes_by_value():
    assert PLAIN.foreground == {"tumour": (1,), "nodes": (2,)}
    assert list(PLAIN.foreground) == ["tumour", "nodes"]
    assert (PLAIN.heads, PLAIN.has_regions, PLAIN.ignore) == (3, False, None)
    assert PLAIN.painted_values == PLAIN.mask_values == (0, 1, 2)


def test_regions_have_no_background_output():
    assert list(REGIONS.foreground.items()) == [("whole", (1, 2, 3)), ("core", (2, 3)), ("enhancing", (3,))]
    assert (REGIONS.heads, REGIONS.has_regions, REGIONS.ignore) == (3, True, 4)
    assert REGIONS.painted_values == (1, 2, 3)
    assert REGIONS.mask_values == (0, 1, 2, 3, 4)


def test_an_ignored_value_is_no_class():
    scheme = LabelScheme({"background": 0, "tumour": 1, "ignore": 2})
    assert (scheme.heads, scheme.ignore, scheme.painted_values, scheme.mask_values) == (2, 2, (0, 1), (0, 1, 2))
