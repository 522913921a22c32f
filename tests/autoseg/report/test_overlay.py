import math

import numpy as np
import pytest

from autoseg.report.overlay import _joined, _outline, _planes_through, draw_overlay

matplotlib_image = pytest.importorskip("matplotlib.image", reason="install matplotlib")

LABELS = {"GTVp": 1, "GTVn": 2}
SPACING = (3.0, 1.0, 1.0)


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    images = np.stack([rng.normal(40, 10, (10, 24, 30)), rng.uniform(0, 2, (10, 24, 30))]).astype(np.float32)
    reference = np.zeros((10, 24, 30), np.uint8)
    reference[2:5, 4:10, 5:12] = 1
    reference[6:8, 15:18, 20:23] = 2
    return images, reference, np.roll(reference, 1, axis=2)


def colours(path):
    picture = matplotlib_image.imread(path)[..., :3]
    red = (picture[..., 0] > 0.8) & (picture[..., 1] < 0.45) & (picture[..., 2] < 0.45)
    blue = (picture[..., 2] > 0.8) & (picture[..., 0] < 0.3)
    return picture, int(red.sum()), int(blue.sum())


def test_draws_both_labels(case, tmp_path):
    path = tmp_path / "case.png"
    draw_overlay(path, *case, SPACING, labels=LABELS, channels=("CT", "PET"), title="a", dice={"GTVp": 0.8, "GTVn": math.nan})
    picture, red, blue = colours(path)
    assert picture.shape[1] > 600
    assert red > 200
    assert blue > 50


def test_a_region_is_drawn_around_all_its_values(case, tmp_path):
    images, reference, _ = case
    reference[2:5, 6:8, 7:9] = 2  # inside the large lesion
    found = []
    for labels in ({"a": 1}, {"a": (1, 2)}):
        draw_overlay(tmp_path / "a.png", images, reference, None, SPACING, labels=labels, channels=("CT", "PET"), title="a")
        found.append(colours(tmp_path / "a.png")[1:])
    assert found[1][0] < found[0][0], "the hole in the region is none"


def test_nothing_is_drawn_where_nothing_is(case, tmp_path):
    images, reference, _ = case
    path = tmp_path / "case.png"
    draw_overlay(path, images, 0 * reference, 0 * reference, SPACING, labels=LABELS, channels=("CT", "PET"), title="a")
    _, red, blue = colours(path)
    assert (red, blue) == (0, 0)


@pytest.mark.parametrize("missing", ["reference", "prediction", "both"])
def test_without_a_mask(case, tmp_path, missing):
    images, reference, prediction = case
    masks = {"reference": None if missing != "prediction" else reference, "prediction": None if missing != "reference" else prediction}
    draw_overlay(tmp_path / "a.png", images, **masks, spacing=SPACING, labels=LABELS, channels=("CT", "MR"), title="a")
    assert (tmp_path / "a.png").exists()


def test_a_single_slice(case, tmp_path):
    images, reference, prediction = case
    draw_overlay(
        tmp_path / "a.png", images[:, 3:4], reference[3:4], prediction[3:4], SPACING, labels=LABELS, channels=("x", "y"), title="a"
    )
    assert colours(tmp_path / "a.png")[1] > 50


def test_planes_go_through_the_largest_lesion_of_the_reference(case):
    _, reference, prediction = case
    planes = _planes_through({"reference": reference, "prediction": prediction}, LABELS)
    assert reference[planes] == 1
    assert _planes_through({"reference": 0 * reference, "prediction": prediction}, LABELS)[2] > 5
    assert _planes_through({"reference": 0 * reference}, LABELS) == (5, 12, 15)


def test_edges_are_joined_to_closed_lines():
    square = [((0, 0), (1, 0)), ((0, 1), (1, 1)), ((0, 0), (0, 1)), ((1, 0), (1, 1))]
    lines = _joined([*square, *[((a + 5, b), (c + 5, d)) for (a, b), (c, d) in square]])
    assert len(lines) == 2
    assert all(line[0] == line[-1] and len(line) == 5 for line in lines)


def test_the_outline_runs_along_the_voxels():
    inside = np.zeros((6, 8), bool)
    inside[1:4, 2:7] = True
    (line,) = _outline(inside, (2.0, 0.5))
    assert {min(p) for p in zip(*line, strict=True)} == {1.0, 2.0}
    assert [max(p) for p in zip(*line, strict=True)] == [3.5, 8.0]
    length = sum(math.dist(a, b) for a, b in zip(line, line[1:], strict=False))
    assert length == pytest.approx(2 * (3 * 2.0 + 5 * 0.5))


def test_shapes_that_do_not_fit(case, tmp_path):
    images, reference, prediction = case
    with pytest.raises(ValueError, match="2 channels"):
        draw_overlay(tmp_path / "a.png", images[:1], reference, prediction, SPACING, labels=LABELS, channels=("CT", "PET"), title="a")
