"""Early stopping: which training cases judge the weights, and by what. Never the fold's held-out cases: those must stay unseen."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from autoseg.dataset.folds import Member
from autoseg.dataset.spread import seeded_order
from autoseg.errors import TrainingError
from autoseg.training.record import RunRecord
from autoseg.training.state import TrainState
from planners.plan import EarlyStopping

logger = logging.getLogger(__name__)


def inner_part(spec: EarlyStopping, training: Sequence[str], members: Mapping[str, Member], *, seed: int, fold: str) -> tuple[str, ...]:
    """The training cases that a fold does not learn from but judges its weights on, sorted.

    All cases of a patient go together. `hold_out` "patients" takes the same share of every centre's patients, as near as whole patients
    allow; "centres" takes whole centres, until they hold that share. The draw depends on seed, fold, patients and centres, not on order.

    Args:
        training: the fold's training cases.
        members: every case's patient and centre.

    Raises:
        TrainingError: fewer than two patients (or centres) to share out.
    """
    cases: dict[str, list[str]] = defaultdict(list)
    for case in sorted(training):
        cases[members[case].patient].append(case)
    by_centre: dict[str, list[str]] = defaultdict(list)
    for patient, own in cases.items():
        by_centre[members[own[0]].centre].append(patient)
    units = by_centre if spec.hold_out == "centres" else cases
    if len(units) < 2:
        raise TrainingError(
            f"fold {fold}: early stopping needs at least two {spec.hold_out} among the training cases, to learn from one and judge by "
            f"another; found {len(units)}. Train without it: --set training.early_stopping=null"
        )
    draw = _centres if spec.hold_out == "centres" else _patients
    wanted = min(max(1, round(spec.fraction * len(cases))), len(cases) - 1)
    patients = draw(by_centre, wanted, f"{seed}/{fold}/inner")
    return tuple(sorted(case for patient in patients for case in cases[patient]))


def recorded_inner_part(
    record: RunRecord, spec: EarlyStopping | None, training: Sequence[str], members: Mapping[str, Member], *, seed: int, fold: str
) -> tuple[str, ...]:
    """The inner part that a run was begun with; for one that begins now it is drawn and recorded. Empty without early stopping."""
    if spec is None:
        return ()
    if "early_stopping" not in record.document:
        record.update(early_stopping={"inner": list(inner_part(spec, training, members, seed=seed, fold=fold)), "stopped": False})
    return tuple(record["early_stopping"]["inner"])


def choice(record: RunRecord, state: TrainState) -> dict[str, Any]:
    """What run.json says, once training has ended, of the epoch whose weights were chosen; empty without early stopping."""
    if state.chosen is None:
        return {}
    logger.info("the weights of epoch %d were chosen, after %d epochs", state.chosen.epoch + 1, state.progress.epoch)
    stopped = state.progress.epoch < record.epochs
    return {"early_stopping": record["early_stopping"] | {"epoch": state.chosen.epoch, "score": state.chosen.score, "stopped": stopped}}


def _patients(by_centre: Mapping[str, list[str]], wanted: int, key: str) -> list[str]:
    queue = []
    for patients in by_centre.values():
        drawn = sorted(patients, key=lambda patient: _order(key, patient))
        queue += [((rank + 0.5) / len(drawn), _order(key, patient), patient) for rank, patient in enumerate(drawn)]
    return [patient for *_, patient in sorted(queue)[:wanted]]


def _centres(by_centre: Mapping[str, list[str]], wanted: int, key: str) -> list[str]:
    found: list[str] = []
    for centre in sorted(by_centre, key=lambda centre: _order(key, centre))[:-1]:
        if len(found) >= wanted:
            break
        found += by_centre[centre]
    return found


def _order(key: str, name: str) -> str:
    return seeded_order(0, f"{key}/{name}")


def inner_score(spec: EarlyStopping, found: Mapping[str, Any]) -> float:
    """What the inner part says of the weights, larger is better: mean patch Dice of the labels that occur, or minus the loss.

    Raises:
        TrainingError: no label occurs, so there is no Dice.
    """
    if spec.measure == "loss":
        return -found["validation_loss"]
    values = [value for value in found.get("dice", {}).values() if value is not None]
    if not values:
        raise TrainingError(
            "early stopping: no label occurs in the patches of the inner validation part, so there is no patch Dice to judge by. "
            "Take more cases (training.early_stopping.fraction), or judge by the loss (training.early_stopping.measure)"
        )
    return sum(values) / len(values)
