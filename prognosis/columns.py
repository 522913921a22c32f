"""What the columns of a clinical table are to a prognosis: shipped roles of HECKTOR's columns, and names that tell of an outcome."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Role = Literal["predictor", "outcome", "follow-up", "post-baseline", "identifier", "centre"]
Kind = Literal["numeric", "categorical"]
ROLES: tuple[str, ...] = get_args(Role)
KINDS: tuple[str, ...] = get_args(Kind)

CASE = ("case",)
PATIENT = ("patient", "PatientID")
CENTRE = ("centre", "center", "CenterID", "CentreID")
"""Names under which a table may hold its identifiers, the first that is there counts."""


@dataclass(frozen=True)
class Shipped:
    """A column of HECKTOR's tables: its spellings over the years (2022, 2025, 2026), what it is, and its kind (None: by its values)."""

    spellings: tuple[str, ...]
    role: Role
    kind: Kind | None = None


HECKTOR = (
    Shipped(PATIENT, "identifier"),
    Shipped(CASE, "identifier"),
    Shipped(CENTRE, "centre"),
    Shipped(("Task 1",), "identifier"),
    Shipped(("Task 2",), "identifier"),
    Shipped(("Age",), "predictor", "numeric"),
    Shipped(("Gender",), "predictor", "categorical"),
    Shipped(("Weight",), "predictor", "numeric"),
    Shipped(("Tobacco Consumption", "Tobacco"), "predictor", "categorical"),
    Shipped(("Alcohol Consumption", "Alcohol"), "predictor", "categorical"),
    Shipped(("Performance Status",), "predictor", "numeric"),
    Shipped(("HPV Status", "HPV status (0=-, 1=+)"), "predictor", "categorical"),
    Shipped(("Surgery",), "predictor", "categorical"),
    Shipped(("Chemotherapy",), "predictor", "categorical"),
    Shipped(("Treatment",), "predictor", "categorical"),
    Shipped(("T-stage",), "predictor"),
    Shipped(("N-stage",), "predictor"),
    Shipped(("M-stage",), "predictor", "categorical"),
    Shipped(("Relapse",), "outcome"),
    Shipped(("RFS", "RFS (days)"), "outcome"),
)

_TELLING: dict[Role, str] = {
    "outcome": """
        death dead died deceased alive mortality survival surv os rfs pfs dfs efs dss lrc relapse relapsed relapses recurrence recurrences
        recurred recurrent progression progressed locoregional distant event events outcome failure censor censored censoring
    """,
    "follow-up": "followup contact seen day days",
    "post-baseline": "post after stop stopped end ended salvage response toxicity residual removed unplanned",
}
_PHRASES: dict[Role, tuple[str, ...]] = {
    "outcome": ("vital status", "cause of death", "time to"),
    "follow-up": ("follow up",),
}


def key(name: str) -> str:
    """A column's name without capitals, spaces, underscores and hyphens: what makes "HPV_status" and "HPV Status" one column."""
    return re.sub(r"[\s_\-]+", "", name.casefold())


def shipped(name: str) -> Shipped | None:
    """What is known of a column by its name, or None."""
    return _BY_KEY.get(key(name))


def spellings(name: str) -> tuple[str, ...]:
    """All names that mean the same column."""
    known = shipped(name)
    return known.spellings if known else (name,)


def find(columns: Iterable[str], name: str) -> tuple[str, ...]:
    """The columns of a table that a name means: the one of exactly that name, else every one of another spelling; () for none."""
    columns = tuple(columns)
    if name in columns:
        return (name,)
    wanted = {key(spelling) for spelling in spellings(name)}
    return tuple(column for column in columns if key(column) in wanted)


def first_present(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """The first of some names that a table has, in any spelling of capitals, spaces and underscores."""
    by_key = {key(column): column for column in reversed(columns)}
    return next((by_key[key(name)] for name in names if key(name) in by_key), None)


def tells_hpv(name: str) -> bool:
    """Whether a column's name is that of an HPV test; p16 stains stand in for one."""
    return any(word in name.casefold() for word in ("hpv", "p16"))


def telling(name: str) -> tuple[Role, str] | None:
    """The role that a column's name tells of when it is not one of a predictor, and the word that tells it; None for any other name.

    >>> telling("Death_days")
    ('outcome', 'death')
    >>> telling("BW stop treat (kg)")
    ('post-baseline', 'stop')
    """
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).casefold())
    text = " ".join(words)
    for role, phrases in _PHRASES.items():
        for phrase in phrases:
            if f" {phrase} " in f" {text} ":
                return role, phrase
    for role, listed in _TELLING.items():
        for word in words:
            if word in listed.split():
                return role, word
    return None


_BY_KEY = {key(spelling): column for column in HECKTOR for spelling in column.spellings}
