"""Folds: which cases a network learns from and which it is tested on. A patient is never on both sides.

Schemes: `cv5` (any number: `cv3`) spreads patients, centres and lesions evenly; `loco` leaves one centre out a fold; `grouped5` makes
folds of whole centres; a file gives them one by one. A scheme's folds depend on the cases' names, patients, centres and labels and on the
seed, never on their order.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autoseg.dataset.case import Case, bad_name, list_names, near_matches
from autoseg.dataset.spread import Patient, seeded_order, spread, traits_of
from autoseg.errors import FoldError
from autoseg.files import read_json, sha256_file

SCHEMA = "autoseg-folds/1"
ALL = "all"
JOIN = "+"
DEFAULT_COUNT = 5
BUILT_IN = re.compile(r"(cv|grouped)(\d*)|loco")
"""The schemes that are worked out; no file may be called like one."""

Presence = Mapping[str, Collection[int]]


@dataclass(frozen=True)
class Fold:
    """Case names, sorted."""

    training: tuple[str, ...]
    validation: tuple[str, ...]


@dataclass(frozen=True)
class Member:
    """What the folds know of a case: whose it is, where it is from, and which foreground labels its mask holds (None: not known)."""

    patient: str
    centre: str = ""
    labels: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Folds:
    """Named folds of a scheme.

    Args:
        folds: name -> Fold; cv and grouped folds are named "0", "1", ..., those of `loco` as their centre.
        members: every case that the scheme was made or extended with.
        file_sha256: of the file that gave the folds, as it was then; "" for a scheme that is worked out.
        notes: what a user should know; not part of the file.
    """

    scheme: str
    folds: dict[str, Fold]
    members: dict[str, Member]
    seed: int = 0
    notes: tuple[str, ...] = field(default=(), compare=False)
    file_sha256: str = field(default="", compare=False)

    @property
    def held_out_centres(self) -> dict[str, tuple[str, ...]] | None:
        """Fold -> the centres that it holds out as a whole; None where a fold also learns from a centre that it is tested on, or where a
        case has no centre."""
        held_out = {}
        for name, fold in self.folds.items():
            learnt, tested = (
                {self.members[case].centre if case in self.members else "" for case in cases} for cases in (fold.training, fold.validation)
            )
            if learnt & tested or "" in learnt | tested:
                return None
            held_out[name] = tuple(sorted(tested))
        return held_out

    def fold(self, name: str | int) -> Fold:
        """The fold of that name; "all" trains on and is validated on every case, and "A+B" holds out what the folds A and B hold out.

        Raises:
            FoldError: the scheme has none of that name.
        """
        if str(name) == ALL:
            everyone = tuple(sorted(self.members))
            return Fold(everyone, everyone)
        if self.is_joint(str(name)):
            first, second = (self.folds[part] for part in self._parts(str(name)))
            held_out = {*first.validation, *second.validation}
            return Fold(tuple(sorted({*first.training} & {*second.training} - held_out)), tuple(sorted(held_out)))
        if str(name) not in self.folds:
            raise FoldError(f"the scheme {self.scheme!r} has no fold {str(name)!r}; it has: {', '.join(self.folds)}, {ALL}")
        return self.folds[str(name)]

    def is_joint(self, name: str) -> bool:
        """Whether a name means two folds of the scheme at once, as "0+1" does."""
        return bool(self._parts(name))

    def joint(self, first: str, second: str) -> str:
        """The name of the fold that holds out what two folds hold out, whichever comes first."""
        return JOIN.join(sorted((first, second), key=list(self.folds).index))

    def _parts(self, name: str) -> tuple[str, str] | None:
        """The two folds of a joint one's name, in the scheme's order; names may hold the joining sign themselves."""
        if name in self.folds:
            return None
        return next(((a, b) for a in self.folds for b in self.folds if a != b and self.joint(a, b) == name), None)

    def extend(self, cases: Iterable[Case], presence: Presence | None = None) -> Folds:
        """The folds with new cases added; every case that is in them already stays where it is.

        A new case of a known patient goes where the patient is. Any other goes to the fold that has the fewest patients of its centre,
        then of its labels, then the fewest cases; under `loco` to its centre's fold, which is made if need be. Where the folds' validation
        cases are no partition (a hold-out file), it joins the training cases of every fold.

        Args:
            cases: new ones, or all; known ones are only checked.
            presence: case -> the foreground labels in its mask.

        Raises:
            FoldError: a known case's patient or centre has changed so that the folds no longer keep patients (or centres) apart.
        """
        members = dict(self.members)
        new = []
        for case in sorted(cases, key=lambda case: case.name):
            known = members.get(case.name)
            members[case.name] = _member(case, presence, known.labels if known else None)
            if known is None:
                new.append(case.name)
        folds = replace(self, members=members)
        if new:
            folds = replace(folds, folds=_joined(folds, new))
        _require_patients_apart(folds)
        if self.scheme == "loco" or _is_grouped(self.scheme):
            _require_centres_apart(folds)
        return folds

    def without(self, names: Collection[str]) -> Folds:
        """The folds without some cases; folds that lose all their validation cases go.

        Raises:
            FoldError: no fold is left, or one has no training cases.
        """
        kept = {
            name: Fold(
                tuple(case for case in fold.training if case not in names), tuple(case for case in fold.validation if case not in names)
            )
            for name, fold in self.folds.items()
        }
        kept = {name: fold for name, fold in kept.items() if fold.validation}
        if not kept or not all(fold.training for fold in kept.values()):
            raise FoldError(f"the scheme {self.scheme!r} has no cases left to train on without {list_names(sorted(names))}")
        return replace(self, folds=kept, members={name: member for name, member in self.members.items() if name not in names})

    def to_json(self) -> dict[str, Any]:
        """A JSON value of schema autoseg-folds/1."""
        return {
            "schema": SCHEMA,
            "scheme": self.scheme,
            "seed": self.seed,
            "file_sha256": self.file_sha256,
            "folds": {name: {"training": list(fold.training), "validation": list(fold.validation)} for name, fold in self.folds.items()},
            "cases": {
                name: {"patient": m.patient, "centre": m.centre, "labels": None if m.labels is None else list(m.labels)}
                for name, m in sorted(self.members.items())
            },
        }

    @staticmethod
    def from_json(value: Any, source: str = "folds.json") -> Folds:
        """The folds in a JSON value of schema autoseg-folds/1.

        Raises:
            FoldError: another schema, a value of the wrong form, or a name that no folder can have.
        """
        schema = value.get("schema") if isinstance(value, dict) else None
        if schema != SCHEMA:
            raise FoldError(f"{source}: the field 'schema' must be {SCHEMA!r}, found {schema!r}")
        try:
            folds = {str(name): Fold(_names(fold["training"]), _names(fold["validation"])) for name, fold in value["folds"].items()}
            members = {
                str(name): Member(
                    str(item["patient"]), str(item["centre"]), None if item["labels"] is None else tuple(int(x) for x in item["labels"])
                )
                for name, item in value["cases"].items()
            }
            read = Folds(str(value["scheme"]), folds, members, int(value["seed"]), file_sha256=str(value.get("file_sha256", "")))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FoldError(f"{source}: is no {SCHEMA} document: {type(error).__name__}: {error}") from None
        if reason := bad_name(read.scheme):
            raise FoldError(f"{source}: the scheme {read.scheme!r} {reason}, so no folder can be called that. Rename it")
        if problems := _name_problems(folds):
            raise FoldError(f"{source}: {'; '.join(problems)}")
        return read


def make_folds(cases: Sequence[Case], scheme: str, *, seed: int, presence: Presence | None = None) -> Folds:
    """The folds of a scheme.

    Args:
        scheme: "cv5" (patients kept whole; centres and lesion presence spread evenly; fewer folds where there are fewer patients), "loco"
        (one fold
            a centre), "grouped" or "grouped5" (folds of whole centres); other numbers likewise.
        presence: case -> the foreground labels in its mask.

    Raises:
        FoldError: an unknown scheme, fewer than two patients or centres, a patient in two centres where centres are kept apart.
    """
    match = BUILT_IN.fullmatch(scheme)
    if not match or (match[2] and int(match[2]) < 2):
        raise FoldError(f"the fold scheme {scheme!r} is unknown: it must be cv5 (or cvN), loco, grouped (or groupedN) or a file")
    members = {case.name: _member(case, presence, None) for case in sorted(cases, key=lambda case: case.name)}
    notes: list[str] = []
    if scheme == "loco":
        held_out = _by_centre(members)
    else:
        count = int(match[2] or DEFAULT_COUNT)
        held_out = _cross_validation(members, count, seed, notes) if match[1] == "cv" else _grouped(members, count, seed, notes)
    folds = Folds(scheme, _from_validation(held_out, members), members, seed, tuple(notes))
    _require_patients_apart(folds)
    return folds


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
    members = {case.name: _member(case, presence, None) for case in sorted(cases, key=lambda case: case.name)}
    if isinstance(value, list):
        read, seed = {str(index): _split(item, index, path) for index, item in enumerate(value)}, 0
    else:
        own = Folds.from_json(value, str(path))
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
    _require_patients_apart(folds, str(path))
    return replace(folds, notes=_file_notes(folds))


# --- building


def _member(case: Case, presence: Presence | None, otherwise: tuple[int, ...] | None) -> Member:
    labels = presence.get(case.name) if presence else None
    return Member(case.patient, case.centre, otherwise if labels is None else tuple(sorted(int(label) for label in labels)))


def _patients(members: Mapping[str, Member]) -> list[Patient]:
    """The patients of some cases, by name; one who was seen in several centres counts for the first by name."""
    cases: dict[str, list[str]] = {}
    for name, member in sorted(members.items()):
        cases.setdefault(member.patient, []).append(name)
    return [
        Patient(patient, min(members[name].centre for name in names), traits_of([members[name].labels for name in names]), tuple(names))
        for patient, names in sorted(cases.items())
    ]


def _cross_validation(members: Mapping[str, Member], count: int, seed: int, notes: list[str]) -> dict[str, list[str]]:
    patients = _patients(members)
    if len(patients) < 2:
        raise FoldError(f"cross-validation needs at least 2 patients, found {len(patients)}. Train on everything with fold {ALL!r}")
    if len(patients) < count:
        notes.append(f"{len(patients)} patients make {len(patients)} folds, not {count}")
        count = len(patients)
    return {str(index): [name for p in group for name in p.cases] for index, group in enumerate(spread(patients, count, seed))}


def _by_centre(members: Mapping[str, Member]) -> dict[str, list[str]]:
    centres = _centres(members, "loco")
    for centre in centres:
        if reason := _unusable(centre):
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


# --- extending


def _joined(folds: Folds, new: Sequence[str]) -> dict[str, Fold]:
    placed = [name for fold in folds.folds.values() for name in fold.validation]
    homes = {folds.members[case].patient: name for name, fold in folds.folds.items() for case in fold.validation if case in folds.members}
    partition = len(folds.folds) > 1 and len(placed) == len(set(placed)) and not set(folds.members) - set(placed) - set(new)
    validation = {name: list(fold.validation) for name, fold in folds.folds.items()}
    training = {name: list(fold.training) for name, fold in folds.folds.items()}
    kinds = {
        name: Counter(_kinds(_patients({n: folds.members[n] for n in cases if n in folds.members}))) for name, cases in validation.items()
    }
    for patient in _patients({name: folds.members[name] for name in new}):
        home = homes.get(patient.name)
        if home is None and partition:
            home = _new_home(folds.scheme, patient, validation, kinds)
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
        if reason := _unusable(centre):
            raise FoldError(f"loco: case {patient.cases[0]}: its centre {centre!r} {reason}. Give it another in cases.csv")
        return centre
    if _is_grouped(scheme):
        theirs = [name for name in validation if kinds[name][centre]]
        return theirs[0] if theirs else min(validation, key=lambda name: len(validation[name]))
    return min(validation, key=lambda name: (kinds[name][kind], kinds[name][centre], len(validation[name])))


def _kinds(patients: Iterable[Patient]) -> list[Any]:
    """What the patients are counted by: centre, and centre with labels."""
    return [key for patient in patients for key in (patient.centre, (patient.centre, patient.traits))]


def _unusable(name: str) -> str | None:
    """Why no fold can be called that; None when one can."""
    return "is the name of the fold of all cases" if name == ALL else bad_name(name)


def _is_grouped(scheme: str) -> bool:
    match = BUILT_IN.fullmatch(scheme)
    return match is not None and match[1] == "grouped"


# --- checks


def _name_problems(names: Iterable[str]) -> list[str]:
    return [f"no fold can be called {name!r}: that {reason}" for name in names if (reason := _unusable(name))]


def _require_patients_apart(folds: Folds, source: str = "") -> None:
    """Raises FoldError naming each patient who is on both sides of a fold."""
    problems = []
    for name, fold in folds.folds.items():
        training = {folds.members[case].patient: case for case in fold.training if case in folds.members}
        for case in fold.validation:
            patient = folds.members[case].patient if case in folds.members else None
            if patient in training:
                problems.append(f"fold {name}: patient {patient} is in training ({training[patient]}) and in validation ({case})")
    if problems:
        where = source or f"scheme {folds.scheme!r}"
        raise FoldError(
            f"{where}: the same patient must not be on both sides of a fold:\n" + "\n".join(f"  - {problem}" for problem in problems)
        )


def _require_centres_apart(folds: Folds) -> None:
    for name, fold in folds.folds.items():
        both = {folds.members[case].centre for case in fold.training} & {folds.members[case].centre for case in fold.validation}
        if both:
            raise FoldError(
                f"scheme {folds.scheme!r}, fold {name}: the centre {sorted(both)[0]!r} is now on both sides: cases.csv gives a "
                "case another centre than before, or a patient was seen in a second one. Make new folds, under another --name"
            )


def _fold_problems(name: str, fold: Fold, members: Mapping[str, Member]) -> list[str]:
    problems = []
    if unknown := sorted({*fold.training, *fold.validation} - set(members)):
        problems.append(f"fold {name}: no such case: {list_names(unknown)}.{near_matches(unknown[0], sorted(members))}")
    if both := sorted(set(fold.training) & set(fold.validation)):
        problems.append(f"fold {name}: both in training and in validation: {list_names(both)}")
    for side, names in (("training", fold.training), ("validation", fold.validation)):
        if not names:
            problems.append(f"fold {name}: has no {side} cases")
        if len(set(names)) < len(names):
            problems.append(f"fold {name}: {side} names a case twice: {list_names(sorted({n for n in names if names.count(n) > 1}))}")
    return problems


def _file_notes(folds: Folds) -> tuple[str, ...]:
    notes = []
    used = {case for fold in folds.folds.values() for case in (*fold.training, *fold.validation)}
    if rest := sorted(set(folds.members) - used):
        notes.append(f"{len(rest)} case(s) are in no fold: {list_names(rest)}")
    validated = [case for fold in folds.folds.values() for case in fold.validation]
    if again := sorted({case for case in validated if validated.count(case) > 1}):
        notes.append(f"{len(again)} case(s) are validated in several folds: {list_names(again)}")
    return tuple(notes)


def _split(item: Any, index: int, path: Path) -> Fold:
    if not isinstance(item, dict) or not isinstance(item.get("train"), list) or not isinstance(item.get("val"), list):
        raise FoldError(f'{path}: entry {index} must be {{"train": [...], "val": [...]}}, found {str(item)[:80]}')
    return Fold(_names(item["train"]), _names(item["val"]))


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise FoldError(f"a fold's cases must be a list of names, found {str(value)[:80]}")
    return tuple(sorted(value))
