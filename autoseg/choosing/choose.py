"""Choosing: the trained configurations and their pairs compared on cases that they had not learned from, one chosen, its masks mended."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.choosing import rules as rule_search
from autoseg.choosing.counts import Compared, dice_after_rules, dice_of_masks, survey
from autoseg.choosing.decision import RULE, Candidate, Difference, decide, difference, label_means, score
from autoseg.choosing.judged import Judged
from autoseg.choosing.members import Member, common_cases, find_members
from autoseg.choosing.methods import methods_paragraph
from autoseg.choosing.pairs import SIGN, predict_pairs
from autoseg.dataset.case import list_names, near_matches
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.workspace import Workspace
from autoseg.errors import TrainingError
from autoseg.evaluation.bootstrap import RESAMPLES, resample_weights
from autoseg.inference.choice import Choice
from autoseg.inference.postprocessing import rules_text
from autoseg.resources import usable_cores

logger = logging.getLogger(__name__)

SEED = 0
WORTH_PROCESSES = 8
"""Cases from which on starting processes pays."""


@dataclass(frozen=True)
class ChooseResult:
    """What was chosen and where it is written."""

    path: Path
    choice: Choice
    judged: Judged
    found: rule_search.Found | None
    gain: Difference | None
    notes: tuple[str, ...]
    command: str
    methods: str

    def text(self) -> str:
        """For a person."""
        judged, decision = self.judged, self.judged.decision
        width = max(map(len, decision.scores))
        lines = [
            f"{len(judged.cases)} cases of {len(set(judged.patients))} patients, out of fold; mean Dice ({', '.join(judged.classes)}):"
        ]
        for name in sorted(decision.scores, key=lambda name: -decision.scores[name]):
            labels = ", ".join(f"{value:.4f}" for value in label_means(judged.dice[name]))
            gap = f"   {decision.differences[name]} to the choice" if name in decision.differences else "   chosen"
            lines.append(f"  {name:<{width}} {decision.scores[name]:.4f} ({labels}){gap}")
        lines += ["", f"Rule: {RULE}", *(f"- {reason}" for reason in decision.reasons), ""]
        if self.found is not None:
            lines += [f"Postprocessing: {rule_search.RULE}", *(f"- {level}" for level in self.found.levels)]
            lines += [
                f"Postprocessing: {rules_text(self.choice.rules)}{f'; judged on cases left out: {self.gain}' if self.choice.rules else ''}",
                "",
            ]
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"chosen: {self.choice.text()}", f"written: {self.path}", "", "Predict with it:", f"  {self.command}", ""]
        return "\n".join([*lines, "For a paper:", self.methods, "", "For research use only; not a medical device."])

    def to_dict(self) -> dict[str, Any]:
        """For a machine."""
        return {"path": str(self.path), "command": self.command, "methods": self.methods} | self.choice.to_dict(self.path.parent)


def choose(
    dataset: str | Path = ".",
    *,
    names: Sequence[str] = ("default",),
    work: str | Path | None = None,
    configurations: Sequence[str] | None = None,
    pairs: bool = True,
    postprocessing: bool = True,
    take: str | None = None,
    device: str = "auto",
    workers: int | None = None,
) -> ChooseResult:
    """Compares the trained configurations and their pairs, and writes what `autoseg_predict` uses from now on.

    Args:
        dataset: the dataset folder.
        names: plans whose configurations are compared; the choice is written for the first.
        configurations: only these; None means all that have a finished fold.
        pairs: also compare the mean probabilities of every two; each case is then predicted once more by each configuration.
        postprocessing: look for rules.
        take: take this candidate, whatever the rule says.
        device: "auto", "cpu", "cuda" or "cuda:i"; for the pairs.
        workers: processes for the scores, 0 = none; None chooses.

    Raises:
        PlanError, FoldError, DatasetError: there is no plan, or it does not fit.
        TrainingError: nothing to compare, or `take` names none of the candidates.
        CasesFailed: some cases could not be predicted or scored; nothing is chosen then.
    """
    spaces = [Workspace.of(Path(dataset).absolute(), Path(work) if work else None, name) for name in dict.fromkeys(names)]
    opened = Dataset.open(dataset, left_out=spaces[0].excluded())
    members, notes = find_members(opened, spaces, configurations)
    cases = common_cases(members)
    notes += _left_out(members, cases)
    _require_known(take, members, pairs)
    candidates = {member.name: (member,) for member in members}
    masks: dict[str, Mapping[str, Path]] = {member.name: member.masks for member in members}
    if pairs and len(members) > 1:
        for pair in predict_pairs(opened, members, cases, spaces[0].choosing, device=device):
            candidates[pair.name], masks[pair.name] = pair.members, pair.masks
    workers = (usable_cores() if len(cases) >= WORTH_PROCESSES else 0) if workers is None else workers
    judged = _judge(opened, candidates, masks, cases, take, workers)
    chosen = judged.decision.chosen
    held = masks[chosen]
    found, gain = None, None
    if postprocessing:
        found, gain, more = _find_rules(opened, candidates[chosen], held, workers)
        notes += more
    notes += _traced_choice(chosen, candidates)
    choice = Choice(chosen, tuple(member.chosen for member in candidates[chosen]), found.rules if found else ())
    command = _command(dataset, work, spaces[0].name)
    methods = methods_paragraph(judged, choice, found, gain, command)
    about = _about(judged, found, gain, notes, command, methods)
    choice = Choice(choice.name, choice.models, choice.rules, about)
    return ChooseResult(choice.write(spaces[0].chosen.parent), choice, judged, found, gain, tuple(notes), command, methods)


def _require_known(take: str | None, members: Sequence[Member], pairs: bool) -> None:
    names = [member.name for member in members]
    known = [*names, *(f"{a}{SIGN}{b}" for i, a in enumerate(names) for b in names[i + 1 :] if pairs)]
    if take is not None and take not in known:
        raise TrainingError(f"--take {take}: there is no such candidate; there are: {', '.join(known)}.{near_matches(take, known)}")


def _left_out(members: Sequence[Member], cases: Sequence[str]) -> list[str]:
    rest = sorted({case for member in members for case in member.masks} - set(cases))
    return [f"{len(rest)} cases are not compared, since not all candidates have them out of fold: {list_names(rest)}"] if rest else []


def traces(members: Sequence[Member]) -> list[str]:
    """The previous stages through whose masks the networks of a candidate know the held-out cases."""
    return sorted({member.traced_through for member in members if member.traced_through})


def _traced_choice(chosen: str, candidates: Mapping[str, tuple[Member, ...]]) -> list[str]:
    """That the choice's lead may be too large, where it knows the held-out cases a little and others that were compared do not."""
    clean = [name for name, members in candidates.items() if not traces(members)]
    if not traces(candidates[chosen]) or not clean:
        return []
    return [
        f"{chosen} is chosen with a score that may be too high for what its networks know of the held-out cases, and {list_names(clean)} "
        "had no such help: its lead may be smaller than it looks. The interval does not cover this; training.previous_masks=nested does"
    ]


