"""What a prognosis is asked for: a target is declared, never guessed. Shipped are `rfs` and `hpv` for HECKTOR's columns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from autoseg.dataset.case import list_names, near_matches
from prognosis.columns import Kind, Role, find, key, shipped, spellings
from prognosis.errors import TargetError

Unit = Literal["days", "months", "years"]
UNITS: tuple[str, ...] = get_args(Unit)
DAYS_PER: Mapping[str, float] = {"days": 1.0, "months": 365.25 / 12, "years": 365.25}

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Target:
    """An outcome that is asked for.

    Args:
        name: also the name of a folder.
        title: for the report.
        kind: time to an event, or a yes/no state.
        event: the column that says whether the event was seen; the label's column for a binary target.
        positive, negative: the two values that it has; any third is an error.
        competing: columns (1 or 0) of events after which the target's can no longer be seen; such patients are censored.
        time: the column of the time to the event or to the end of observation; None for a binary target.
        unit: of the time column.
        origin: what time is counted from, in words.
        horizon_days: when risks are told and compared; None: the whole follow-up.
        not_at_risk: what a time of 0 or less is: an "error", or a patient to "exclude", counted in the cohort flow.
        excluded: columns that are no predictors for this target, whatever their role. Tests of HPV never predict a target that is one.
        why_excluded: in words.
    """

    name: str
    title: str
    kind: Literal["survival", "binary"]
    event: str
    positive: str = "1"
    negative: str = "0"
    competing: tuple[str, ...] = ()
    time: str | None = None
    unit: Unit = "days"
    origin: str = ""
    horizon_days: float | None = None
    not_at_risk: Literal["error", "exclude"] = "error"
    excluded: tuple[str, ...] = ()
    why_excluded: str = ""

    @property
    def outcome_columns(self) -> tuple[str, ...]:
        """Every column that the outcome is read from."""
        return tuple(name for name in (self.event, self.time, *self.competing) if name)


SHIPPED: Mapping[str, Target] = {
    "rfs": Target(
        "rfs",
        "Recurrence-free survival",
        "survival",
        event="Relapse",
        time="RFS",
        unit="days",
        origin="the end of radiotherapy",
        horizon_days=730.0,
    ),
    "hpv": Target(
        "hpv",
        "HPV status",
        "binary",
        event="HPV Status",
        origin="diagnosis",
        excluded=("Treatment", "Surgery", "Chemotherapy"),
        why_excluded="treatment is chosen when the HPV status is known",
    ),
}


@dataclass(frozen=True)
class Declaration:
    """What cohort.toml and the shipped definitions say together.

    Args:
        targets: by name.
        roles, kinds: of the columns that cohort.toml names; `role` and `kind` add the shipped ones.
        known_at_origin: columns that are declared to be known when the clock starts, although their names tell otherwise.
        patient, centre, case: the identifying columns; None: found by their usual names.
        decimal: "." or ",".
        delimiter: of the table; None: found.
        encoding: of the table; None: UTF-8, or what the file's first bytes say.
        header_rows: how many lines of the table name its columns; their parts are joined with "/".
        missing: words that stand for a missing value besides the usual ones.
        source: the file, for messages.
    """

    targets: Mapping[str, Target] = field(default_factory=lambda: dict(SHIPPED))
    roles: Mapping[str, Role] = field(default_factory=dict)
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    known_at_origin: frozenset[str] = frozenset()
    patient: str | None = None
    centre: str | None = None
    case: str | None = None
    decimal: str = "."
    delimiter: str | None = None
    encoding: str | None = None
    header_rows: int = 1
    missing: tuple[str, ...] = ()
    source: Path | None = None

    def target(self, name: str) -> Target:
        """The target of that name.

        Raises:
            TargetError: there is none; tells those that are, and how to declare one.
        """
        if name in self.targets:
            return self.targets[name]
        hint = near_matches(name, list(self.targets))
        where = self.source or "cohort.toml"
        raise TargetError(
            f"--target {name}: no such target; declared are {', '.join(self.targets)}.{hint} "
            f"Declare it in {where}, for example:\n{example_block(name)}"
        )

    def role(self, column: str) -> Role | None:
        """The role of a column, declared or shipped; None where nobody said. A column of a survival target's outcome is always outcome."""
        if self.survival_target_of(column) is not None:
            return "outcome"
        if column in self.roles:
            return self.roles[column]
        if column in {self.patient, self.case}:
            return "identifier"
        if column == self.centre:
            return "centre"
        known = shipped(column)
        return known.role if known else None

    def kind(self, column: str) -> Kind | None:
        """Whether a column holds numbers or levels, declared or shipped; None: its values decide."""
        known = shipped(column)
        return self.kinds.get(column) or (known.kind if known else None)

    def survival_target_of(self, column: str) -> Target | None:
        """The survival target whose outcome is read from a column; None for any other column."""
        for target in self.targets.values():
            if target.kind == "survival" and means(column, target.outcome_columns):
                return target
        return None


def means(column: str, names: Iterable[str]) -> bool:
    """Whether a column is one of some names, in any known spelling."""
    return any(key(column) in map(key, spellings(name)) for name in names)


def resolve(columns: Iterable[str], name: str, target: Target, table: Path) -> str:
    """The column of a table that a target's column name means.

    Raises:
        TargetError: the table has none, or several.
    """
    columns = tuple(columns)
    found = find(columns, name)
    if len(found) == 1:
        return found[0]
    if found:
        listed = " and ".join(map(repr, found))
        raise TargetError(f"{table}: the target {target.name} is read from {name!r}, and both {listed} mean that. Take one of them out")
    names = " or ".join(map(repr, spellings(name)))
    raise TargetError(
        f"{table}: the target {target.name} is read from the column {names}, which the table lacks.{near_matches(name, list(columns))} "
        f"It has: {list_names(columns)}. Name the right columns in cohort.toml:\n{example_block(target.name)}"
    )


def example_block(name: str) -> str:
    """A target as cohort.toml would declare it."""
    return (
        f'  [targets.{name}]\n  kind = "survival"      # or "binary": then only event, positive and negative\n'
        '  event = "relapse"      # 1 = seen, 0 = not seen\n  time = "relapse_days"\n  unit = "days"\n'
        '  origin = "end of radiotherapy"\n  horizon = 730'
    )
