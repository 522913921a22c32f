"""Folds: which cases a network learns from and which it is tested on. A patient is never on both sides.

Schemes: `cv5` (any number: `cv3`) spreads patients, centres and lesions evenly; `loco` leaves one centre out a fold; `grouped5` makes folds
of whole centres; a file gives them one by one. A scheme's folds depend on the cases' names, patients, centres and labels and on the seed,
never on their order. `fold_schemes` works them out, `fold_file` reads them, `fold_joining` finds a place for new cases.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from autoseg.dataset.case import Case, bad_name, list_names
from autoseg.dataset.fold import ALL, Fold, Member, Presence, is_grouped, member_of, unusable_name
from autoseg.dataset.fold_joining import joined
from autoseg.errors import FoldError

__all__ = ["ALL", "Fold", "Folds", "Member", "Presence", "names_in", "parse_folds", "require_centres_apart", "require_patients_apart"]

SCHEMA = "autoseg-folds/1"
JOIN = "+"


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
    def keeps_centres_apart(self) -> bool:
        """Whether the scheme is one that holds out whole centres."""
        return self.scheme == "loco" or is_grouped(self.scheme)

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

        A new case of a known patient goes where the patient is. Any other goes to the fold that has the fewest patients of its centre with
        its labels, then of its centre, then the fewest cases; under `grouped` to its centre's fold, for a new centre to the one with the
        fewest cases; under `loco` to its centre's fold, which is made if need be. Where the folds' validation cases are no partition (a
        hold-out file), it joins the training cases of every fold.

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
            members[case.name] = member_of(case, presence, known.labels if known else None)
            if known is None:
                new.append(case.name)
        folds = replace(self, members=members)
        if new:
            folds = replace(folds, folds=joined(self.scheme, self.folds, members, new))
        require_patients_apart(folds)
        if self.keeps_centres_apart:
            require_centres_apart(folds)
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
            FoldError: another schema, a value of the wrong form, a name that no folder can have, or a patient (under `loco` and `grouped` a
                centre) on both sides of a fold.
        """
        read = parse_folds(value, source)
        require_patients_apart(read, source)
        if read.keeps_centres_apart:
            require_centres_apart(read)
        return read


def parse_folds(value: Any, source: str) -> Folds:
    """The folds in a JSON value of schema autoseg-folds/1, nothing being said of who is in them.

    Raises:
        FoldError: another schema, a value of the wrong form, or a name that no folder can have.
    """
    schema = value.get("schema") if isinstance(value, dict) else None
    if schema != SCHEMA:
        raise FoldError(f"{source}: the field 'schema' must be {SCHEMA!r}, found {schema!r}")
    try:
        folds = {str(name): Fold(names_in(fold["training"]), names_in(fold["validation"])) for name, fold in value["folds"].items()}
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


def _name_problems(names: Iterable[str]) -> list[str]:
    return [f"no fold can be called {name!r}: that {reason}" for name in names if (reason := unusable_name(name))]


def require_patients_apart(folds: Folds, source: str = "") -> None:
    """Raises FoldError naming each patient who is on both sides of a fold; a case of which nothing is known is a patient of its own."""
    patients = {name: member.patient for name, member in folds.members.items()}
    problems = []
    for name, fold in folds.folds.items():
        training = {patients.get(case, case): case for case in fold.training}
        for case in fold.validation:
            patient = patients.get(case, case)
            if patient in training:
                problems.append(f"fold {name}: patient {patient} is in training ({training[patient]}) and in validation ({case})")
    if problems:
        where = source or f"scheme {folds.scheme!r}"
        raise FoldError(
            f"{where}: the same patient must not be on both sides of a fold:\n" + "\n".join(f"  - {problem}" for problem in problems)
        )


def require_centres_apart(folds: Folds) -> None:
    """Raises FoldError where a centre is on both sides of a fold."""
    centres = {name: member.centre for name, member in folds.members.items()}
    for name, fold in folds.folds.items():
        both = {centres.get(case, "") for case in fold.training} & {centres.get(case, "") for case in fold.validation}
        if both:
            raise FoldError(
                f"scheme {folds.scheme!r}, fold {name}: the centre {sorted(both)[0]!r} is now on both sides: cases.csv gives a "
                "case another centre than before, or a patient was seen in a second one. Make new folds, under another --name"
            )


def names_in(value: Any) -> tuple[str, ...]:
    """The names in a JSON list, sorted; raises FoldError where it is something else."""
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise FoldError(f"a fold's cases must be a list of names, found {str(value)[:80]}")
    return tuple(sorted(value))
