"""What lies in a folder of HECKTOR data. Everything after `layouts.py` knows studies and tables only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

CT, PT, MASK = "CT", "PT", "mask"
IMAGES = (CT, PT)


@dataclass(frozen=True)
class Study:
    """A patient's files: a CT, a PET and, where there is one, a mask.

    Attributes:
        files: `CT`, `PT` and `MASK` -> file.
        is_test: whether the edition hands the patient out to be tested on; nothing learns from it, also where there is a mask.
    """

    patient: str
    files: Mapping[str, Path]
    is_test: bool = False


@dataclass
class Tree:
    """What was found.

    Attributes:
        edition: the layout's name in `layouts.EDITIONS`.
        studies: those that can be imported, by patient.
        tables: the clinical tables, in the order in which they are joined.
        problems: one message for each patient whose study cannot be imported.
        notes: what a user should know: files that are not used.
    """

    edition: str
    folder: Path
    studies: list[Study] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
