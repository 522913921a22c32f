import pytest

from autoseg.durations import duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.004, "1 s"),
        (0.9, "1 s"),
        (1.4, "1 s"),
        (45.4, "45 s"),
        (89, "89 s"),
        (91, "2 min"),
        (720, "12 min"),
        (3569, "59 min"),
        (3599, "1 h 0 min"),
        (12000, "3 h 20 min"),
        (360000, "100 h 0 min"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
