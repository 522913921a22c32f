"""Dealing patients to folds: the same number in each, and each centre and each kind of case spread evenly."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Trait = tuple[str, int]


@dataclass(frozen=True)
class Patient:
    """A patient's centre, cases and traits (which labels are present, which are not; empty where nothing is known)."""

    name: str
    centre: str
    traits: tuple[int, ...] | None
    cases: tuple[str, ...]


def traits_of(labels: Iterable[Sequence[int] | None]) -> tuple[int, ...] | None:
    """The labels that any of a patient's cases holds, ascending; None where no case's are known."""
    known = [values for values in labels if values is not None]
    return tuple(sorted({value for values in known for value in values})) if known else None


def seeded_order(seed: int, name: str) -> str:
    """A sort key: a shuffle that depends on the seed and the name only, so that neither the order nor the presence of others changes it."""
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()


def spread(patients: Sequence[Patient], count: int, seed: int) -> list[list[Patient]]:
    """The patients dealt to `count` groups.

    The groups' numbers of patients differ by at most 1, and so do the numbers of patients of any one centre. Within that, the rarest
    traits are spread first (iterative stratification), then the cases.

    Source: the order of traits is that of Sechidis et al., "On the stratification of multi-label data", ECML PKDD 2011.
    """
    everything = {label for patient in patients for label in patient.traits or ()}
    traits = {patient.name: _traits(patient, everything) for patient in patients}
    frequency = Counter(trait for found in traits.values() for trait in found)
    order = {name: sorted(found, key=lambda trait: (frequency[trait], trait)) for name, found in traits.items()}

    def first_to_place(patient: Patient) -> tuple[list[tuple[int, Trait]], int, str]:
        return [(frequency[trait], trait) for trait in order[patient.name]], -len(patient.cases), seeded_order(seed, patient.name)

    groups: list[list[Patient]] = [[] for _ in range(count)]
    held: list[Counter[Trait]] = [Counter() for _ in range(count)]
    sizes = [0] * count
    dealt = 0
    for centre in sorted({patient.centre for patient in patients}):
        members = sorted((patient for patient in patients if patient.centre == centre), key=first_to_place)
        # Dealing round and round across centres keeps both totals and centres within one patient; who takes which place is still open.
        places = Counter((dealt + index) % count for index in range(len(members)))
        dealt += len(members)
        here: list[Counter[Trait]] = [Counter() for _ in range(count)]
        for patient in members:
            wanted = order[patient.name]
            group = min(
                (group for group in range(count) if places[group]),
                key=lambda group: (
                    [(held[group][trait], here[group][trait]) for trait in wanted],
                    sizes[group],
                    group,
                ),
            )
            places[group] -= 1
            groups[group].append(patient)
            held[group].update(wanted)
            here[group].update(wanted)
            sizes[group] += len(patient.cases)
    return groups


def _traits(patient: Patient, everything: Iterable[int]) -> list[Trait]:
    if patient.traits is None:
        return []
    return [("has" if label in patient.traits else "lacks", label) for label in sorted(everything)]
