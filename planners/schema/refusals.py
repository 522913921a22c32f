"""What a document of the schema breaks, in our own words: the path as the document has it, what is allowed there, and what was found."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

ALLOWED = {
    "a whole number": ("int_type", "int_parsing", "int_from_float", "int_parsing_size"),
    "a number": ("float_type", "float_parsing"),
    "a finite number": ("finite_number",),
    "true or false": ("bool_type", "bool_parsing"),
    "a text": ("string_type",),
    "a list": ("tuple_type", "list_type"),
    "an object ({...})": ("dict_type", "model_type", "model_attributes_type", "mapping_type"),
    "null": ("none_required",),
}
KINDS = {kind: allowed for allowed, kinds in ALLOWED.items() for kind in kinds}
BOUNDS = {
    "greater_than": "above {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "less_than": "below {lt:g}",
    "less_than_equal": "{le:g} or less",
}
"""Error type of pydantic -> what is allowed, with the names of its context."""


def readable(error: ValidationError, document: Any, without: str = "") -> str:
    """What pydantic found wrong in a document, one part a field.

    Args:
        document: what was validated.
        without: a type of errors that is left out.
    """
    ours: dict[str, list[str]] = {}
    allowed: dict[str, tuple[list[str], str]] = {}
    for item in error.errors():
        if item["type"] == without:
            continue
        where, what, found = _path(item, document), _allowed(item), _short(item["input"])
        if item["type"] == "union_tag_invalid":  # the tag stands in the object
            tag = str(item["ctx"]["discriminator"]).strip("'")
            where, found = f"{where}.{tag}", _short(item["ctx"]["tag"])
        if what is None:
            ours.setdefault(where, []).append(_own(item))
        elif what not in (choices := allowed.setdefault(where, ([], found))[0]):
            choices.append(what)
    parts = {where: [f"must be {' or '.join(choices)}, found {found}"] for where, (choices, found) in allowed.items()}
    for where, texts in ours.items():
        parts[where] = [*parts.get(where, []), *texts]
    # What is wrong inside of a value says more than that the value is none of the other kinds.
    deepest = [where for where in parts if not any(other.startswith(f"{where}.") for other in parts)]
    return "; ".join(f"{where}: {text}" if where else text for where in deepest for text in parts[where])


def _path(item: Mapping[str, Any], document: Any) -> str:
    """Where it is in the document: pydantic also names which kind of several it tried, and that is no place."""
    keys: list[str] = []
    loc: Sequence[int | str] = item["loc"]
    for place, part in enumerate(loc):
        there = part in document if isinstance(document, dict) else isinstance(document, list | tuple) and part in range(len(document))
        if there:
            document = document[part]
        if there or (item["type"] == "missing" and place == len(loc) - 1):
            keys.append(str(part))
    return ".".join(keys)


def _allowed(item: Mapping[str, Any]) -> str | None:
    """What is allowed at that place, to go after "must be"; None where that is said otherwise."""
    kind, context = item["type"], item.get("ctx", {})
    if kind in KINDS:
        return KINDS[kind]
    if kind in BOUNDS:
        return BOUNDS[kind].format(**context)
    if kind == "literal_error":
        return _one_of(context["expected"])
    if kind == "union_tag_invalid":
        return _one_of(context["expected_tags"])
    if kind == "string_pattern_mismatch":
        return f"a text that matches {context['pattern']}"
    if kind in ("too_long", "too_short"):
        return f"a list of {context.get('max_length', context.get('min_length'))}"
    return None


def _one_of(expected: str) -> str:
    """Pydantic's "'a', 'b' or 'c'" as "one of a, b, c"."""
    names = re.split(r", | or ", expected.replace("'", ""))
    return " or ".join(names) if len(names) < 3 else f"one of {', '.join(names)}"


def _own(item: Mapping[str, Any]) -> str:
    """What a check of ours says, and what is said in a way of its own."""
    kind = item["type"]
    if kind == "extra_forbidden":
        return "is not a known field"
    if kind == "missing":
        return "is missing"
    if kind == "union_tag_not_found":
        return f"needs a field {item['ctx']['discriminator']}, found {_short(item['input'])}"
    return str(item["msg"]).removeprefix("Value error, ")


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
