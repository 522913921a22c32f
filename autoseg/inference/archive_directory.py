"""The directory of an archive that somebody else made: names, kinds and sizes that no honest archive of a model has."""

from __future__ import annotations

import stat
import struct
import unicodedata
import zipfile
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

from autoseg.errors import ModelError

PICKLED = {".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".joblib", ".npz", ".dill", ".model"}
"""Endings of formats that are, or may hold, pickles."""

MAX_UNPACKED_BYTES = 20 << 30
MAX_ENTRIES = 100_000
MAX_NAME = 400
MAX_RATIO = 200
"""How many times its packed size a file may unpack to, from `RATIO_FROM_BYTES` on: JSON reaches 50, weights 2."""
RATIO_FROM_BYTES = 1 << 20

_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_ENCRYPTED = 0x1
_LOCAL_HEADER = 30
_UNICODE_PATH = 0x7075
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}


def check_directory(
    entries: Sequence[zipfile.ZipInfo], end: int, source: str, wanted: Callable[[PurePosixPath], bool] | None = None
) -> None:
    """Refuses what no honest archive of a model holds, from the archive's directory alone.

    Args:
        end: where the directory starts and the files' bytes end.
        wanted: which files will be read, pickles among them; None means any, and no pickles anywhere.

    Raises:
        ModelError: it holds such a thing; names it. Nothing was read but the directory.
    """
    if len(entries) > MAX_ENTRIES:
        raise ModelError(f"{source}: holds {len(entries)} files; a model has at most {MAX_ENTRIES}")
    read = [entry for entry in entries if wanted is None or wanted(PurePosixPath(entry.filename))]
    for problem_of, checked in ((_name_problem, entries), (_kind_problem, entries), (_size_problem, read)):
        for entry in checked:
            if problem := problem_of(entry):
                raise ModelError(f"{source}: holds {entry.orig_filename[:MAX_NAME]!r}, {problem}; refused before anything was written")
    if wanted is None and (pickled := next((entry.filename for entry in entries if _ending(entry) in PICKLED), None)):
        raise ModelError(
            f"{source}: holds {pickled!r}: a pickled file can run any code when it is opened; refused before anything was written"
        )
    if repeated := _repeated(entries):
        raise ModelError(
            f"{source}: holds {repeated!r} twice (on some disk at least: letter case does not count there, and a file cannot be a "
            "folder as well); refused before anything was written"
        )
    total = sum(entry.file_size for entry in read)
    if total > MAX_UNPACKED_BYTES:
        raise ModelError(f"{source}: would unpack to {total / 2**30:.1f} GiB; a model has at most {MAX_UNPACKED_BYTES / 2**30:.1f}")
    ordered = sorted(entries, key=lambda entry: entry.header_offset)
    starts = [entry.header_offset for entry in ordered]
    for entry, following in zip(ordered, [*starts[1:], end], strict=True):
        if entry.header_offset < 0 or entry.header_offset + _LOCAL_HEADER + entry.compress_size > following:
            raise ModelError(
                f"{source}: {entry.filename!r} shares bytes with another file, as in a bomb; refused before anything was written"
            )


def _ending(entry: zipfile.ZipInfo) -> str:
    return PurePosixPath(entry.filename).suffix.lower()


def _name_problem(entry: zipfile.ZipInfo) -> str | None:
    name = entry.orig_filename  # zipfile cuts the other one at a NUL
    parts = name.removesuffix("/").split("/")
    if len(name) > MAX_NAME:
        return f"a name of {len(name)} letters"
    if name.startswith("/") or ".." in parts or "\\" in name or ":" in name:
        return "which points out of it"
    if any(unicodedata.category(letter) in {"Cc", "Cf", "Cs"} for letter in name):
        return "a name with control characters"
    if name != entry.filename or _other_name(entry.extra) not in (None, name):
        return "which is given another name beside this one"
    if any(part in {"", "."} or part != part.strip() or part.endswith(".") or part.split(".")[0].lower() in _DEVICES for part in parts):
        return "a name that some systems read as another"
    return None


def _other_name(extra: bytes) -> str | None:
    """The name in an entry's extra fields (Info-ZIP's Unicode Path), by which some readers go, zipfile of later Pythons among them."""
    while len(extra) >= 4:
        kind, length = struct.unpack("<HH", extra[:4])
        if kind == _UNICODE_PATH:
            return extra[9 : 4 + length].decode("utf-8", "replace")  # behind a version and a checksum
        extra = extra[4 + length :]
    return None


def _kind_problem(entry: zipfile.ZipInfo) -> str | None:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "a link"
    if kind not in {0, stat.S_IFDIR if entry.is_dir() else stat.S_IFREG}:
        return "which is no plain file"
    if entry.flag_bits & _ENCRYPTED:
        return "which is encrypted"
    return None if entry.compress_type in _METHODS else f"packed with method {entry.compress_type}, not stored or deflated"


def _size_problem(entry: zipfile.ZipInfo) -> str | None:
    if entry.is_dir():
        return "a folder with content" if entry.file_size else None
    if entry.file_size < RATIO_FROM_BYTES or entry.file_size <= MAX_RATIO * entry.compress_size:
        return None
    return f"which unpacks to {entry.file_size / max(entry.compress_size, 1):.0f} times its {entry.compress_size} bytes, as a bomb does"


def _repeated(entries: Sequence[zipfile.ZipInfo]) -> str | None:
    """A name that another entry has as well, or that is a file here and a folder there; None where all differ."""
    seen: set[str] = set()
    folders: set[str] = set()
    keys = [(entry, unicodedata.normalize("NFC", entry.filename.removesuffix("/")).casefold()) for entry in entries]
    for _, key in keys:
        parts = key.split("/")
        folders |= {"/".join(parts[:length]) for length in range(1, len(parts))}
    for entry, key in keys:
        if key in seen or (not entry.is_dir() and key in folders):
            return entry.filename
        seen.add(key)
    return None