def _judge(
    dataset: Dataset,
    candidates: Mapping[str, tuple[Member, ...]],
    masks: Mapping[str, Mapping[str, Path]],
    cases: tuple[str, ...],
    take: str | None,
    workers: int,
) -> Judged:
    plan = next(iter(candidates.values()))[0].model.plan
    compared = dice_of_masks(_references(dataset, cases), masks, plan.label_scheme, tolerance=plan.geometry_tolerance, workers=workers)
    shown, classes = _shown(compared, tuple(plan.label_scheme.foreground))
    if not classes:
        raise TrainingError(f"the reference masks of all {len(cases)} compared cases are empty: nothing can be compared")
    dice = {name: values[:, shown] for name, values in compared.dice.items()}
    complexity = [
        Candidate(name, sum(member.networks for member in own), sum(member.parameters for member in own))
        for name, own in candidates.items()
    ]
    patients = tuple(dataset.case(case).patient for case in cases)
    weights = case_weights(patients)
    decision = decide(complexity, dice, weights, patients=len(set(patients)), take=take)
    return Judged(candidates, cases, patients, classes, dice, weights, decision)


def case_weights(patients: Sequence[str]) -> np.ndarray:
    """How often each bootstrap sample has each case, (samples, cases): patients are drawn, with all their cases."""
    order = list(dict.fromkeys(patients))
    # Not within their centre: a centre with one patient would add nothing to the interval's width.
    drawn = resample_weights([""] * len(order), RESAMPLES, SEED)
    return drawn[:, [order.index(patient) for patient in patients]]


