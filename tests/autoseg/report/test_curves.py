import numpy as np
import pytest

from autoseg.report.curves import _dice, _figure, _losses, _seconds, write_learning_curve

matplotlib_image = pytest.importorskip("matplotlib.image", reason="install matplotlib")

ROWS = [
    {
        "epoch": 0,
        "lr": 0.01,
        "loss": 0.9,
        "validation_loss": 0.8,
        "dice": {"tumour": 0.1, "node": None},
        "seconds": 10.0,
        "validation_seconds": 1.0,
        "data_wait": 0.2,
    },
    {
        "epoch": 1,
        "lr": 0.009,
        "loss": 0.5,
        "validation_loss": 0.6,
        "dice": {"tumour": 0.5, "node": 0.3},
        "seconds": 8.0,
        "validation_seconds": 1.0,
        "data_wait": 0.1,
    },
]


def test_draws_a_picture(tmp_path):
    path = tmp_path / "progress.png"
    write_learning_curve(ROWS, path, title="fold 0")
    picture = matplotlib_image.imread(path)
    assert picture.ndim == 3
    assert min(picture.shape[:2]) > 300
    # lines are drawn: colours other than grey
    assert np.ptp(picture[..., :3], axis=2).max() > 0.3
    assert [item.name for item in tmp_path.iterdir()] == ["progress.png"]


def test_epochs_are_whole_numbers():
    ticks = _figure(ROWS, [_losses(ROWS)], "").axes[-1].get_xticks()
    assert all(tick == round(tick) for tick in ticks)


def test_what_goes_into_the_panels():
    assert _losses(ROWS)[1] == {"training": [0.9, 0.5], "validation": [0.8, 0.6]}
    dice = _dice(ROWS)[1]
    assert dice["tumour"] == [0.1, 0.5]
    assert np.isnan(dice["node"][0])
    assert dice["mean of labels"] == pytest.approx([0.1, 0.4])
    assert _seconds(ROWS)[1]["waiting for data"] == pytest.approx([2.0, 0.8])


@pytest.mark.parametrize(
    "rows", [[{"epoch": 0, "loss": 1.0}], [{"epoch": 3, "lr": 0.1, "loss": float("nan")}], [{"epoch": 0, "loss": 1.0, "dice": {"1": None}}]]
)
def test_rows_with_little_in_them(tmp_path, rows):
    write_learning_curve(rows, tmp_path / "p.png")
    assert (tmp_path / "p.png").exists()


def test_no_rows_no_picture(tmp_path):
    write_learning_curve([], tmp_path / "p.png")
    assert not (tmp_path / "p.png").exists()
