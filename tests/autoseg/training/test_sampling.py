"""Frequencies of what patches are centred on, beside shares worked out by hand; binomial tolerances of many draws."""

from collections import Counter

import numpy as np
import pytest

from autoseg.errors import TrainingError
from autoseg.preprocessing.lesion_locations import lesion_locations, lesions_of
from autoseg.preprocessing.prepare import CaseProperties, Prepared, StoredGeometry
from autoseg.preprocessing.store import ANNOTATED, add_lesions, case_damage, has_lesions, open_case, write_case
from autoseg.training.sampling import ForegroundRule, draw_centre, foreground_rule
from planners.labels import LabelScheme
from planners.plan import Sampling

DRAWS = 4000
SCHEME = LabelScheme({"background": 0, "large": 1, "small": 2})
SIZES = {"first": 1, "second": 4, "third": 27}
"""Voxels of case a's three lesions of the large label; case b has 8 voxels of it, and 4 of the small one."""


def mask_a():
    mask = np.zeros((12, 12, 12), np.int8)
    mask[1, 1, 1] = 1
    mask[1, 6:8, 6:8] = 1
    mask[6:9, 6:9, 6:9] = 1
    return mask


def mask_b():
    mask = np.zeros((12, 12, 12), np.int8)
    mask[2:4, 2:4, 2:4] = 1
    mask[9, 9, 4:8] = 2
    return mask


def stored(folder, name, mask, scheme=SCHEME):
    shape, unit = mask.shape, (1.0, 1.0, 1.0)
    properties = CaseProperties(
        geometry=StoredGeometry(shape=shape, spacing=unit, origin=(0.0, 0.0, 0.0), direction=tuple(np.eye(3).ravel())),
        orientation="as_stored",
        transpose=(0, 1, 2),
        shape_before_crop=shape,
        crop_box=tuple((0, n) for n in shape),
        shape_after_crop=shape,
        shape_after_resampling=shape,
        spacing=unit,
        new_spacing=unit,
        separate_axis=None,
    )
    write_case(folder, name, Prepared(mask[None].astype(np.float32), mask, properties), scheme=scheme)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cases")
    for name, mask in (("a", mask_a()), ("b", mask_b())):
        stored(folder, name, mask)
        add_lesions(folder, name, SCHEME)
    return folder


def draws(folder, rule, *, foreground=True, cases=("a", "b")):
    """(case, voxel) of many draws, from one stream."""
    rng = np.random.default_rng(7)
    opened = {name: open_case(folder, name) for name in cases}
    found = []
    for _ in range(DRAWS):
        case, voxel = draw_centre(rng, foreground, cases, rule, opened.__getitem__)
        found.append((case.name, None if voxel is None else tuple(map(int, voxel))))
    return found


def check_shares(counted: Counter, expected: dict):
    """Each share within 4 standard deviations of a binomial; nothing else was drawn."""
    assert sum(expected.values()) == pytest.approx(1)
    assert set(counted) == {key for key, share in expected.items() if share}
    for key, share in expected.items():
        assert abs(counted[key] - DRAWS * share) <= 4 * np.sqrt(DRAWS * share * (1 - share)), key


def classes(found):
    masks = {"a": mask_a(), "b": mask_b()}
    return Counter((name, int(masks[name][voxel])) for name, voxel in found)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        # a case first, then one of its classes
        ("present", {("a", 1): 1 / 2, ("b", 1): 1 / 4, ("b", 2): 1 / 4}),
        # a class first: the small one is in b alone
        ("equal", {("a", 1): 1 / 4, ("b", 1): 1 / 4, ("b", 2): 1 / 2}),
        # 32 + 8 voxels of the large class, 4 of the small one: 1/40 and 1/4 are 1 to 10
        ("inverse_frequency", {("a", 1): 1 / 22, ("b", 1): 1 / 22, ("b", 2): 10 / 11}),
        ({"large": 3, "small": 1}, {("a", 1): 3 / 8, ("b", 1): 3 / 8, ("b", 2): 1 / 4}),
        ({"small": 2}, {("a", 1): 0, ("b", 1): 0, ("b", 2): 1}),
    ],
)
def test_classes_are_drawn_by_their_shares(folder, wanted, expected):
    rule = foreground_rule(Sampling(classes=wanted), SCHEME, folder, ("a", "b"))
    check_shares(classes(draws(folder, rule)), expected)


@pytest.mark.parametrize(
    ("exponent", "weights"),
    [(None, SIZES.values()), (1.0, SIZES.values()), (0.0, (1, 1, 1)), (0.5, (1, 2, 27**0.5)), (1 / 3, (1, 4 ** (1 / 3), 3))],
)
def test_lesions_are_drawn_by_a_power_of_their_size(folder, exponent, weights):
    rule = foreground_rule(Sampling(lesion_exponent=exponent), SCHEME, folder, ("a",))
    found = draws(folder, rule, cases=("a",))
    by_place = {1: "first", 6: "second", 7: "second"}
    counted = Counter("third" if voxel[0] >= 6 else by_place[voxel[1]] for _, voxel in found)
    check_shares(counted, dict(zip(SIZES, (w / sum(weights) for w in weights), strict=True)))
    inside = Counter(voxel for _, voxel in found if voxel[0] >= 6)
    assert len(inside) == 27, "every voxel of a lesion can be the centre"
    assert max(inside.values()) < 3 * sum(inside.values()) / 27


