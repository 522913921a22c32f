"""cohort.toml: read, checked as a whole, and joined with the shipped definitions."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from autoseg.dataset.case import near_matches
from prognosis.columns import KINDS, ROLES, key, shipped, telling
from prognosis.errors import TargetError, together
from prognosis.targets import DAYS_PER, NAME, SHIPPED, UNITS, Declaration, Target

SECTIONS = ("table", "columns", "targets")
DELIMITERS = {",": ",", ";": ";", "\t": "\t", "tab": "\t", "|": "|"}

Problems = list[str]


def read_declaration(path: Path | None) -> Declaration:
    """The shipped definitions, and what a cohort.toml adds to them or replaces; `None` for the shipped ones alone.

    Raises:
        TargetError: the file cannot be read or says something that it must not; all in one message.
    """
    if path is None:
        return Declaration()
    return parse_file(Path(path))


def parse_file(path: Path) -> Declaration:
    """The declaration in a cohort.toml.

    Raises:
        TargetError: with everything that is wrong in one message.
    """
    try:
        document = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise TargetError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise TargetError(f"{path}: is no UTF-8 text (byte {error.start}). Save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise TargetError(f'{path}: is no valid TOML: {error}. Names with spaces need quotes: "HPV Status" = "predictor"') from None
    return parse(document, path)


def parse(document: Mapping[str, Any], source: Path) -> Declaration:
    """The declaration that a document of sections [table], [columns] and [targets.NAME] makes.

    Raises:
        TargetError: with everything that is wrong in one message.
    """
    problems: Problems = []
    _known(document, SECTIONS, "", problems)
    sections = {name: document.get(name, {}) for name in SECTIONS}
    for name, value in sections.items():
        if not isinstance(value, dict):
            problems.append(f"{name}: must be a section [{name}], found {value!r}")
            sections[name] = {}
    declaration = _table(sections["table"], Declaration(source=source), problems)
    declaration = replace(declaration, targets=_targets(sections["targets"], problems))
    declaration = _columns(sections["columns"], declaration, problems)
    if problems:
        raise TargetError(f"{source}: {together(problems)}")
    return declaration


# --- what all sections share


def _known(section: Mapping[str, Any], names: Any, prefix: str, problems: Problems) -> None:
    for name in section:
        if name not in names:
            problems.append(f"{prefix}{name}: unknown; there are {', '.join(names)}.{near_matches(name, list(names))}")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_value(value: Any) -> bool:
    return type(value) in (int, float, bool) or _is_text(value)


def _is_text_list(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


# --- [table]


def _table(section: Mapping[str, Any], declaration: Declaration, problems: Problems) -> Declaration:
    rules: dict[str, tuple[str, Callable[[Any], bool]]] = {
        "patient": ("a column's name", _is_text),
        "centre": ("a column's name", _is_text),
        "case": ("a column's name", _is_text),
        "decimal": ('"." or ","', lambda value: value in (".", ",")),
        "delimiter": ('",", ";", "|" or "tab"', lambda value: isinstance(value, str) and value in DELIMITERS),
        "encoding": ('the name of an encoding, such as "cp1252"', _is_encoding),
        "header_rows": ("a number from 1 to 9", lambda value: type(value) is int and 1 <= value <= 9),
        "missing": ('a list of words, such as ["unknown"]', lambda value: isinstance(value, list) and all(map(_is_text, value))),
    }
    _known(section, rules, "table.", problems)
    changes = {}
    for name, (wanted, fits) in rules.items():
        if name in section and not fits(section[name]):
            problems.append(f"table.{name}: must be {wanted}, found {section[name]!r}")
        elif name in section:
            changes[name] = section[name]
    if "delimiter" in changes:
        changes["delimiter"] = DELIMITERS[changes["delimiter"]]
    if "missing" in changes:
        changes["missing"] = tuple(changes["missing"])
    if changes.get("decimal") == "," and changes.get("delimiter") == ",":
        problems.append("table.decimal: cannot be the comma that separates the columns too")
    return replace(declaration, **changes)


def _is_encoding(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool("a".encode(value))
    except (LookupError, ValueError):
        return False


# --- [targets.NAME]

TARGET_RULES: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "kind": ('"survival" or "binary"', lambda value: value in ("survival", "binary")),
    "title": ("text", _is_text),
    "event": ("a column's name", _is_text),
    "positive": ("the value that counts as the event", _is_value),
    "negative": ("the value that counts as no event", _is_value),
    "competing": ("a list of columns' names", _is_text_list),
    "time": ("a column's name", _is_text),
    "unit": (", ".join(map(repr, UNITS)), lambda value: isinstance(value, str) and value in UNITS),
    "origin": ('words, such as "diagnosis"', _is_text),
    "horizon": ("a number above 0, in the target's unit", lambda value: type(value) in (int, float) and 0 < value < 1e6),
    "not_at_risk": ('"error" or "exclude"', lambda value: value in ("error", "exclude")),
    "excluded": ("a list of columns' names", _is_text_list),
}
ONLY_SURVIVAL = ("time", "unit", "horizon", "competing", "not_at_risk")


def _targets(section: Mapping[str, Any], problems: Problems) -> dict[str, Target]:
    targets = dict(SHIPPED)
    for name, block in section.items():
        where = f"targets.{name}"
        if not NAME.fullmatch(name):
            problems.append(f"{where}: a target's name is made of letters, digits, - and _, since it becomes a folder's name")
        elif not isinstance(block, dict):
            problems.append(f"{where}: must be a section [{where}], found {block!r}")
        else:
            before = len(problems)
            _known(block, TARGET_RULES, f"{where}.", problems)
            for field, value in block.items():
                if field in TARGET_RULES and not TARGET_RULES[field][1](value):
                    problems.append(f"{where}.{field}: must be {TARGET_RULES[field][0]}, found {value!r}")
            _complete(block, name, problems)
            if len(problems) == before:
                targets[name] = _target(name, block)
                _check_target(targets[name], where, problems)
    return targets


def _complete(block: Mapping[str, Any], name: str, problems: Problems) -> None:
    """A target's parts are all declared: a unit or an origin that is guessed would go unnoticed into every figure."""
    known = SHIPPED.get(name)
    kind = block.get("kind") or (known.kind if known else None)
    if known is not None and kind != known.kind:
        problems.append(f"targets.{name}.kind: the shipped target {name} is {known.kind}. Give yours another name")
    needed = [] if known else ["kind", "event", *(("time", "unit", "origin") if kind == "survival" else ())]
    problems.extend(f"targets.{name}.{field}: is missing; it must be {TARGET_RULES[field][0]}" for field in needed if field not in block)
    if kind == "binary":
        problems.extend(f"targets.{name}.{field}: belongs to survival targets only" for field in ONLY_SURVIVAL if field in block)


