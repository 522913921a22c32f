"""The figures by which HECKTOR 2022, 2025 and 2026 rank, from masks and what else was predicted.

Sources: the challenges' pages on tasks and evaluation. They ship no code for the detection score and leave a few cases open; what is
decided here for those stands in docs/challenge.md and beside the figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoseg.errors import DatasetError
from autoseg.evaluation.answers import HPV, N_STAGE, RFS, T_STAGE, Question
from autoseg.evaluation.answers_scored import Answers, AnswersScored, score_answers
from autoseg.evaluation.evaluation import Evaluation, Summary
from autoseg.evaluation.scores import Settings

LABELS: Mapping[str, int] = {"GTVp": 1, "GTVn": 2}
SETTINGS = Settings(lesion_iou=0.3, connectivity=26)
"""Lesions are 26-connected components and are detected above an IoU of 0.30."""


@dataclass(frozen=True)
class Masks:
    """The segmentation figures of one label.

    Attributes:
        mean_dsc: mean over patients, where a patient without this label in both masks counts 0, as SimpleITK gives it.
        mean_dsc_of_references: the same over the patients whose reference has the label.
        dsc_agg: of all patients taken as one.
        f1_agg: of all patients' lesions taken as one; tp, fp, fn: those lesions.
        patients, empty_references, both_empty: counts.
    """

    mean_dsc: float
    mean_dsc_of_references: float
    dsc_agg: float
    f1_agg: float
    tp: int
    fp: int
    fn: int
    patients: int
    empty_references: int
    both_empty: int

    @staticmethod
    def of(evaluation: Evaluation, label: str) -> Masks:
        """The figures of a label, from an evaluation with `SETTINGS`."""
        scores = [case.scores[label] for case in evaluation.cases]
        summary = Summary.of(scores)
        lesions = [score.lesions for score in scores]
        return Masks(
            mean_dsc=_mean([0.0 if score.empty == "both" else score.dice for score in scores]),
            mean_dsc_of_references=_mean([score.dice for score in scores if score.voxels.reference]),
            dsc_agg=summary.dice_aggregated,
            f1_agg=summary.lesion_f1_aggregated,
            tp=sum(one.tp for one in lesions),
            fp=sum(one.fp for one in lesions),
            fn=sum(one.fn for one in lesions),
            patients=len(scores),
            empty_references=sum(not score.voxels.reference for score in scores),
            both_empty=sum(score.empty == "both" for score in scores),
        )


@dataclass(frozen=True)
class Challenge:
    """One edition.

    Attributes:
        masks: figures by label -> the figures that rank, by name.
        questions: what may be predicted besides masks.
        combined: how these become one rank, in words.
    """

    name: str
    title: str
    masks: Callable[[Mapping[str, Masks]], dict[str, float]]
    questions: tuple[Question, ...]
    combined: str


CHALLENGES: Mapping[str, Challenge] = {
    challenge.name: challenge
    for challenge in (
        Challenge(
            "hecktor2022",
            "HECKTOR 2022",
            lambda masks: {"mean DSCagg of GTVp and GTVn": _mean([one.dsc_agg for one in masks.values()])},
            (RFS,),
            "each task has its own ranking",
        ),
        Challenge(
            "hecktor2025",
            "HECKTOR 2025",
            lambda masks: {
                "mean DSC of GTVp": masks["GTVp"].mean_dsc,
                "DSCagg of GTVn": masks["GTVn"].dsc_agg,
                "F1agg of GTVn": masks["GTVn"].f1_agg,
            },
            (RFS, HPV),
            "task 1 ranks by the Borda count of GTVp's rank and of GTVn's, itself a Borda count of its two: defined among teams only",
        ),
        Challenge(
            "hecktor2026",
            "HECKTOR 2026",
            lambda masks: {"mean of both labels' mean DSC": _mean([one.mean_dsc for one in masks.values()])},
            (T_STAGE, N_STAGE, RFS),
            "how the three tasks become one rank is not published",
        ),
    )
}


@dataclass(frozen=True)
class ChallengeScores:
    """A submission's figures.

    Attributes:
        masks: by label.
        figures: those that rank, by name, in the challenge's order; nan where a figure has no value.
        details: what else was found, JSON-able: by question.
        failures: one message a patient without a usable prediction of something that was handed in.
        notes: what a reader should know.
    """

    challenge: Challenge
    masks: Mapping[str, Masks]
    figures: Mapping[str, float]
    details: Mapping[str, Any] = field(default_factory=dict)
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """For a person."""
        width = max(map(len, self.figures))
        lines = [f"{self.challenge.title}:"]
        lines += [f"  {name:<{width}}  {_show(value)}" for name, value in self.figures.items()]
        lines += ["", f"  {'':<6} {'mean DSC':>9} {'of refs.':>9} {'DSCagg':>9} {'F1agg':>9}   lesions found, claimed, missed"]
        for label, one in self.masks.items():
            values = " ".join(f"{_show(value):>9}" for value in (one.mean_dsc, one.mean_dsc_of_references, one.dsc_agg, one.f1_agg))
            lines.append(f"  {label:<6} {values}   {one.tp}, {one.fp}, {one.fn}")
        for name, one in self.details.items():
            lines.append(f"  {name}: " + ", ".join(f"{key} {value}" for key, value in one.items()))
        lines.append(f"note: {self.challenge.combined}")
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join([*lines, *(f"failed: {failure}" for failure in self.failures)])

    def to_dict(self) -> dict[str, Any]:
        """For a machine; nan is None."""
        return {
            "challenge": self.challenge.name,
            "figures": _no_nan(self.figures),
            "masks": {label: _no_nan(vars(one)) for label, one in self.masks.items()},
            "details": dict(self.details),
            "combined": self.challenge.combined,
            "failures": list(self.failures),
            "notes": list(self.notes),
        }


def challenge_of(name: str, answers: Answers | None = None) -> Challenge:
    """The challenge of a name.

    Raises:
        DatasetError: there is none, it does not ask for something that was predicted, or something is missing; see `Answers.check`.
    """
    if name not in CHALLENGES:
        raise DatasetError(f"--scores {name}: there are {', '.join(CHALLENGES)}")
    asked = [question.name for question in CHALLENGES[name].questions]
    if answers is not None:
        if unasked := [given for given in answers.places if given not in asked]:
            title = CHALLENGES[name].title
            raise DatasetError(f"--{unasked[0]}: {title} does not ask for it; besides masks it asks for {', '.join(asked)}")
        answers.check()
    return CHALLENGES[name]


def score_challenge(evaluation: Evaluation, name: str, answers: Answers | None = None) -> ChallengeScores:
    """The figures of a challenge. The test set is that of the reference masks.

    Args:
        evaluation: with `SETTINGS`, `LABELS` and `missing_is_empty`, so that what was not predicted counts.
        name: in `CHALLENGES`.

    Raises:
        DatasetError: no such challenge, something was predicted that it does not ask for, or a table cannot be used.
        ValueError: the evaluation is of other labels, or detects lesions above another IoU.
    """
    if dict(evaluation.labels) != dict(LABELS) or evaluation.settings.lesion_iou != SETTINGS.lesion_iou:
        raise ValueError(
            f"an evaluation with labels {dict(LABELS)} and lesion_iou {SETTINGS.lesion_iou} is expected, found "
            f"{dict(evaluation.labels)} and {evaluation.settings.lesion_iou}"
        )
    challenge, answers = challenge_of(name, answers), answers or Answers()
    masks = {label: Masks.of(evaluation, label) for label in LABELS}
    scored = {case.case for case in evaluation.cases}
    cases = scored | set(evaluation.failures)
    figures, details, failures, notes = challenge.masks(masks), {}, [], list(_mask_notes(masks))
    if evaluation.failures:
        left_out = len(cases - scored)
        counted = "they count as empty masks" if not left_out else f"{left_out} of them are left out of the figures of masks"
        notes.insert(0, f"{len(evaluation.failures)} of {len(cases)} references have no prediction that can be scored: {counted}")
    for question, score in _score_answers(challenge, answers, cases):
        figures |= score.figures
        details[question.title] = score.details
        failures += score.failures
        notes += score.notes
    staged = [f"balanced accuracy of {question.title}" for question in (T_STAGE, N_STAGE)]
    if all(one in figures for one in staged):
        figures["balanced accuracy of TN stage"] = _mean([figures[one] for one in staged])
        notes.append("the TN stage's figure is the mean of T's and N's: the challenge's page does not say how they are joined")
    return ChallengeScores(challenge, masks, figures, details, tuple(failures), tuple(notes))


def check_answers(name: str, answers: Answers, cases: Iterable[str]) -> None:
    """Returns where all that was predicted besides masks can be scored: known before masks are, which takes longer.

    Args:
        cases: those with a reference mask.

    Raises:
        DatasetError: as `score_challenge`.
    """
    for _ in _score_answers(challenge_of(name, answers), answers, cases):
        pass


def _score_answers(challenge: Challenge, answers: Answers, cases: Iterable[str]) -> Iterator[tuple[Question, AnswersScored]]:
    for question in challenge.questions:
        if question.name in answers.places:
            yield question, score_answers(question, answers, sorted(cases))


def container_masks(folder: Path) -> dict[str, Path]:
    """Case -> mask, of a folder with one folder a patient that holds what a challenge container wrote; {} where it is none.

    Raises:
        DatasetError: a patient has several.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*/images/*/output.mha")):
        case = path.parts[-4]
        if case in found:
            raise DatasetError(f"case {case}: two masks, {found[case].relative_to(folder)} and {path.relative_to(folder)}; keep one")
        found[case] = path
    return found


def require_labels(labels: Mapping[str, Any] | None, source: str) -> None:
    """Raises DatasetError where a dataset's labels (None: not known) give a challenge's names other values."""
    other = {name: labels[name] for name, value in LABELS.items() if labels and labels.get(name, value) != value}
    if other:
        told = " and ".join(f"{name} {value}" for name, value in other.items())
        raise DatasetError(f"{source}: has {told}; in the challenge's masks GTVp is 1 and GTVn is 2. Score masks with these values")


def _mask_notes(masks: Mapping[str, Masks]) -> list[str]:
    notes = []
    for label, one in masks.items():
        if one.empty_references:
            notes.append(
                f"{label}: {one.empty_references} of {one.patients} references have none; a patient counts 0 in the mean DSC where one or "
                f"both masks have none ({one.both_empty} both)"
            )
    return notes


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _show(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.5f}"


def _no_nan(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()}
