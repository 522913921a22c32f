import json

import pytest

from autoseg.training.logbook import Logbook


def rows_on_disk(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_row_is_on_disk_once_it_is_added(tmp_path):
    book = Logbook(tmp_path / "logbook.jsonl", 0)
    assert rows_on_disk(book.path) == []
    for epoch in range(3):
        book.append({"epoch": epoch, "loss": 1 / 3})
        assert rows_on_disk(book.path) == book.rows == [{"epoch": e, "loss": 1 / 3} for e in range(epoch + 1)]


@pytest.mark.parametrize("done", [0, 2, 3, 9])
def test_rows_beyond_the_checkpoint_are_dropped(tmp_path, done):
    book = Logbook(tmp_path / "logbook.jsonl", 0)
    for epoch in range(3):
        book.append({"epoch": epoch})
    again = Logbook(book.path, done)
    assert [row["epoch"] for row in again.rows] == list(range(min(done, 3)))
    assert rows_on_disk(book.path) == again.rows


@pytest.mark.parametrize("torn", ['{"epoch": 1, "lo', "\n", "[1]\n", "{}\n", "\x00\x00"])
def test_torn_and_foreign_lines_are_left_out(tmp_path, torn):
    path = tmp_path / "logbook.jsonl"
    path.write_text('{"epoch": 0}\n' + torn)
    assert Logbook(path, 5).rows == rows_on_disk(path) == [{"epoch": 0}]


def test_a_row_is_copied(tmp_path):
    book = Logbook(tmp_path / "logbook.jsonl", 0)
    row = {"epoch": 0}
    book.append(row)
    row["epoch"] = 7
    assert book.rows == [{"epoch": 0}]


def test_seconds_per_epoch_are_those_of_the_last_ones_with_validation(tmp_path):
    book = Logbook(tmp_path / "logbook.jsonl", 0)
    assert book.seconds_per_epoch() is None
    book.append({"epoch": 0, "seconds": 100.0})
    assert book.seconds_per_epoch() == 100
    for epoch in range(1, 6):
        book.append({"epoch": epoch, "seconds": 2.0 * epoch, "validation_seconds": 1.0})
    assert book.seconds_per_epoch() == 7  # (2 + 4 + 6 + 8 + 10) / 5 + 1
    assert book.seconds_per_epoch(last=1) == 11
