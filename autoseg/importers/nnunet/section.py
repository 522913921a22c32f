"""Typed access to parts of a JSON document that somebody else wrote; a wrong or missing value is named with its place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autoseg.errors import ModelError

_MISSING = object()


@dataclass(frozen=True)
class Section:
    """A JSON object and where it stands, for messages ("FOLDER/plans.json: configuration 2d").

    Each method returns the field of that name, or `default` where there is none and one is given. All raise ModelError otherwise.
    """

    values: Mapping[str, Any]
    where: str

    @staticmethod
    def of(value: Any, where: str) -> Section:
        """The section that a value makes; ModelError where it is no object."""
        if not isinstance(value, dict):
            raise ModelError(f"{where}: must be an object, found {_shown(value)}")
        return Section(value, where)

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def take(self, name: str, default: Any = _MISSING) -> Any:
        """Any value."""
        value = self.values.get(name, default)
        if value is _MISSING:
            raise ModelError(f"{self.where}: {name!r} is missing. These are not the files of a model that nnU-Net v2 trained, or not all")
        return value

    def text(self, name: str, default: Any = _MISSING) -> str:
        """A text."""
        value = self.take(name, default)
        if not isinstance(value, str):
            raise self.wrong(name, "a text", value)
        return value

    def flag(self, name: str, default: Any = _MISSING) -> bool:
        """True or false."""
        value = self.take(name, default)
        if not isinstance(value, bool):
            raise self.wrong(name, "true or false", value)
        return value

    def number(self, name: str, default: Any = _MISSING) -> float:
        """A finite number."""
        value = self.take(name, default)
        if not _is_number(value):
            raise self.wrong(name, "a number", value)
        return float(value)

    def whole(self, name: str, default: Any = _MISSING) -> int:
        """A whole number of 1 or more."""
        value = self.take(name, default)
        if not _is_whole(value):
            raise self.wrong(name, "a whole number of 1 or more", value)
        return int(value)

    def section(self, name: str, default: Any = _MISSING) -> Section:
        """An object."""
        return Section.of(self.take(name, default), f"{self.where}: {name}")

    def sequence(self, name: str, length: int | None = None) -> list[Any]:
        """A list, of `length` entries where that is told."""
        value = self.take(name)
        if not isinstance(value, list) or length not in (None, len(value)):
            raise self.wrong(name, "a list" if length is None else f"a list of {length} entries", value)
        return value

    def numbers(self, name: str, length: int | None = None) -> tuple[float, ...]:
        """A list of finite numbers."""
        value = self.sequence(name, length)
        if not all(_is_number(item) for item in value):
            raise self.wrong(name, "a list of numbers", value)
        return tuple(float(item) for item in value)

    def wholes(self, name: str, length: int | None = None) -> tuple[int, ...]:
        """A list of whole numbers of 1 or more; where `length` is told, one such number also stands for that many."""
        value = self.take(name)
        if length is not None and _is_whole(value):
            return (int(value),) * length
        value = self.sequence(name, length)
        if not all(_is_whole(item) for item in value):
            raise self.wrong(name, "a list of whole numbers of 1 or more", value)
        return tuple(int(item) for item in value)

    def whole_tuples(self, name: str, length: int, dimension: int) -> tuple[tuple[int, ...], ...]:
        """`length` lists of `dimension` whole numbers; one number stands for a whole list, and one for all of them."""
        value = self.take(name)
        rows = [value] * length if _is_whole(value) else self.sequence(name, length)
        made = [[row] * dimension if _is_whole(row) else row for row in rows]
        if not all(isinstance(row, list) and len(row) == dimension and all(_is_whole(item) for item in row) for row in made):
            raise self.wrong(name, f"{length} lists of {dimension} whole numbers of 1 or more", value)
        return tuple(tuple(int(item) for item in row) for row in made)

    def wrong(self, name: str, wanted: str, found: Any) -> ModelError:
        """The error that says what a field must be."""
        return ModelError(f"{self.where}: {name!r} must be {wanted}, found {_shown(found)}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return _is_number(value) and float(value).is_integer() and value >= 1


def _shown(value: Any, longest: int = 120) -> str:
    text = repr(value)
    return text if len(text) <= longest else text[:longest] + "..."
