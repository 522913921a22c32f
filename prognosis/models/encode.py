"""From typed columns to a matrix: levels, imputation, missing flags and scale, every one learned from the training rows alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from prognosis.errors import PrognosisModelError

if TYPE_CHECKING:
    import pandas

SKEWED = 1.0
"""A column without negative values whose skewness exceeds this is put on a logarithmic scale."""

INDICATOR_SCALE = 0.5
"""What indicators are divided by: the standard deviation of an even split. A rare level is then shrunk more than a common one."""

CONSTANT = 1e-9
"""A column counts as constant when its standard deviation is below this share of its largest absolute value."""

BEYOND = 0.1
"""How far past the training patients' range, as a share of it, a number still counts as inside."""


@dataclass(frozen=True)
class Numeric:
    """A column of numbers; (value - mean) / sd after imputation and, where `log_unit` is given, log(1 + value / log_unit).

    Attributes:
        median: of the training rows that have a value, in the column's unit; stands for a missing value.
        log_unit: the tenth percentile of the positive training values, or None for a column that keeps its scale.
        mean, sd: of the training rows, imputed and on the scale used.
        low, high: the training rows' range.
    """

    name: str
    median: float
    log_unit: float | None
    mean: float
    sd: float
    low: float
    high: float

    def matrix(self, frame: pandas.DataFrame) -> np.ndarray:
        values = numbers(frame, self.name)
        scaled = (self._transformed(np.where(np.isnan(values), self.median, values)) - self.mean) / self.sd
        return scaled[:, None]

    def _transformed(self, values: np.ndarray) -> np.ndarray:
        return values if self.log_unit is None else np.log1p(np.maximum(values, 0.0) / self.log_unit)


@dataclass(frozen=True)
class Levels:
    """A column of levels; one indicator for each level but the commonest. A missing or unknown level is the training rows' average."""

    name: str
    levels: tuple[str, ...]
    means: tuple[float, ...]
    reference: str

    def matrix(self, frame: pandas.DataFrame) -> np.ndarray:
        values = texts(frame, self.name)
        indicators = np.array([values == level for level in self.levels], dtype=float).T.reshape(len(values), len(self.levels))
        known = np.isin(values, [*self.levels, self.reference])
        return np.where(known[:, None], (indicators - np.array(self.means)) / INDICATOR_SCALE, 0.0)


@dataclass(frozen=True)
class MissingFlag:
    """An indicator that a value is missing in any of the columns that were always missing together in the training rows."""

    columns: tuple[str, ...]
    mean: float

    def matrix(self, frame: pandas.DataFrame) -> np.ndarray:
        missing = np.any([absent(frame, column) for column in self.columns], axis=0)
        return ((missing - self.mean) / INDICATOR_SCALE)[:, None]


@dataclass(frozen=True)
class Encoder:
    """What the training rows taught about each column.

    Attributes:
        parts: one a usable column, then the missing flags, in the order of the matrix's columns.
        dropped: unusable columns with the reason.
    """

    parts: tuple[Numeric | Levels | MissingFlag, ...]
    dropped: Mapping[str, str]

    @staticmethod
    def fit(frame: pandas.DataFrame, kinds: Mapping[str, str], columns: Sequence[str]) -> Encoder:
        """The encoder of some training rows.

        Args:
            frame: the training rows, and no others.
            kinds: "numeric" or "categorical" by column.
            columns: those to encode.
        """
        parts: list[Numeric | Levels | MissingFlag] = []
        dropped: dict[str, str] = {}
        for column in columns:
            if absent(frame, column).all():
                dropped[column] = "no training patient has a value"
                continue
            part = _numeric(frame, column) if kinds[column] == "numeric" else _levels(frame, column)
            if part is None:
                dropped[column] = "all training patients have the same value"
            else:
                parts.append(part)
        usable = [column for column in columns if dropped.get(column) != "no training patient has a value"]
        return Encoder((*parts, *_missing_flags(frame, usable)), dropped)

    @property
    def names(self) -> tuple[str, ...]:
        """What each column of the matrix holds."""
        names: list[str] = []
        for part in self.parts:
            if isinstance(part, Numeric):
                names.append(part.name)
            elif isinstance(part, Levels):
                names += [f"{part.name}={level}" for level in part.levels]
            else:
                names.append("missing: " + ", ".join(part.columns))
        return tuple(names)

    @property
    def sources(self) -> tuple[str | None, ...]:
        """Which column of the frame each column of the matrix comes from; None for a missing flag."""
        found: list[str | None] = []
        for part in self.parts:
            if isinstance(part, MissingFlag):
                found.append(None)
            else:
                found += [part.name] * (len(part.levels) if isinstance(part, Levels) else 1)
        return tuple(found)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that a frame must have."""
        needed: dict[str, None] = {}
        for part in self.parts:
            needed |= dict.fromkeys(part.columns if isinstance(part, MissingFlag) else (part.name,))
        return tuple(needed)

    def matrix(self, frame: pandas.DataFrame) -> np.ndarray:
        """The rows as numbers, shape (len(frame), len(names)).

        Raises:
            PrognosisModelError: the frame lacks a column.
        """
        if lacking := [column for column in self.columns if column not in frame.columns]:
            raise PrognosisModelError(
                f"the model needs the columns {', '.join(lacking)}, which these patients lack. Give them, blank where a value is missing"
            )
        return np.hstack([np.empty((len(frame), 0)), *(part.matrix(frame) for part in self.parts)])

    def outside(self, frame: pandas.DataFrame) -> list[tuple[str, ...]]:
        """What no training patient showed, by patient, in words: numbers out of range, unknown levels, values that were never missing."""
        flagged = {column for part in self.parts if isinstance(part, MissingFlag) for column in part.columns}
        found: list[list[str]] = [[] for _ in range(len(frame))]
        for part in self.parts:
            if not isinstance(part, MissingFlag):
                for row, words in _outside(part, frame, part.name in flagged):
                    found[row].append(words)
        return [tuple(words) for words in found]

    def state(self) -> dict[str, Any]:
        """Everything learned, as JSON."""
        return {"parts": [{"part": type(part).__name__, **asdict(part)} for part in self.parts], "dropped": dict(self.dropped)}

    @staticmethod
    def from_state(state: Mapping[str, Any]) -> Encoder:
        """The encoder whose `state` this was."""
        kinds: dict[str, Any] = {"Numeric": Numeric, "Levels": Levels, "MissingFlag": MissingFlag}
        parts = []
        for entry in state["parts"]:
            values = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items() if key != "part"}
            parts.append(kinds[entry["part"]](**values))
        return Encoder(tuple(parts), dict(state["dropped"]))


def numbers(frame: pandas.DataFrame, column: str) -> np.ndarray:
    """A column as floats; nan where it is missing or infinite."""
    values = frame[column].to_numpy(dtype=float, na_value=np.nan)
    return np.where(np.isfinite(values), values, np.nan)


def texts(frame: pandas.DataFrame, column: str) -> np.ndarray:
    """A column's levels as text; None where it is missing."""
    missing = frame[column].isna().to_numpy()
    values = [None if gone else str(value) for gone, value in zip(missing, frame[column], strict=True)]
    return np.array(values, dtype=object)