def _shown(compared: Compared, classes: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Which classes a reference shows; the others cannot be judged."""
    shown = compared.present.any(0)
    return shown, tuple(name for name, there in zip(classes, shown, strict=True) if there)


def _find_rules(
    dataset: Dataset, members: tuple[Member, ...], masks: Mapping[str, Path], workers: int
) -> tuple[rule_search.Found, Difference, list[str]]:
    """The rules for a candidate's masks, what they gain on cases that they were not found on, and notes."""
    cases, plan = sorted(masks), members[0].model.plan
    scheme, tolerance = plan.label_scheme, plan.geometry_tolerance
    references = _references(dataset, cases)
    shown, classes = _shown(
        dice_of_masks(references, {"masks": masks}, scheme, tolerance=tolerance, workers=workers), tuple(scheme.foreground)
    )
    patients = [dataset.case(case).patient for case in cases]
    parts = rule_search.parts_of([tuple(member.fold_of[case] for member in members) for case in cases], patients)

    def dice_after(sequences: Any) -> dict[Any, np.ndarray]:
        tried = dice_after_rules(references, masks, sequences, scheme, tolerance=tolerance, workers=workers)
        return {sequence: dice[:, shown] for sequence, dice in tried.items()}

    levels = rule_search.levels_for(classes, survey({case: masks[case] for case in cases}, scheme, workers=workers))
    found = rule_search.find_rules(levels, dice_after, parts)
    few = len(set(parts.tolist())) < 2
    notes = ["postprocessing: one patient alone, so that nothing could be judged on cases left out"] if few else []
    return found, difference(found.nested, found.dice, case_weights(patients)), notes


def _references(dataset: Dataset, cases: Sequence[str]) -> dict[str, Path]:
    labels = {case: dataset.case(case).label for case in cases}
    return {case: label for case, label in labels.items() if label is not None}


def _command(dataset: str | Path, work: str | Path | None, name: str) -> str:
    options = [("-d", dataset), *([("--work", work)] if work else []), *([("--name", name)] if name != "default" else [])]
    given = " ".join(f"{option} {shlex.quote(str(value))}" for option, value in options if (option, str(value)) != ("-d", "."))
    return f"autoseg_predict {given} -i IMAGES -o MASKS".replace("  ", " ")


def _about(
    judged: Judged, found: rule_search.Found | None, gain: Difference | None, notes: Sequence[str], command: str, methods: str
) -> dict[str, Any]:
    """How it was found, for the file."""
    decision = judged.decision
    candidates = {
        name: {
            "score": decision.scores[name],
            "dice": {label: _number(value) for label, value in zip(judged.classes, label_means(judged.dice[name]), strict=True)},
            **({"traced_through": found_traces} if (found_traces := traces(judged.candidates[name])) else {}),
            **({"less_the_chosen": decision.differences[name].to_dict()} if name in decision.differences else {}),
        }
        for name in decision.scores
    }
    return {
        "cases": list(judged.cases),
        "patients": len(set(judged.patients)),
        "candidates": candidates,
        "rule": RULE,
        "reasons": list(decision.reasons),
        "postprocessing_rule": rule_search.RULE if found else "not asked for",
        "postprocessing_levels": [level.to_dict() for level in found.levels] if found else [],
        "postprocessing_score": [float(score(found.dice)), float(score(found.nested))] if found else [],
        "postprocessing_gain": gain.to_dict() if gain else None,
        "notes": list(notes),
        "command": command,
        "methods": methods,
    }


def _number(value: float) -> float | None:
    return float(value) if value == value else None
