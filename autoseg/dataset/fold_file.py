"""Folds that a file gives one by one: autoseg's folds.json, or nnU-Net's splits_final.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from autoseg.dataset.case import Case, bad_name, list_names, near_matches
from autoseg.dataset.fold import BUILT_IN, Fold, Member, Presence, member_of
from autoseg.dataset.folds import Folds, names_in, parse_folds, require_patients_apart
from autoseg.errors import FoldError
from autoseg.files import read_json, sha256_file


def load_folds(path: str | Path, cases: Sequence[Case], presence: Presence | None = None) -> Folds:
    """The folds in a file: autoseg's folds.json, or nnU-Net's splits_final.json (a list of {"train": [...], "val": [...]}). The scheme is
    called as the file, without .json.

    Raises:
        FoldError: no such file, another form, a file that is called like a built-in scheme, names that are no cases or no folder names, a
        case or a patient both in training and validation; all in one message.
    """
    path = Path(path)
    value = read_json(path, error=FoldError)
    scheme = path.name.removesuffix(".json")
    members = {case.name: member_of(case, presence, None) for case in sorted(cases, key=lambda case: case.name)}
    if isinstance(value, list):
        read, seed = {str(index): _split(item, index, path) for index, item in enumerate(value)}, 0
    else:
        own = parse_folds(value, str(path))
        read, seed = own.folds, own.seed
    problems = [] if read else ["there are no folds in it"]
    if BUILT_IN.fullmatch(scheme):
        problems.append(f"it is called like the built-in scheme {scheme!r}, whose folds are others. Rename the file")
    elif reason := bad_name(scheme):
        problems.append(f"its name is the scheme's and {reason}. Rename the file")
    for name, fold in read.items():
        problems += _fold_problems(name, fold, members)
    if problems:
        raise FoldError(f"{path}: {problems[0]}" if len(problems) == 1 else "\n".join([f"{path}:", *(f"  - {p}" for p in problems)]))
    folds = Folds(scheme, read, members, seed, file_sha256=sha256_file(path))
    require_patients_apart(folds, str(path))
    return replace(folds, notes=_file_notes(folds))


def _fold_problems(name: str, fold: Fold, members: Mapping[str, Member]) -> list[str]:
    problems = []
    if unknown := sorted({*fold.training, *fold.validation} - set(members)):
        problems.append(f"fold {name}: no such case: {list_names(unknown)}.{near_matches(unknown[0], sorted(members))}")
    if both := sorted(set(fold.training) & set(fold.validation)):
        problems.append(f"fold {name}: both in training and in validation: {list_names(both)}")
    for side, names in (("training", fold.training), ("validation", fold.validation)):
        if not names:
            problems.append(f"fold {name}: has no {side} cases")
        if twice := sorted(case for case, count in Counter(names).items() if count > 1):
            problems.append(f"fold {name}: {side} names a case twice: {list_names(twice)}")
    return problems


def _file_notes(folds: Folds) -> tuple[str, ...]:
    notes = []
    used = {case for fold in folds.folds.values() for case in (*fold.training, *fold.validation)}
    if rest := sorted(set(folds.members) - used):
        notes.append(f"{len(rest)} case(s) are in no fold: {list_names(rest)}")
    validated = Counter(case for fold in folds.folds.values() for case in fold.validation)
    if again := sorted(case for case, count in validated.items() if count > 1):
        notes.append(f"{len(again)} case(s) are validated in several folds: {list_names(again)}")
    return tuple(notes)


def _split(item: Any, index: int, path: Path) -> Fold:
    if not isinstance(item, dict) or not isinstance(item.get("train"), list) or not isinstance(item.get("val"), list):
        raise FoldError(f'{path}: entry {index} must be {{"train": [...], "val": [...]}}, found {str(item)[:80]}')
    return Fold(names_in(item["train"]), names_in(item["val"]))
