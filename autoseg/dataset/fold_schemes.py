"""Folds that are worked out: cross-validation, one centre a fold, folds of whole centres."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from autoseg.dataset.case import Case, list_names
from autoseg.dataset.fold import ALL, BUILT_IN, DEFAULT_COUNT, Fold, Member, Presence, member_of, unusable_name
from autoseg.dataset.fold_joining import patients_of
from autoseg.dataset.folds import Folds, require_patients_apart
from autoseg.dataset.spread import seeded_order, spread
from autoseg.errors import FoldError


def make_folds(cases: Sequence[Case], scheme: str, *, seed: int, presence: Presence | None = None) -> Folds:
    """The folds of a scheme.

    Args:
        scheme: "cv5" (patients kept whole; centres and lesion presence spread evenly; fewer folds where there are fewer patients), "loco"
            (one fold a centre), "grouped" or "grouped5" (folds of whole centres); other numbers likewise.
        presence: case -> the foreground labels in its mask.

    Raises:
        FoldError: an unknown scheme, fewer than two patients or centres, a patient in two centres where centres are kept apart.
    """
    match = BUILT_IN.fullmatch(scheme)
    if not match or (match[2] and int(match[2]) < 2):
        raise FoldError(f"the fold scheme {scheme!r} is unknown: it must be cv5 (or cvN), loco, grouped (or groupedN) or a file")
    members = {case.name: member_of(case, presence, None) for case in sorted(cases, key=lambda case: case.name)}
    notes: list[str] = []
    if scheme == "loco":
        held_out = _by_centre(members)
    else:
        count = int(match[2] or DEFAULT_COUNT)
        held_out = _cross_validation(members, count, seed, notes) if match[1] == "cv" else _grouped(members, count, seed, notes)
    folds = Folds(scheme, _from_validation(held_out, members), members, seed, tuple(notes))
    require_patients_apart(folds)
    return folds


def _cross_validation(members: Mapping[str, Member], count: int, seed: int, notes: list[str]) -> dict[str, list[str]]:
    patients = patients_of(members)
    if len(patients) < 2:
        raise FoldError(f"cross-validation needs at least 2 patients, found {len(patients)}. Train on everything with fold {ALL!r}")
    if len(patients) < count:
        notes.append(f"{len(patients)} patients make {len(patients)} folds, not {count}")
        count = len(patients)
    return {str(index): [name for p in group for name in p.cases] for index, group in enumerate(spread(patients, count, seed))}


def _by_centre(members: Mapping[str, Member]) -> dict[str, list[str]]:
    centres = _centres(members, "loco")
    for centre in centres:
        if reason := unusable_name(centre):
            raise FoldError(f"loco: the centre {centre!r} {reason}, so no fold can be called that. Rename it in cases.csv")
    return centres


def _grouped(members: Mapping[str, Member], count: int, seed: int, notes: list[str]) -> dict[str, list[str]]:
    """Whole centres, the largest first, each to the smallest fold so far."""
    centres = _centres(members, "grouped")
    if len(centres) < count:
        notes.append(f"{len(centres)} centres make {len(centres)} folds, not {count}")
        count = len(centres)
    folds: dict[str, list[str]] = {str(index): [] for index in range(count)}
    for centre in sorted(centres, key=lambda centre: (-len(centres[centre]), seeded_order(seed, centre))):
        smallest = min(folds, key=lambda name: len(folds[name]))
        folds[smallest] += centres[centre]
    return folds


def _centres(members: Mapping[str, Member], scheme: str) -> dict[str, list[str]]:
    centres: dict[str, list[str]] = {}
    for name, member in sorted(members.items()):
        centres.setdefault(member.centre, []).append(name)
    if homeless := centres.get("", []):
        raise FoldError(
            f"{scheme}: {len(homeless)} case(s) have no centre: {list_names(homeless)}. Give each one in cases.csv (column centre)"
        )
    if len(centres) < 2:
        raise FoldError(f"{scheme}: needs at least 2 centres, found {len(centres)} ({', '.join(centres)}). Use cv5")
    return dict(sorted(centres.items()))


def _from_validation(held_out: Mapping[str, Collection[str]], everyone: Iterable[str]) -> dict[str, Fold]:
    everyone = set(everyone)
    return {name: Fold(tuple(sorted(everyone.difference(out))), tuple(sorted(out))) for name, out in held_out.items()}
