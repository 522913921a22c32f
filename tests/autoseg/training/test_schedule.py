import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.training.schedule import cosine, learning_rate, poly
from planners.plan import CosineSchedule, PolySchedule


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


def test_cosine_hand_values():
    assert [cosine(2.0, epoch, 4) for epoch in range(5)] == pytest.approx([2.0, 1 + 0.5**0.5, 1.0, 1 - 0.5**0.5, 0.0])


def test_a_warm_up_rises_in_a_line_to_the_schedule_over_what_is_left():
    poly_ = [learning_rate(PolySchedule(exponent=1.0, warmup_epochs=3), 4.0, epoch, 7) for epoch in range(8)]
    assert poly_ == pytest.approx([1, 2, 3, 4, 3, 2, 1, 0])
    cosine_ = [learning_rate(CosineSchedule(warmup_epochs=1), 4.0, epoch, 3) for epoch in range(4)]
    assert cosine_ == pytest.approx([2, 4, 2, 0])


@pytest.mark.parametrize("schedule", [PolySchedule(), CosineSchedule()])
def test_without_a_warm_up_the_first_epoch_has_the_full_rate(schedule):
    assert learning_rate(schedule, 0.01, 0, 5) == 0.01


@settings(deadline=None, max_examples=50)
@given(epochs=st.integers(2, 300), warmup=st.integers(0, 50), kind=st.sampled_from([PolySchedule, CosineSchedule]))
def test_every_schedule_rises_while_it_warms_up_then_falls_and_stays_within_its_rate(epochs, warmup, kind):
    warmup = min(warmup, epochs - 1)
    rates = [learning_rate(kind(warmup_epochs=warmup), 1.0, epoch, epochs) for epoch in range(epochs)]
    assert all(a < b for a, b in zip(rates[:warmup], rates[1 : warmup + 1], strict=True))
    assert all(a > b for a, b in zip(rates[warmup:-1], rates[warmup + 1 :], strict=True))
    assert rates[warmup] == 1.0
    assert min(rates) > 0


def test_refuses_a_warm_up_as_long_as_the_run():
    with pytest.raises(ValueError, match="found 5 of 5 epochs"):
        learning_rate(CosineSchedule(warmup_epochs=5), 1.0, 0, 5)


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
