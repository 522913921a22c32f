"""What became of one case."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from autoseg.errors import AutosegError, WorkerError

T = TypeVar("T")


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What became of one case: its value, or the error that stands in the place of one."""

    name: str
    value: T | None = None
    error: AutosegError | None = None


def unexpected(name: str, text: str) -> WorkerError:
    """The error of a case whose exception is nothing that a user can mend, with its traceback."""
    return WorkerError(f"case {name}: an error that autoseg did not expect; please report it with these lines:\n{text.rstrip()}")
