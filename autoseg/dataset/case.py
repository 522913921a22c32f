"""A case and where its files lie; how file names tell a case from its channels."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

FILE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")
"""What is read, the longer of two that overlap first."""

CHANNEL_SUFFIX = re.compile(r"^(?P<case>.+)_(?P<channel>\d{4})$")

UNSAFE_IN_NAMES = frozenset('/\\:*?"<>|') | {chr(code) for code in range(32)}
LISTED_AT_MOST = 10


@dataclass(frozen=True)
class Source:
    """Where one channel lies: a file, or the `component`-th volume (from 0) of a 4-D file."""

    path: Path
    component: int | None = None


@dataclass(frozen=True)
class Case:
    """One imaging study.

    Args:
        images: one source a channel, in channel order.
        label: the mask's file; None where there is none (prediction).
        patient: who it is; the case's own name unless cases.csv tells.
        centre: the hospital; "" where unknown.
        extra: further columns of cases.csv.
    """

    name: str
    images: tuple[Source, ...]
    label: Path | None = None
    patient: str = ""
    centre: str = ""
    extra: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "patient", self.patient or self.name)

    @property
    def sources(self) -> list[tuple[Path, int | None]]:
        """(file, component) of each channel, as `images.read_channels` takes them."""
        return [(source.path, source.component) for source in self.images]


def split_ending(name: str) -> tuple[str, str]:
    """A file name's stem and its ending among those that are read; the ending is "" for any other file."""
    for ending in FILE_ENDINGS:
        if name.endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)], ending
    return name, ""


def split_channel(stem: str) -> tuple[str, int | None]:
    """A stem's case name and channel index: ("liver_01", 0) for "liver_01_0000", ("liver_01", None) for "liver_01"."""
    match = CHANNEL_SUFFIX.match(stem)
    return (match["case"], int(match["channel"])) if match else (stem, None)


def has_misspelt_ending(name: str) -> bool:
    """Whether only capitals keep a file name from having an ending that is read (scan.NII.GZ)."""
    return not split_ending(name)[1] and bool(split_ending(name.lower())[1])


def bad_name(name: str) -> str | None:
    """Why a case name cannot be used as a file name on all systems; None when it can."""
    if not name or name != name.strip() or name.startswith("."):
        return "is empty, begins with a dot, or begins or ends with a space"
    bad = sorted(UNSAFE_IN_NAMES & set(name))
    return f"holds {bad[0]!r}, which file names cannot" if bad else None


def list_names(names: Iterable[str]) -> str:
    """The names, comma-separated; many are cut and counted."""
    names = list(names)
    shown = ", ".join(names[:LISTED_AT_MOST])
    return shown if len(names) <= LISTED_AT_MOST else f"{shown} and {len(names) - LISTED_AT_MOST} more"


def near_matches(name: str, known: Sequence[str]) -> str:
    """What to say about an unknown name: the known ones that it is close to."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(close)}?" if close else ""
