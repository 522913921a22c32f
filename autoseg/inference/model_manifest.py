"""A model folder's manifest, changed so that a reader finds a whole model at every moment, and after a kill at any moment.

A change writes the manifest twice. First each changing file's entry gets the coming size and SHA-256 as `incoming` beside those that hold;
then the files are replaced one by one; then the manifest says only what is there now. A file is intact if it is one of the two.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from autoseg import files
from autoseg.errors import ModelError

logger = logging.getLogger(__name__)

NAME = "manifest.json"
SCHEMA = "autoseg-manifest/1"
INCOMING = "incoming"

Entry = dict[str, Any]


def read_entries(folder: Path) -> dict[str, Entry]:
    """File name -> what the manifest says of it.

    Raises:
        ModelError: there is no manifest, or it is malformed.
    """
    return _entries(files.read_json(folder / NAME, error=ModelError), str(folder / NAME))


def parse_entries(data: bytes, source: str) -> dict[str, Entry]:
    """The same from a manifest's bytes; `source` names it in errors."""
    return _entries(files.parse_json(data, source, error=ModelError), source)


def _entries(value: Any, source: str) -> dict[str, Entry]:
    entries = value.get("files") if isinstance(value, dict) and value.get("schema") == SCHEMA else None
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise ModelError(f"{source}: is no manifest of schema {SCHEMA}. Get the model again from where it came.")
    return entries


def write_entries(folder: Path, entries: Mapping[str, Entry]) -> None:
    """Replaces the manifest."""
    files.write_json(folder / NAME, document(entries))


def document(entries: Mapping[str, Entry]) -> dict[str, Any]:
    """The manifest's JSON document."""
    return {"schema": SCHEMA, "files": {name: entries[name] for name in sorted(entries)}}


def measure(data: bytes) -> Entry:
    """The entry of a file with this content."""
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def accepted(entry: Entry | None) -> list[Entry]:
    """The contents that a file may have: size and SHA-256 of each."""
    if entry is None:
        return []
    incoming = entry.get(INCOMING)
    held = {key: entry[key] for key in ("size", "sha256") if key in entry}
    return [*([held] if held else []), *([incoming] if isinstance(incoming, dict) else [])]


def is_held(entry: Entry) -> bool:
    """Whether the file must be there; one that is only on its way need not be."""
    return "sha256" in entry


def damage(path: Path, entry: Entry | None, data: bytes | None = None) -> tuple[str, str | None]:
    """A file's SHA-256, and what is wrong with it: None if it is as its entry says.

    Args:
        data: its content, where that was read already.
    """
    choices = accepted(entry)
    if not choices:
        return "", "is not listed: nothing says that it is intact"
    if data is None and not path.is_file():
        return "", "is missing"
    size = path.stat().st_size if data is None else len(data)
    if size not in [choice.get("size") for choice in choices]:
        return "", f"has {size} bytes where {choices[0].get('size')} are expected"
    digest = files.sha256_file(path) if data is None else hashlib.sha256(data).hexdigest()
    found = digest in [choice.get("sha256") for choice in choices]
    return digest, None if found else "has another SHA-256 (its content was changed)"


def settled(folder: Path, names: Iterable[str]) -> dict[str, Entry]:
    """An entry for each of these files, which are there: as listed, measured where unlisted; what a killed change left is decided.

    A listed file is not measured anew: damage would become the truth. Only for the holder of the folder's lock.
    """
    try:
        listed = read_entries(folder) if (folder / NAME).exists() else {}
    except ModelError as error:
        logger.warning("%s The manifest is written anew", error)
        listed = {}
    entries = {}
    for name in names:
        choices = accepted(listed.get(name))
        if not choices:
            choices = [{"size": (folder / name).stat().st_size, "sha256": files.sha256_file(folder / name)}]
        elif len(choices) > 1:
            digest = files.sha256_file(folder / name)
            choices = [choice for choice in choices if choice.get("sha256") == digest] or choices
        entries[name] = choices[0]
    return entries


def replace_files(folder: Path, entries: Mapping[str, Entry], contents: Mapping[str, bytes]) -> None:
    """Replaces files and their entries together, in the order given; only for the holder of the folder's lock.

    Args:
        entries: of all files that stay or are replaced, as `settled` gives them.
        contents: file name -> new content.
    """
    new = {name: measure(data) for name, data in contents.items()}
    between = {name: entries.get(name, {}) | ({INCOMING: entry} if entries.get(name) != entry else {}) for name, entry in new.items()}
    write_entries(folder, {**entries, **between})
    for name, data in contents.items():
        files.write_bytes(folder / name, data)
    write_entries(folder, {**entries, **new})