def test_without_forced_foreground_anything_may_be_the_centre(folder):
    found = draws(folder, ForegroundRule(), foreground=False)
    check_shares(Counter(found), {("a", None): 1 / 2, ("b", None): 1 / 2})


def test_with_an_ignore_label_centres_lie_on_what_is_annotated(tmp_path):
    scheme = LabelScheme({"background": 0, "tumour": 1, "ignore": 2})
    mask = np.full((6, 6, 6), 2, np.int8)
    mask[2, 2, 1:4] = (0, 1, -1)
    stored(tmp_path, "a", mask, scheme)
    case = open_case(tmp_path, "a")
    assert sorted(case.locations) == [1]
    np.testing.assert_array_equal(case.annotated, [[2, 2, 1], [2, 2, 2], [2, 2, 3]])
    anywhere = Counter(voxel for _, voxel in draws(tmp_path, ForegroundRule(), foreground=False, cases=("a",)))
    check_shares(anywhere, {(2, 2, 1): 1 / 3, (2, 2, 2): 1 / 3, (2, 2, 3): 1 / 3})
    assert {voxel for _, voxel in draws(tmp_path, ForegroundRule(), cases=("a",))} == {(2, 2, 2)}
    # forced foreground in a case without any: annotated background is the next best
    stored(tmp_path, "b", np.where(mask == 1, 0, mask).astype(np.int8), scheme)
    assert {voxel for _, voxel in draws(tmp_path, ForegroundRule(), cases=("b",))} == {(2, 2, 1), (2, 2, 2), (2, 2, 3)}
    stored(tmp_path, "c", np.full((6, 6, 6), 2, np.int8), scheme)
    assert {voxel for _, voxel in draws(tmp_path, ForegroundRule(), cases=("c",))} == {None}


def test_regions_are_classes_that_share_voxels(tmp_path):
    scheme = LabelScheme({"background": 0, "core": 2, "whole": (1, 2)}, (2, 1))
    stored(tmp_path, "b", mask_b(), scheme)
    case = open_case(tmp_path, "b")
    assert {number: len(places) for number, places in case.locations.items()} == {1: 4, 2: 12}, "numbered as declared"
    assert case.annotated is None
    assert ANNOTATED not in case.locations
    add_lesions(tmp_path, "b", scheme)
    table = open_case(tmp_path, "b").lesions
    assert [lesions_of(table, number).voxels.tolist() for number in (1, 2)] == [[4], [8, 4]]


def test_a_class_that_no_case_holds_is_left_out_and_said(folder, caplog):
    rule = foreground_rule(Sampling(classes="equal"), SCHEME, folder, ("a",))
    assert rule.balance.numbers == (1,)
    assert "no training case of this fold holds small" in caplog.text
    with pytest.raises(TrainingError, match="no training case of this fold holds small, and nothing else"):
        foreground_rule(Sampling(classes={"small": 1}), SCHEME, folder, ("a",))


def test_lesions_are_found_in_what_is_prepared_and_nothing_else_changes(tmp_path):
    stored(tmp_path, "b", mask_b())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert not has_lesions(tmp_path, "b")
    add_lesions(tmp_path, "b", SCHEME)
    assert has_lesions(tmp_path, "b")
    assert case_damage(tmp_path, "b") is None
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(after) - set(before) == {"b.lesions.npy"}
    assert [name for name in before if before[name] != after[name]] == ["b.json"]


def test_of_a_large_lesion_a_thousand_voxels_are_kept():
    mask = np.zeros((20, 20, 20), np.int8)
    mask[:15, :15, :15] = 1
    mask[19, 19, 19] = 1
    table = lesion_locations(mask, "a", {1: (1,)})
    large, tiny = (table[table[:, 1] == lesion] for lesion in (1, 2))
    assert (len(large), large[0, 2], len(tiny), tiny[0, 2]) == (1000, 15**3, 1, 1)
    assert len(np.unique(large, axis=0)) == 1000
    assert (mask[tuple(table[:, 3:].T)] == 1).all()
    np.testing.assert_array_equal(table, lesion_locations(mask, "a", {1: (1,)}))
    assert len(lesion_locations(mask * 0, "a", {1: (1,)})) == 0


def test_26_neighbours_make_one_lesion():
    mask = np.zeros((3, 3, 3), np.int8)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[2, 2, 2] = 1
    assert lesions_of(lesion_locations(mask, "a", {1: (1,)}), 1).voxels.tolist() == [3]
    assert lesions_of(np.empty((0, 6), np.int32), 1).voxels.tolist() == []
