"""ensemble.json: a model folder's others, which segment together with it, and the rules that follow. They lie inside it as member_1, ..."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from autoseg.errors import ModelError
from autoseg.inference.postprocessing import Rule, parse_rules, rules_text

NAME = "ensemble.json"
SCHEMA = "autoseg-ensemble/1"
PREFIX = "member_"


@dataclass(frozen=True)
class EnsembleDocument:
    """What ensemble.json says.

    Attributes:
        members: names of the models, the folder's own first; the n-th one's folder is `member_folder(n)`.
        rules: of postprocessing.
    """

    members: tuple[str, ...]
    rules: tuple[Rule, ...] = ()

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders of the other models."""
        return tuple(member_folder(number) for number in range(1, len(self.members)))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"schema": SCHEMA, "members": list(self.members), "postprocessing": [rule.to_dict() for rule in self.rules]}

    def text(self) -> str:
        """In words."""
        together = f"the mean probabilities of {' and '.join(self.members)}" if len(self.members) > 1 else self.members[0]
        return f"{together}; postprocessing: {rules_text(self.rules)}"


def member_folder(number: int) -> str:
    """The folder of the n-th other model, from 1."""
    return f"{PREFIX}{number}"


def member_folders(names: Iterable[str]) -> list[str]:
    """Folders of other models among the first parts of these paths, in order."""
    found = {PurePosixPath(name).parts[0] for name in names if "/" in name}
    numbers = (name.removeprefix(PREFIX) for name in found if name.startswith(PREFIX))
    return [
        member_folder(number) for number in sorted(int(text) for text in numbers if text.isascii() and text.isdigit() and text[0] != "0")
    ]


def parse(data: bytes, source: str) -> EnsembleDocument:
    """The document in a file's bytes; ModelError where it is none."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{source}: is no valid JSON: {error}") from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise ModelError(f"{source}: 'schema' must be '{SCHEMA}'. A newer release may have written it")
    names = document.get("members")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ModelError(f"{source}: 'members' must be a list of names")
    return EnsembleDocument(tuple(names), parse_rules(document.get("postprocessing"), source))
