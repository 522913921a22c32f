"""What was predicted from what: one line a case beside the masks, so that an interrupted run can go on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg import files
from autoseg.dataset.case import Case
from autoseg.errors import ResourceError
from autoseg.inference.review import Review

NAME = "predictions.jsonl"


@dataclass(frozen=True)
class Record:
    """One predicted case: hashes of what went in and of what came out.

    Attributes:
        case: its name.
        settings: hash of the model, the folds and how they were applied.
        inputs: hash of the image files.
        outputs: file name -> SHA-256, of the mask and where written the probabilities.
        notes: what was found on the way.
        review: its score and findings; None in records of earlier releases.
        judged: hash of what the models told of their training cases when it was reviewed; "" in records of earlier releases.
    """

    case: str
    settings: str
    inputs: str
    outputs: dict[str, str]
    notes: tuple[str, ...] = ()
    review: Review | None = None
    judged: str = ""


class Records:
    """The records of an output folder.

    They are appended with one write each, so that several processes may share the folder; a line that a kill cut short is ignored.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.path = self.folder / NAME
        self._known = _read(self.path)

    def of(self, case: str) -> Record | None:
        """The last record of a case of that name; None where it has none."""
        return self._known.get(case)

    def complete(self, case: Case, settings: str, outputs: list[str]) -> Record | None:
        """The record of a case that was predicted with the same settings from the same files and whose outputs are intact; else None."""
        record = self._known.get(case.name)
        if record is None or record.settings != settings or not set(outputs) <= set(record.outputs):
            return None
        try:
            intact = all(files.sha256_file(self.folder / name) == record.outputs[name] for name in outputs)
            return record if intact and hash_inputs(case) == record.inputs else None
        except OSError:
            return None

    def reviews(self) -> dict[str, Review]:
        """Case -> its review, of all that are still in the folder, whichever run or process predicted them."""
        return {
            case: record.review
            for case, record in self._known.items()
            if record.review is not None and any((self.folder / name).is_file() for name in record.outputs)
        }

    def add(self, record: Record) -> None:
        """Appends a record, on the disk when this returns."""
        review = record.review.to_dict() if record.review else None
        line = json.dumps(vars(record) | {"notes": list(record.notes), "review": review}, sort_keys=True, ensure_ascii=True) + "\n"
        try:
            with open(self.path, "a+b", buffering=0) as stream:
                torn = stream.seek(0, os.SEEK_END) > 0 and stream.seek(-1, os.SEEK_END) >= 0 and stream.read(1) != b"\n"
                # A line that a kill cut short is ended first.
                stream.write((b"\n" if torn else b"") + line.encode("ascii"))
                os.fsync(stream.fileno())
        except OSError as error:
            raise ResourceError(f"{self.path}: cannot be written: {error.strerror}. Free some space; what is predicted is kept") from error
        self._known[record.case] = record


def hash_inputs(case: Case, sha256: Callable[[Path], str] = files.sha256_file) -> str:
    """A hash of what the case's image files hold, each hashed by `sha256`; names and places do not enter."""
    return files.sha256_json([[sha256(source.path), source.component] for source in case.images])


def _read(path: Path) -> dict[str, Record]:
    found: dict[str, Record] = {}
    if not path.is_file():
        return found
    for line in path.read_text(encoding="ascii", errors="replace").splitlines():
        record = _parse(line)
        if record is not None:
            found[record.case] = record
    return found


def _parse(line: str) -> Record | None:
    try:
        document: dict[str, Any] = json.loads(line)
        review = Review.from_dict(document.get("review"))
        notes = tuple(document["notes"])
        judged = str(document.get("judged", ""))
        return Record(document["case"], document["settings"], document["inputs"], dict(document["outputs"]), notes, review, judged)
    except (ValueError, KeyError, TypeError):
        return None