def absent(frame: pandas.DataFrame, column: str) -> np.ndarray:
    """Whether a column has no usable value, by row."""
    if frame[column].dtype.kind in "fiub":
        return np.isnan(numbers(frame, column))
    return frame[column].isna().to_numpy(dtype=bool)


def _numeric(frame: pandas.DataFrame, column: str) -> Numeric | None:
    values = numbers(frame, column)
    present = values[~np.isnan(values)]
    median = float(np.median(present))
    unit = float(np.quantile(present[present > 0], 0.1)) if _is_skewed(present) else None
    raw = Numeric(column, median, unit, 0.0, 1.0, float(present.min()), float(present.max()))
    scaled = raw.matrix(frame)[:, 0]
    sd = float(scaled.std())
    if sd <= CONSTANT * max(float(np.abs(scaled).max()), 1e-300):
        return None
    return Numeric(column, median, unit, float(scaled.mean()), sd, raw.low, raw.high)


def _is_skewed(values: np.ndarray) -> bool:
    sd = values.std()
    if values.min() < 0 or sd <= CONSTANT * np.abs(values).max() or len(np.unique(values)) < 3:
        return False
    return bool((((values - values.mean()) / sd) ** 3).mean() > SKEWED)


def _levels(frame: pandas.DataFrame, column: str) -> Levels | None:
    values = texts(frame, column)
    present = values[~absent(frame, column)]
    found = sorted(set(present))
    if len(found) < 2:
        return None
    reference = max(found, key=lambda level: int((present == level).sum()))
    levels = tuple(level for level in found if level != reference)
    return Levels(column, levels, tuple(float((present == level).mean()) for level in levels), reference)


def _missing_flags(frame: pandas.DataFrame, columns: Sequence[str]) -> list[MissingFlag]:
    """One flag for each pattern: thirty features of one empty mask would otherwise count as thirty flags."""
    patterns: dict[bytes, list[str]] = {}
    for column in columns:
        missing = absent(frame, column)
        if missing.any():
            patterns.setdefault(missing.tobytes(), []).append(column)
    return [MissingFlag(tuple(names), float(absent(frame, names[0]).mean())) for names in patterns.values()]


def _outside(part: Numeric | Levels, frame: pandas.DataFrame, may_miss: bool) -> list[tuple[int, str]]:
    found = []
    for row, missing in enumerate(absent(frame, part.name)):
        if missing and not may_miss:
            found.append((row, f"{part.name} is missing, which it was for no training patient"))
    if isinstance(part, Levels):
        known = {*part.levels, part.reference}
        for row, value in enumerate(texts(frame, part.name)):
            if value is not None and value not in known:
                found.append((row, f"{part.name} is {value}; the training patients had {', '.join(sorted(known))}"))
        return found
    margin = BEYOND * (part.high - part.low)
    for row, number in enumerate(numbers(frame, part.name)):
        if number < part.low - margin or number > part.high + margin:
            found.append((row, f"{part.name} is {number:.4g}; the training patients had {part.low:.4g} to {part.high:.4g}"))
    return found
