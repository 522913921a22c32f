"""What run.json says of the trained weights that a run began from. Imports nothing heavy: prognosis asks it too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg import files
from autoseg.errors import TrainingError
from autoseg.inference.trained_on import TrainedOn
from autoseg.training.record import NAME as RUN_NAME

FIELD = "initial_weights"
"""In run.json."""


@dataclass(frozen=True)
class Beginning:
    """What a fold begins from, as its run.json keeps it.

    Attributes:
        identity: hash of the weights and of what their channels and outputs are.
        source: where they were, for people, and to find them again before the first checkpoint is written.
        trained_on: the images that they saw; None where they do not tell.
        accepted: whether it was asked for that they may have seen held-out cases.
        leaked: the fold's held-out cases that they have seen.
    """

    identity: str
    source: dict[str, Any]
    trained_on: TrainedOn | None
    accepted: bool = False
    leaked: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The part of run.json."""
        return {
            "identity": self.identity,
            "source": self.source,
            "trained_on": self.trained_on.to_dict() if self.trained_on else None,
            "despite_leak": self.accepted,
            "leaked": list(self.leaked),
        }


def read_beginning(folder: Path) -> Beginning | None:
    """What the run in a fold's folder began from; None for random weights, or where there is no run."""
    path = folder / RUN_NAME
    document = files.read_json(path, error=TrainingError).get(FIELD) if path.exists() else None
    if document is None:
        return None
    leaked = tuple(document["leaked"])
    return Beginning(
        document["identity"], document["source"], TrainedOn.from_dict(document["trained_on"]), document["despite_leak"], leaked
    )


def leaked_cases(folder: Path) -> tuple[str, ...]:
    """The held-out cases of a fold that its initial weights had been trained on: their masks are not out of fold."""
    beginning = read_beginning(folder)
    return beginning.leaked if beginning else ()
