"""Figures of what was predicted besides masks: concordance of RFS, balanced accuracy of HPV status and stages."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.dataset.case import list_names
from autoseg.dataset.patients import patient_key
from autoseg.errors import DatasetError
from autoseg.evaluation.agreement import Agreement
from autoseg.evaluation.answers import HPV, N_STAGE, RELAPSE, RFS, T_STAGE, Question, known_values, number, predicted_values, stage, yes_no
from autoseg.evaluation.ranking import Pairs, concordance

SENSES = ("risk", "time")
"""Whether a higher predicted number means an earlier or a later relapse."""

CLASSES: Mapping[str, Callable[[str], str | None]] = {
    HPV.name: yes_no,
    T_STAGE.name: lambda text: stage(text, "T"),
    N_STAGE.name: lambda text: stage(text, "N"),
}
"""Question's name -> the class that a text means, or None."""


@dataclass(frozen=True)
class Answers:
    """What was predicted besides masks, and what is known.

    Args:
        places: question's name -> a table or folder; see `predicted_values`.
        outcomes: the table of what is known; None where `places` is empty.
        sense: of the predicted RFS.
    """

    places: Mapping[str, Path] = field(default_factory=dict)
    outcomes: Path | None = None
    sense: str | None = None

    def check(self) -> None:
        """Returns where nothing is missing.

        Raises:
            DatasetError: there is no table of what is known, or it is not said what a predicted RFS means.
        """
        if self.places and self.outcomes is None:
            name = next(iter(self.places))
            raise DatasetError(f"--{name}: what is known of the patients is needed too: name their table with --outcomes")
        if RFS.name in self.places and self.sense not in SENSES:
            raise DatasetError(
                "--rfs: say what a higher prediction means, with --sense risk (an earlier relapse) or --sense time (a later one)"
            )


@dataclass(frozen=True)
class AnswersScored:
    """One question's figures, what else was found (JSON-able), one message a patient without a usable prediction, and notes.

    Who has none is not left out: each comparable pair with such a patient counts one half in the C-index, as in the evaluator of the 2021
    and 2022 organisers, and the patient is a miss in a balanced accuracy.
    """

    figures: Mapping[str, float]
    details: Mapping[str, Any]
    failures: tuple[str, ...]
    notes: tuple[str, ...]


def score_answers(question: Question, answers: Answers, cases: Sequence[str]) -> AnswersScored:
    """How good the answers to one question are.

    Args:
        cases: the test set; of those, who is known to the table of outcomes counts.

    Raises:
        DatasetError: a table cannot be used or is missing, or it is not said what a predicted RFS means.
    """
    answers.check()
    assert answers.outcomes is not None
    found = _Asked.read(question, answers.places[question.name], answers.outcomes, cases)
    figures, details = _survival(found, answers.outcomes, answers.sense) if question is RFS else _classes(found)
    return AnswersScored(figures, details, tuple(found.failures), tuple(found.notes))


@dataclass(frozen=True)
class _Asked:
    """One question's answers, by patient of the test set: what is known as text, and what was predicted."""

    question: Question
    known: Mapping[str, str]
    predicted: Mapping[str, str]
    failures: list[str]
    notes: list[str]

    @staticmethod
    def read(question: Question, place: Path, outcomes: Path, cases: Sequence[str]) -> _Asked:
        known, predicted = known_values(outcomes, question), predicted_values(place, question)
        tested = {case: known[patient_key(case)] for case in cases if patient_key(case) in known}
        if not tested:
            raise DatasetError(
                f"{outcomes}: tells the {question.title} of none of the {len(cases)} cases with a reference mask: {list_names(cases)}"
            )
        said = {case: predicted[patient_key(case)] for case in tested if patient_key(case) in predicted}
        usable = {case: text for case, text in said.items() if question is not RFS or number(text) is not None}
        counts = "its pairs count one half" if question is RFS else "it counts as a miss"
        failures = [f"case {case}: no prediction of the {question.title} in {place}; {counts}" for case in tested if case not in said]
        failures += [f"case {case}: {said[case]!r} in {place} is no finite number; {counts}" for case in said if case not in usable]
        notes = []
        if len(tested) < len(cases):
            notes.append(f"{question.title}: known of {len(tested)} of the {len(cases)} cases with a reference mask, scored on those")
        if strangers := sorted(set(predicted) - {patient_key(case) for case in cases}):
            named = list_names(strangers)
            notes.append(f"{question.title}: predictions of {len(strangers)} patient(s) without a reference mask are not scored: {named}")
        return _Asked(question, tested, usable, failures, notes)


def _survival(found: _Asked, outcomes: Path, sense: str | None) -> tuple[dict[str, float], dict[str, Any]]:
    relapsed = known_values(outcomes, RELAPSE)
    times, events, risks = [], [], []
    answered = [case in found.predicted for case in found.known]
    for case, text in found.known.items():
        time, event = number(text), yes_no(relapsed.get(patient_key(case), ""))
        if time is None or event is None:
            raise DatasetError(
                f"{outcomes}: case {case}: RFS is {text!r} and Relapse {relapsed.get(patient_key(case), '')!r}; expected are a "
                "number of days, and 1 or 0"
            )
        times.append(time)
        events.append(event == "1")
        risks.append(float(found.predicted.get(case, 0.0)) * (1 if sense == "risk" else -1))
    rows = np.flatnonzero(answered)
    ranked = concordance(*(np.asarray(values)[rows] for values in (times, events, risks)))
    comparable = concordance(times, events, risks).comparable
    pairs = ranked + Pairs((comparable - ranked.comparable) / 2, comparable - ranked.comparable)
    details = {"patients": len(times), "relapses": sum(events), "comparable pairs": pairs.comparable, "sense": sense}
    return {"C-index of RFS": pairs.index}, details | _unanswered(answered.count(False))


def _unanswered(count: int) -> dict[str, int]:
    return {"without a prediction": count} if count else {}


def _classes(found: _Asked) -> tuple[dict[str, float], dict[str, Any]]:
    question, read = found.question, CLASSES[found.question.name]
    known = {case: value for case, text in found.known.items() if (value := read(text)) is not None}
    if unread := sorted({text for case, text in found.known.items() if case not in known}):
        found.notes.append(f"{question.title}: {', '.join(map(repr, unread))} is no class; patients with it are not scored")
    answered = [case for case in known if case in found.predicted]
    wrong = [case for case in answered if read(found.predicted[case]) is None]
    found.failures.extend(f"case {case}: {found.predicted[case]!r} is no {question.title}; it counts as a miss" for case in wrong)
    agreement = Agreement.of(list(known.values()), [read(found.predicted.get(case, "")) or "" for case in known])
    figures = {f"balanced accuracy of {question.title}": agreement.balanced_accuracy}
    if question is HPV:
        figures["specificity of HPV status"] = agreement.recall.get("0", math.nan)
        figures["sensitivity of HPV status"] = agreement.recall.get("1", math.nan)
    recalls = {f"recall of {name}": round(value, 4) for name, value in agreement.recall.items()}
    return figures, {"patients": len(known), **_unanswered(len(known) - len(answered)), **recalls}
