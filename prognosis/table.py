"""A clinical table as people save it: its cells as text, each with the row that a user finds it in; nothing is guessed or dropped."""

from __future__ import annotations

import codecs
import csv
import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autoseg.dataset.case import list_names
from prognosis.errors import CohortError, together

if TYPE_CHECKING:
    import pandas as pd

DELIMITERS = (",", ";", "\t", "|")
BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
OTHER_FORMATS = ((b"PK\x03\x04", "an Excel workbook (.xlsx) or an archive"), (b"\xd0\xcf\x11\xe0", "an Excel workbook (.xls)"))


@dataclass(frozen=True, eq=False)
class Table:
    """A table as text.

    Args:
        path: for messages.
        frame: a row a record, cells as str without spaces around them, "" where nothing stands.
        rows: the number of each record as a spreadsheet shows it; the (last) line of names is one above the first record's.
        notes: what a user should know about how the file was read.
    """

    path: Path
    frame: pd.DataFrame
    rows: tuple[int, ...]
    notes: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.frame.columns)


def read_table(path: str | Path, *, delimiter: str | None = None, encoding: str | None = None, header_rows: int = 1) -> Table:
    """The table in a text file: commas, semicolons, tabs or bars; UTF-8 with or without byte-order mark, UTF-16, else Windows-1252.

    Args:
        delimiter: None: the one that makes most columns of the first line.
        encoding: None: by the file's first bytes.
        header_rows: how many lines name the columns; their parts are joined with "/".

    Raises:
        CohortError: no text, no columns, a column without a name or with another's, rows of other lengths than the header.
    """
    path = Path(path)
    text, notes = _decode(path, encoding)
    delimiter = delimiter or _delimiter(text)
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise CohortError(f"{path}: is no valid CSV: {error}. Save the table anew as 'CSV UTF-8'") from None
    if len(lines) < header_rows or not any(cell.strip() for cell in lines[0]):
        raise CohortError(f"{path}: is empty: its first line must name the columns")
    names = _names(lines[:header_rows])
    records = [
        (number, [cell.strip() for cell in cells])
        for number, cells in enumerate(lines[header_rows:], start=header_rows + 1)
        if any(cell.strip() for cell in cells)
    ]
    names, records = _without_empty_columns(names, records)
    problems = [*_name_problems(names, header_rows), *_length_problems(records, len(names), delimiter)]
    if not records:
        problems.append("has no row below the names of the columns")
    if problems:
        raise CohortError(f"{path}: {together(problems)}")
    import pandas as pd

    frame = pd.DataFrame([cells for _, cells in records], columns=pd.Index(names, dtype=object), dtype=object)
    return Table(path, frame, tuple(number for number, _ in records), tuple(notes))


def _decode(path: Path, encoding: str | None) -> tuple[str, list[str]]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CohortError(f"{path}: cannot be read: {error.strerror}") from None
    for signature, what in OTHER_FORMATS:
        if content.startswith(signature):
            raise CohortError(f"{path}: is {what}, no text. Save the sheet as 'CSV UTF-8'")
    chosen = encoding or next((name for mark, name in BYTE_ORDER_MARKS if content.startswith(mark)), "utf-8")
    notes: list[str] = []
    try:
        text = content.decode(chosen)
    except UnicodeDecodeError as error:
        if encoding or chosen != "utf-8":
            raise CohortError(f"{path}: is no {chosen} text (byte {error.start}). Save it as 'CSV UTF-8'") from None
        text = _decode_windows(path, content, error.start)
        notes.append(f"{path.name}: is no UTF-8 text; it was read as Windows-1252 (name another as encoding under [table])")
    if "\0" in text:
        raise CohortError(f"{path}: holds zero bytes, so it is no text in {chosen}. Save it as 'CSV UTF-8'")
    return text.removeprefix("\ufeff"), notes


def _decode_windows(path: Path, content: bytes, where: int) -> str:
    try:
        return content.decode("cp1252")
    except UnicodeDecodeError:
        raise CohortError(
            f"{path}: is neither UTF-8 (byte {where}) nor Windows-1252 text. Save it as 'CSV UTF-8', or name its encoding in cohort.toml:\n"
            '  [table]\n  encoding = "..."'
        ) from None


def _delimiter(text: str) -> str:
    first = io.StringIO(text, newline="").readline().rstrip("\r\n")
    widths = {mark: len(next(csv.reader([first], delimiter=mark), [])) for mark in DELIMITERS}
    return max(DELIMITERS, key=lambda mark: widths[mark])


def _names(lines: list[list[str]]) -> list[str]:
    if len(lines) == 1:
        return [cell.strip() for cell in lines[0]]
    width = max(map(len, lines))
    padded = [[*line, *[""] * (width - len(line))] for line in lines]
    return ["/".join(part.strip() for part in parts if part.strip()) for parts in zip(*padded, strict=True)]


def _without_empty_columns(names: list[str], records: list[tuple[int, list[str]]]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Without the columns at the right end that have neither name nor value, which spreadsheets leave behind."""
    width = len(names)
    while width > 1 and not names[width - 1] and not any(cell for _, cells in records for cell in cells[width - 1 :]):
        width -= 1
    if width == len(names):
        return names, records
    return names[:width], [(number, cells[:width]) for number, cells in records]


def _name_problems(names: list[str], header_rows: int) -> list[str]:
    problems = []
    unnamed = [str(index) for index, name in enumerate(names, start=1) if not name]
    if unnamed:
        problems.append(f"column(s) {list_names(unnamed)} of {len(names)} have no name. Name them, or take them out")
    twice = [name for name, count in Counter(names).items() if name and count > 1]
    if twice:
        several = " or, where several lines name the columns, say under [table] in cohort.toml: header_rows = 3" if header_rows == 1 else ""
        problems.append(f"the column(s) {list_names(map(repr, twice))} stand more than once. Give each its own name{several}")
    return problems


def _length_problems(records: list[tuple[int, list[str]]], width: int, delimiter: str) -> list[str]:
    wrong = [(number, len(cells)) for number, cells in records if len(cells) != width]
    if not wrong:
        return []
    shown = list_names(f"row {number} ({length})" for number, length in wrong)
    longer = any(length > width for _, length in wrong)
    hint = " Numbers with decimal commas? Then save it with semicolons between the columns" if longer and delimiter == "," else ""
    return [f"{len(wrong)} row(s) do not have the header's {width} fields: {shown}.{hint}"]
