"""The paragraph for a paper: what was compared on what, by which rule, with which figures. Numbers, no praise."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from autoseg.choosing.decision import Difference, score
from autoseg.choosing.judged import Judged
from autoseg.choosing.members import Member
from autoseg.choosing.rules import Found
from autoseg.evaluation.bootstrap import RESAMPLES
from autoseg.inference.choice import Choice
from autoseg.inference.postprocessing import rules_text


def methods_paragraph(judged: Judged, choice: Choice, found: Found | None, gain: Difference | None, command: str) -> str:
    """The paragraph."""
    decision = judged.decision
    scores = ", ".join(f"{name} {value:.4f}" for name, value in decision.scores.items())
    members = {member.name: member for own in judged.candidates.values() for member in own}
    sentences = [
        f"Segmentation models of {_count(len(members), 'configuration')} ({_folds(members)}) were trained with autoseg {_version()}"
        + (
            " and compared, alone and in pairs whose probabilities were averaged,"
            if len(decision.scores) > len(members)
            else " and compared"
        )
        + f" on {_count(len(judged.cases), 'case')} of {_count(len(set(judged.patients)), 'patient')} that no network had been trained on"
        + f"{_traces(members)}. "
        f"Mean Dice over {', '.join(judged.classes)}: {scores}.",
        *decision.reasons,
        f"Differences are paired, with 95 % percentile intervals of {RESAMPLES} bootstrap samples of patients.",
    ]
    if found is not None:
        tried = "largest component and minimum component size per class, found on all parts of the cases but one and judged on that part"
        without, with_it = float(score(found.dice)), float(score(found.nested))
        figures = f"; mean Dice {without:.4f} without and {with_it:.4f} with it on the cases left out ({gain})"
        sentences.append(f"Postprocessing ({tried}): {rules_text(choice.rules)}{figures if choice.rules else ', since nothing helped'}.")
    sentences.append(f"New images were segmented with `{command}`.")
    return " ".join(sentences)


def _folds(members: Mapping[str, Member]) -> str:
    return "; ".join(
        f"{name}: {_count(len(member.model.folds), 'fold')} of {member.model.dataset.scheme}" for name, member in members.items()
    )


def _traces(members: Mapping[str, Member]) -> str:
    """What the cases that were held out have left in a cascade's networks all the same."""
    traced = {name: member.traced_through for name, member in members.items() if member.traced_through}
    learned = [f"{name} had learned from masks by networks of {stage}" for name, stage in traced.items()]
    return f" ({' and '.join(learned)} that had been)" if learned else ""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _version() -> str:
    try:
        return version("autoseg")
    except PackageNotFoundError:
        return "(not installed)"
