"""What a user can mend, as typed errors. A message names the case, the file, what was found, what was expected and the remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class AutosegError(Exception):
    """Base of every error that a user can mend; `exit_status` is what a command ends with."""

    exit_status = 2


class ImageError(AutosegError):
    """An image or mask file is broken, unreadable or of a kind that is not supported."""


class GeometryError(AutosegError):
    """Images that must share a grid do not."""


class DatasetError(AutosegError):
    """The dataset folder, its dataset.json, cases.csv or its masks are not what they must be."""


class FoldError(AutosegError):
    """A fold scheme or a file of folds does not fit the dataset."""


class PlanError(AutosegError):
    """A plan is not valid, was written by a newer release, or was edited and would be overwritten."""


class ModelError(AutosegError):
    """A model folder is incomplete, damaged or not to be trusted."""


class FoldNotFinished(ModelError):
    """A fold that is asked for is not among a model's finished ones."""


class CheckpointError(AutosegError):
    """No readable checkpoint is left where one is needed."""


class TrainingError(AutosegError):
    """Training cannot go on; the reason is the user's to mend."""


class LockError(AutosegError):
    """Another process is at work on the same fold or folder."""


class DeviceError(AutosegError):
    """The compute device that is asked for is not there."""


class ResourceError(AutosegError):
    """Memory or disk does not suffice; found before or while working."""

    exit_status = 1


class WorkerError(AutosegError):
    """A worker process died; the message tells case, signal and memory."""

    exit_status = 1


class ShiftError(AutosegError):
    """A case lies outside what training has seen, and such cases are to be refused."""


class CasesFailed(AutosegError):
    """Some cases failed and the rest is done.

    Args:
        failures: one message a failed case.
        done: how many cases were finished.
        result: what was made all the same, JSON-able.
        reported: a report that was printed already names the failures.
        by_case: the messages of those failed cases whose name is known, by name.

    Attributes:
        brief: the message for who has read that report.
    """

    exit_status = 3

    def __init__(
        self, failures: Sequence[str], done: int, result: Any = None, *, reported: bool = False, by_case: Mapping[str, str] | None = None
    ):
        self.failures = tuple(failures)
        self.by_case = dict(by_case or {})
        self.done = done
        self.result = result
        counts = f"{len(self.failures)} case{'' if len(self.failures) == 1 else 's'} failed, {done} done"
        self.brief = f"{counts}; the report names what failed" if reported else ""
        indented = (failure.replace("\n", "\n    ") for failure in self.failures)
        super().__init__("\n".join([f"{counts}:", *(f"  - {failure}" for failure in indented)]))

    def __reduce__(self) -> tuple[Any, ...]:
        return _cases_failed, (self.failures, self.done, self.result, bool(self.brief), self.by_case)


def _cases_failed(failures: Sequence[str], done: int, result: Any, reported: bool, by_case: Mapping[str, str]) -> CasesFailed:
    return CasesFailed(failures, done, result, reported=reported, by_case=by_case)
