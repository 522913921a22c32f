"""Labels and regions: worked out by hand on BraTS' regions and a tumour with nodes."""

from planners.labels import LabelScheme, scheme_problems

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


def test_what_is_painted_where_all_regions_are_found():
    # edema is in whole alone; core covers it, enhancing covers core
    assert [REGIONS.painted(value) for value in (0, 1, 2, 3)] == [0, 1, 2, 3]
    assert REGIONS.misshown() == ()
    kidney = LabelScheme({"background": 0, "kidney": (1, 2, 3), "masses": (2, 3), "tumour": 2}, (1, 3, 2))
    assert [kidney.painted(value) for value in (1, 2, 3)] == [1, 2, 3]
    assert [PLAIN.painted(value) for value in (0, 1, 2)] == [0, 1, 2]


def test_regions_that_no_order_shows():
    crossing = LabelScheme({"background": 0, "a": (1, 2), "b": (2, 3)}, (1, 3))
    assert scheme_problems(crossing.labels, crossing.region_order) == []
    assert crossing.misshown() == (("a", 2, 3),)  # b's 3 covers a where both are
    swapped = LabelScheme({"background": 0, "whole": (1, 2, 3), "core": (2, 3)}, (2, 3))
    assert swapped.misshown() == (("core", 1, 2),)  # whole is painted with a value of core


def test_plain_labels_have_no_problems():
    assert scheme_problems(PLAIN.labels) == []
    assert scheme_problems(REGIONS.labels, REGIONS.region_order) == []


def test_meaning_tells_the_order_of_regions_and_not_of_labels():
    assert PLAIN.meaning == LabelScheme(dict(reversed(PLAIN.labels.items()))).meaning
    assert REGIONS.meaning != LabelScheme(dict(reversed(REGIONS.labels.items())), REGIONS.region_order).meaning
    assert REGIONS.classes == {"whole": (1, 2, 3), "core": (2, 3), "enhancing": 3}