def _target(name: str, block: Mapping[str, Any]) -> Target:
    own = {field.name for field in fields(Target)}
    changes: dict[str, Any] = {field: value for field, value in block.items() if field in own}
    for field in ("positive", "negative"):
        if field in changes:
            changes[field] = str(changes[field])
    for field in ("competing", "excluded"):
        if field in changes:
            changes[field] = tuple(changes[field])
    if "horizon" in block:
        unit = block.get("unit") or (SHIPPED[name].unit if name in SHIPPED else "days")
        changes["horizon_days"] = block["horizon"] * DAYS_PER[unit]
    if "excluded" in changes:
        changes["why_excluded"] = "cohort.toml excludes it"
    if name in SHIPPED:
        return replace(SHIPPED[name], **changes)
    return Target(**{"name": name, "title": name, **changes})


def _check_target(target: Target, where: str, problems: Problems) -> None:
    names = [key(column) for column in target.outcome_columns]
    twice = sorted({column for column in target.outcome_columns if names.count(key(column)) > 1})
    if twice:
        problems.append(f"{where}: the column {twice[0]!r} cannot be two of event, time and competing event")
    if target.positive.casefold() == target.negative.casefold():
        problems.append(f"{where}: positive and negative are both {target.positive!r}")


# --- [columns]


def _columns(section: Mapping[str, Any], declaration: Declaration, problems: Problems) -> Declaration:
    roles: dict[str, Any] = {}
    kinds: dict[str, Any] = {}
    known_at_origin = set()
    for column, value in section.items():
        entry = {"role": value} if isinstance(value, str) else value
        where = f'columns."{column}"'
        if not isinstance(entry, dict):
            problems.append(f"{where}: must be a role ({', '.join(ROLES)}) or {{ role = ..., kind = ... }}, found {value!r}")
            continue
        _known(entry, ("role", "kind", "known_at_origin"), f"{where}.", problems)
        role, kind, known = entry.get("role"), entry.get("kind"), entry.get("known_at_origin", False)
        if role is not None and role not in ROLES:
            problems.append(f"{where}: {role!r} is no role; there are {', '.join(ROLES)}")
        elif kind is not None and kind not in KINDS:
            problems.append(f"{where}.kind: must be {' or '.join(map(repr, KINDS))}, found {kind!r}")
        elif not isinstance(known, bool):
            problems.append(f"{where}.known_at_origin: must be true or false, found {known!r}")
        elif role == "predictor" and (refusal := refused(column, declaration, known)):
            problems.append(f"{where}: {refusal}")
        else:
            roles |= {column: role} if role else {}
            kinds |= {column: kind} if kind else {}
            known_at_origin |= {column} if known else set()
    return replace(declaration, roles=roles, kinds=kinds, known_at_origin=frozenset(known_at_origin))


def refused(column: str, declaration: Declaration, known_at_origin: bool = False) -> str | None:
    """Why a column cannot be a predictor; None where it can.

    Args:
        known_at_origin: the user says that it is known when the clock starts, whatever its name tells.
    """
    target = declaration.survival_target_of(column)
    if target is not None:
        return (
            f"is refused as a predictor: the outcome of the target {target.name} is read from it, and is not known when a prediction is "
            "made. Take the line out"
        )
    known = shipped(column)
    if known is not None and known.role == "outcome":
        return "is refused as a predictor: it is an outcome, which is not known when a prediction is made. Take the line out"
    if declaration.role(column) in ("identifier", "centre"):
        return (
            "is refused as a predictor: it tells who or where the patient is, which says nothing about a patient of another hospital. "
            "The centre-only control shows what it would be worth"
        )
    told = telling(column)
    if told and not known_at_origin:
        role, word = told
        return (
            f"is refused as a predictor: its name ({word!r}) tells of {_WHAT[role]}, which is not known when a prediction is made. "
            f'Give it the role "{role}"; or, where its value is known when the clock starts, say so: '
            '{ role = "predictor", known_at_origin = true }'
        )
    return None


_WHAT = {
    "outcome": "an outcome",
    "follow-up": "the follow-up",
    "post-baseline": "something measured after the clock starts",
}
