"""Where new cases go in folds that stand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from autoseg.dataset.fold import Fold, Member, is_grouped, unusable_name
from autoseg.dataset.spread import Patient, traits_of
from autoseg.errors import FoldError


def patients_of(members: Mapping[str, Member]) -> list[Patient]:
    """The patients of some cases, by name; one who was seen in several centres counts for the first by name."""
    cases: dict[str, list[str]] = {}
    for name, member in sorted(members.items()):
        cases.setdefault(member.patient, []).append(name)
    return [
        Patient(patient, min(members[name].centre for name in names), traits_of([members[name].labels for name in names]), tuple(names))
        for patient, names in sorted(cases.items())
    ]


def joined(scheme: str, folds: Mapping[str, Fold], members: Mapping[str, Member], new: Sequence[str]) -> dict[str, Fold]:
    """The folds with new cases among them; every other case stays where it is. The rules: `Folds.extend`.

    Args:
        members: of all cases, the new ones too.
        new: the cases that are in no fold yet.

    Raises:
        FoldError: under `loco`, a centre that no fold can be called after.
    """
    placed = [name for fold in folds.values() for name in fold.validation]
    homes = {members[case].patient: name for name, fold in folds.items() for case in fold.validation if case in members}
    partition = len(folds) > 1 and len(placed) == len(set(placed)) and not set(members) - set(placed) - set(new)
    validation = {name: list(fold.validation) for name, fold in folds.items()}
    training = {name: list(fold.training) for name, fold in folds.items()}
    kinds = {name: Counter(_kinds(patients_of({n: members[n] for n in cases if n in members}))) for name, cases in validation.items()}
    for patient in patients_of({name: members[name] for name in new}):
        home = homes.get(patient.name)
        if home is None and partition:
            home = _new_home(scheme, patient, validation, kinds)
            kinds.setdefault(home, Counter()).update(_kinds([patient]))
        if home is not None:
            if home not in validation:
                validation[home], training[home] = [], list(placed)
            validation[home].extend(patient.cases)
        for name in validation:
            if name != home:
                training[name].extend(patient.cases)
        placed += patient.cases
    return {name: Fold(tuple(sorted(training[name])), tuple(sorted(validation[name]))) for name in validation}


def _new_home(scheme: str, patient: Patient, validation: Mapping[str, Sequence[str]], kinds: Mapping[str, Counter[Any]]) -> str:
    centre, kind = patient.centre, (patient.centre, patient.traits)
    if scheme == "loco":
        if reason := unusable_name(centre):
            raise FoldError(f"loco: case {patient.cases[0]}: its centre {centre!r} {reason}. Give it another in cases.csv")
        return centre
    if is_grouped(scheme):
        theirs = [name for name in validation if kinds[name][centre]]
        return theirs[0] if theirs else min(validation, key=lambda name: len(validation[name]))
    return min(validation, key=lambda name: (kinds[name][kind], kinds[name][centre], len(validation[name])))


def _kinds(patients: Iterable[Patient]) -> list[Any]:
    """What the patients are counted by: centre, and centre with labels."""
    return [key for patient in patients for key in (patient.centre, (patient.centre, patient.traits))]
