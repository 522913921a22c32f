"""What a user of `prognosis` can mend, as typed errors beside those of `autoseg.errors`."""

from __future__ import annotations

from collections.abc import Sequence

from autoseg.errors import AutosegError


class CohortError(AutosegError):
    """The table, the features or the outcomes do not make a cohort; the message names patient, row and column."""


class TargetError(AutosegError):
    """A target or cohort.toml is not declared as it must be, or a column is asked for that is no predictor."""


class FitError(AutosegError):
    """A cohort does not suffice to fit or to evaluate a model."""


class FeatureError(AutosegError):
    """Features cannot be taken from a mask, or a file of features does not fit its definitions."""


class PrognosisModelError(AutosegError):
    """A prognosis model's document is incomplete, was written by a newer release, or does not fit the patients."""


class OutputsMissing(AutosegError):
    """Some of the outputs that were asked for could not be made; the others are written.

    Args:
        failures: one message an output.
        result: all outputs, JSON-able.
    """

    exit_status = 3

    def __init__(self, failures: Sequence[str], result: object = None):
        self.failures = tuple(failures)
        self.result = result
        super().__init__("\n".join([f"{len(self.failures)} output(s) are missing:", *(f"  - {failure}" for failure in self.failures)]))


def together(problems: Sequence[str]) -> str:
    """Several problems as one message, a line each."""
    if len(problems) == 1:
        return problems[0]
    return "\n".join([f"{len(problems)} problems:", *(f"  - {problem}" for problem in problems)])
