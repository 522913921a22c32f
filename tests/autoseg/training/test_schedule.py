import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.training.schedule import learning_rate, poly
from planners.plan import PolySchedule


@pytest.mark.parametrize(
    ("epoch", "epochs", "expected"),
    [(0, 1000, 0.01), (1000, 1000, 0.0), (500, 1000, 0.01 * 0.5358867312681466), (750, 1000, 0.01 * 0.28717458874925877)],
)
def test_hand_values(epoch, epochs, expected):
    assert poly(0.01, epoch, epochs) == pytest.approx(expected, rel=1e-12)


def test_exponent_of_one_is_a_straight_line():
    assert [poly(1.0, epoch, 4, exponent=1.0) for epoch in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]


def test_takes_its_exponent_from_the_plan():
    assert learning_rate(PolySchedule(exponent=2.0), 1.0, 1, 2) == 0.25


@settings(deadline=None, max_examples=50)
@given(epochs=st.integers(1, 2000), factor=st.integers(1, 5), data=st.data())
def test_depends_only_on_the_share_done_and_never_rises(epochs, factor, data):
    epoch = data.draw(st.integers(0, epochs - 1))
    assert poly(1.0, epoch, epochs) == pytest.approx(poly(1.0, factor * epoch, factor * epochs))
    assert poly(1.0, epoch + 1, epochs) < poly(1.0, epoch, epochs)


@pytest.mark.parametrize(("epoch", "epochs"), [(-1, 10), (11, 10), (0, 0)])
def test_refuses_an_epoch_outside_the_run(epoch, epochs):
    with pytest.raises(ValueError, match=f"found epoch {epoch} of {epochs}"):
        poly(0.01, epoch, epochs)
