"""Cells of a table become numbers or levels, or an error that names the row: dates, decimal commas and stray text are never guessed at."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prognosis.columns import Kind
from prognosis.errors import CohortError

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
DECIMAL_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+")
DATE = re.compile(
    r"""( [0-9]{4}[-/.][0-9]{1,2}[-/.][0-9]{1,2}                                # 2008-06-12
        | [0-9]{1,2}[-/.\ ]([0-9]{1,2}|[A-Za-z]{3,9})[-/.\ ]([0-9]{2}){1,2}   # 12/6/08, 12 June 2008
        | [0-9]{1,2}/[0-9]{4}                                                # 6/2008
        ) ([T\ ][0-9]{1,2}:[0-9]{2}.*)?""",
    re.VERBOSE,
)
MISSING = frozenset({"", "na", "n/a", "nan", "#n/a", "null", "?", "."})
"""Cells without a value, in small letters. "-", "none" and "unknown" are not among them: they are values in some columns."""
TRUTH = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}
MOST_LEVELS = 20
SHOWN = 3


@dataclass(frozen=True, eq=False)
class Column:
    """A column's cells and how to name them in a message.

    Args:
        name: of the column.
        cells: its texts.
        labels: of the same length: what names a row, such as "row 5 (patient CHUM-003)".
        source: the table.
        decimal: "." or ",".
        missing: further words for a missing value.
    """

    name: str
    cells: Sequence[str]
    labels: Sequence[str]
    source: Path
    decimal: str = "."
    missing: tuple[str, ...] = ()

    @property
    def known(self) -> np.ndarray:
        """Where a value stands, shape (rows,)."""
        words = MISSING | {word.casefold() for word in self.missing}
        return np.array([cell.casefold() not in words for cell in self.cells], dtype=bool)

    def error(self, wrong: Sequence[int], what: str, remedy: str) -> CohortError:
        """An error that shows the first of the wrong cells."""
        shown = "; ".join(f"{self.labels[index]}: {self.cells[index]!r}" for index in wrong[:SHOWN])
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        return CohortError(f"{self.source}: column {self.name!r}: {what}: {shown}{more}. {remedy}")


def numbers(column: Column, wanted: str = "a number", *, truth_words: bool = False) -> np.ndarray:
    """A column's numbers as float64, nan where no value stands.

    Args:
        wanted: what a cell should hold, for messages.
        truth_words: whether true, yes, false and no are 1 and 0.

    Raises:
        CohortError: a cell holds something else; says whether it is a date, a decimal comma or text.
    """
    known = column.known
    result = np.full(len(column.cells), np.nan)
    wrong = []
    for index in np.flatnonzero(known):
        cell = column.cells[index]
        if truth_words and cell.casefold() in TRUTH:
            result[index] = TRUTH[cell.casefold()]
        elif is_number(cell, column.decimal):
            result[index] = float(cell.replace(",", "."))
        else:
            wrong.append(int(index))
    if wrong:
        raise column.error(wrong, *_not_numbers([column.cells[index] for index in wrong], wanted, column.decimal))
    if not np.all(np.isfinite(result[known])):
        raise column.error(np.flatnonzero(known & ~np.isfinite(result)).tolist(), "too large for a number", "Correct the table")
    return result


def is_number(cell: str, decimal: str = ".") -> bool:
    """Whether a cell is a number in a table with that decimal mark."""
    if decimal == ",":
        return "." not in cell and NUMBER.fullmatch(cell.replace(",", ".")) is not None
    return NUMBER.fullmatch(cell) is not None


def _not_numbers(cells: Sequence[str], wanted: str, decimal: str) -> tuple[str, str]:
    """What is wrong with cells that are no numbers, and the remedy."""
    if any(DATE.fullmatch(cell) for cell in cells):
        return f"holds dates where {wanted} is due", "Give the difference between two dates as a number in a column of its own"
    if decimal == "." and any(DECIMAL_COMMA.fullmatch(cell) for cell in cells):
        return f'holds decimal commas where {wanted} with a "." is due', 'Say under [table] in cohort.toml: decimal = ","'
    if decimal == "," and any(NUMBER.fullmatch(cell) for cell in cells):
        return "holds decimal points, and cohort.toml says decimal commas", 'Use one mark in the whole table, and say which: decimal = "."'
    return (
        f"holds text where {wanted} is due",
        'Correct it; or say in cohort.toml that it stands for a missing value ([table] missing = ["..."]), '
        'or that the column holds levels ({ role = "predictor", kind = "categorical" })',
    )


def infer_kind(column: Column) -> Kind:
    """Whether an undeclared column holds numbers (or truth words) or levels, by its values; numeric where it has none.

    Raises:
        CohortError: it holds dates, or mostly numbers with text among them: both readings would be a guess.
    """
    known = np.flatnonzero(column.known).tolist()
    cells = [column.cells[index] for index in known]
    if all(is_number(cell, column.decimal) or cell.casefold() in TRUTH for cell in cells):
        return "numeric"
    dates = [index for index, cell in zip(known, cells, strict=True) if DATE.fullmatch(cell)]
    if 2 * len(dates) >= len(cells):
        raise column.error(
            dates,
            "holds dates, which are no predictor",
            "Give the difference between two dates as a number in a column of its own, and take this one's role away",
        )
    numeric = sum(NUMBER.fullmatch(cell) is not None or DECIMAL_COMMA.fullmatch(cell) is not None for cell in cells)
    if 2 * numeric >= len(cells):
        wrong = [index for index, cell in zip(known, cells, strict=True) if not is_number(cell, column.decimal)]
        what, remedy = _not_numbers([column.cells[index] for index in wrong], "a number", column.decimal)
        raise column.error(wrong, f"{numeric} of {len(cells)} values are numbers; it {what}", remedy)
    return "categorical"


def level(cell: str) -> str:
    """A level as it is compared: spaces within are single, and a whole number has no decimals ("1.0" is "1")."""
    text = " ".join(cell.split())
    if NUMBER.fullmatch(text) and float(text).is_integer() and abs(float(text)) < 1e15:
        return str(int(float(text)))
    return text


def levels(column: Column, known_levels: Sequence[str] = ()) -> tuple[np.ndarray, tuple[str, ...]]:
    """A column's levels as an object array with None where no value stands, and notes.

    Spellings that differ in capitals are one level: that of `known_levels`, else the most frequent one; a note says so.

    Args:
        known_levels: of the patients that a model was fitted on.

    Raises:
        CohortError: more than 20 levels, as free text and identifiers have.
    """
    known = column.known
    texts = [level(cell) if there else None for cell, there in zip(column.cells, known, strict=True)]
    spelt: dict[str, Counter[str]] = defaultdict(Counter)
    for text in texts:
        if text is not None:
            spelt[text.casefold()][text] += 1
    if len(spelt) > MOST_LEVELS and not known_levels:
        raise CohortError(
            f"{column.source}: column {column.name!r}: has {len(spelt)} different values in {int(known.sum())} rows, as free text and "
            f"identifiers do; at most {MOST_LEVELS} make levels. Group them in a column of its own, or take its role away in cohort.toml"
        )
    chosen = {folded: min(counts, key=lambda text: (-counts[text], text)) for folded, counts in spelt.items()}
    chosen |= {text.casefold(): text for text in known_levels}
    notes = tuple(
        f"{column.name}: {' and '.join(map(repr, sorted(counts)))} are taken as one level" for counts in spelt.values() if len(counts) > 1
    )
    values = np.empty(len(texts), dtype=object)
    values[:] = [None if text is None else chosen[text.casefold()] for text in texts]
    return values, notes


def typed(
    column: Column, kind: Kind | None, known_levels: Mapping[str, Sequence[str]] | None = None
) -> tuple[np.ndarray, Kind, tuple[str, ...]]:
    """A predictor's values (float64 with nan, or object with None), its kind, and notes.

    Args:
        kind: None: its values decide.

    Raises:
        CohortError: as `numbers`, `levels` and `infer_kind`.
    """
    kind = kind or infer_kind(column)
    if kind == "numeric":
        return numbers(column, truth_words=True), kind, ()
    values, notes = levels(column, (known_levels or {}).get(column.name, ()))
    return values, kind, notes
