"""Models that came from somewhere else: archives are read with suspicion, and pickles are refused.

An archive is judged in three steps, and nothing is written before all of them are passed: its directory (names, kinds, sizes), its manifest
against that directory, and the content of every file that the manifest lists, read once and compared with its SHA-256.
"""

from __future__ import annotations

import hashlib
import shutil
import stat
import struct
import tempfile
import unicodedata
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from autoseg import files
from autoseg.errors import ModelError
from autoseg.inference import model_manifest as manifest
from autoseg.inference.ensemble_document import NAME as ENSEMBLE_NAME
from autoseg.inference.ensemble_document import member_folders
from autoseg.inference.model_documents import CARD_NAME, PLAN_NAME, PREVIOUS_NAME, fold_of

PICKLED = {".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".joblib", ".npz", ".dill", ".model"}
"""Endings of formats that are, or may hold, pickles."""

MAX_UNPACKED_BYTES = 20 << 30
MAX_DOCUMENT_BYTES = 256 << 20
MAX_ENTRIES = 100_000
MAX_NAME = 400
MAX_RATIO = 200
"""How many times its packed size a file may unpack to, from `RATIO_FROM_BYTES` on: JSON reaches 50, weights 2."""
RATIO_FROM_BYTES = 1 << 20

_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_ENCRYPTED = 0x1
_LOCAL_HEADER = 30
_CHUNK = 1 << 20
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}
_DAMAGED = (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError, OverflowError, struct.error)
"""What zipfile raises about a file's content: damaged or cut short, encrypted (RuntimeError), nonsense in a header, the disk."""


class Unpacked:
    """A temporary folder that is removed when the object that holds this one goes."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="autoseg-model-"))
        self._finalizer = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)


@dataclass(frozen=True)
class Contents:
    """What of an archive belongs to the model.

    Attributes:
        members: name in the model folder -> the archive's entry; files of a previous stage lie under `previous_stage/`,
            those of models that segment together with it under `member_1/`, ...
        listed: name -> what its model's manifest says of it.
        left_out: names of the archive's other files, which are never read.
    """

    members: Mapping[str, zipfile.ZipInfo]
    listed: Mapping[str, manifest.Entry]
    left_out: tuple[str, ...]


def refuse_pickles(folder: Path, source: str) -> None:
    """Raises ModelError if a file in or below a folder may be a pickle, by its ending; `source` names the folder."""
    found = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.suffix.lower() in PICKLED]
    if found:
        raise ModelError(
            f"{source}: holds {', '.join(sorted(found)[:5])}: a pickled file can run any code when it is opened, so such a folder is "
            "refused. Models are shared as safetensors; remove these files if you know where they come from"
        )


def unpack(archive: Path, target: Path) -> Contents:
    """Unpacks the model in an archive that somebody else made into `target`: its manifest, what that lists, and the card.

    The model may lie in a folder inside the archive; in `target` it does not. The model that a cascade continues from, and those that
    segment together with it, come along.

    Raises:
        ModelError: the archive reaches out of `target`, holds links, pickles, one name twice or encrypted files, unpacks to more than a
            model has, is damaged, or is not what its manifest says. Nothing has been written then.
    """
    with opened_archive(archive) as opened:
        contents = inspect(opened, str(archive))
        _check_room(contents.members.values(), target, archive)
        check_contents(opened, contents, str(archive))
        for name, member in contents.members.items():
            files.write_chunks(target / name, _chunks(opened, member))
    return contents


def unpack_chosen(archive: Path, target: Path, wanted: Callable[[PurePosixPath], bool]) -> None:
    """Unpacks the files of an archive that `wanted` names, with their folders; the others stay in it.

    What it names may be a pickle: its caller must not open that as one.

    Raises:
        ModelError: as `unpack`, but for pickles, and for a manifest, which such an archive does not have.
    """
    with opened_archive(archive) as opened:
        entries = opened.infolist()
        _check_directory(entries, opened.start_dir, str(archive), wanted)
        chosen = [entry for entry in entries if not entry.is_dir() and wanted(PurePosixPath(entry.filename))]
        _check_room(chosen, target, archive)
        for entry in chosen:
            files.write_chunks(target / entry.filename, _chunks(opened, entry))


@contextmanager
def opened_archive(archive: Path) -> Iterator[zipfile.ZipFile]:
    """The zip archive, open; what goes wrong while reading it is a ModelError that names it."""
    try:
        with zipfile.ZipFile(archive) as opened:
            yield opened
    except _DAMAGED as error:
        raise ModelError(f"{archive}: cannot be unpacked: {error}. Get it again from where it came") from None


def inspect(opened: zipfile.ZipFile, source: str) -> Contents:
    """What of an open archive belongs to the model, after its directory and its manifest were found in order; no other file is read.

    Raises:
        ModelError: as `unpack`.
    """
    entries = opened.infolist()
    _check_directory(entries, opened.start_dir, source)
    names = {entry.filename: entry for entry in entries if not entry.is_dir()}
    prefix = _model_prefix(names, source)
    members, listed = _model(opened, {name.removeprefix(prefix): entry for name, entry in names.items() if name.startswith(prefix)}, source)
    kept = {member.filename for member in members.values()}
    return Contents(members, listed, tuple(name for name in names if name not in kept))


def _model(
    opened: zipfile.ZipFile, inside: Mapping[str, zipfile.ZipInfo], source: str
) -> tuple[dict[str, zipfile.ZipInfo], dict[str, manifest.Entry]]:
    """The members of a model and what its manifest says of them, and the same of the models inside it."""
    if manifest.NAME not in inside:
        raise ModelError(f"{source}: is not a complete model folder: {manifest.NAME} missing. Finished training writes it")
    data = b"".join(_chunks(opened, _small(inside[manifest.NAME], source)))
    listed = manifest.parse_entries(data, f"{source}: {manifest.NAME}")
    problems = [f"{name} {problem}" for name, entry in listed.items() if (problem := _disagreement(entry, inside.get(name)))]
    problems += [f"{name} is not listed: nothing says that it is intact" for name in inside if fold_of(name) and name not in listed]
    if problems:
        raise ModelError(f"{source}: not what {manifest.NAME} says: {'; '.join(problems)}. Get it again from where it came")
    members = {name: inside[name] for name in (manifest.NAME, CARD_NAME, *listed) if name in inside}
    for name, member in members.items():
        if not fold_of(name):
            _small(member, source)
    for folder in (PREVIOUS_NAME, *(member_folders(inside) if ENSEMBLE_NAME in listed else [])):
        before = f"{folder}/"
        nested = {name.removeprefix(before): entry for name, entry in inside.items() if name.startswith(before)}
        if nested:
            more, more_listed = _model(opened, nested, f"{source}, {folder}")
            members |= {before + name: member for name, member in more.items()}
            listed |= {before + name: entry for name, entry in more_listed.items()}
    return members, listed


def check_contents(opened: zipfile.ZipFile, contents: Contents, source: str) -> None:
    """Reads every listed file of an archive once, writing nothing.

    Raises:
        ModelError: one has another content than the manifest says; names all of them.
    """
    wrong = []
    for name, entry in contents.listed.items():
        if name not in contents.members:
            continue
        digest = hashlib.sha256()
        for chunk in _chunks(opened, contents.members[name]):
            digest.update(chunk)
        if digest.hexdigest() not in [choice.get("sha256") for choice in manifest.accepted(entry)]:
            wrong.append(f"{name} has another SHA-256 (its content was changed)")
    if wrong:
        raise ModelError(f"{source}: not what {manifest.NAME} says: {'; '.join(wrong)}. Get it again from where it came")


def _chunks(opened: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    """The member's content; zipfile gives no more than the size in the directory, and checks the CRC at the end."""
    given = 0
    with opened.open(member) as stream:
        while chunk := stream.read(_CHUNK):
            given += len(chunk)
            yield chunk
    if given != member.file_size:
        raise zipfile.BadZipFile(f"{member.filename} has {given} bytes where {member.file_size} are announced")


def _small(member: zipfile.ZipInfo, source: str) -> zipfile.ZipInfo:
    if member.file_size > MAX_DOCUMENT_BYTES:
        raise ModelError(
            f"{source}: {member.filename} would unpack to {member.file_size >> 20} MiB; a model's documents have at most "
            f"{MAX_DOCUMENT_BYTES >> 20}. Refused before anything was written"
        )
    return member


def _disagreement(entry: manifest.Entry, member: zipfile.ZipInfo | None) -> str | None:
    """What of a listed file the archive's directory already shows to be wrong."""
    if member is None:
        return "is missing" if manifest.is_held(entry) else None
    sizes = [choice.get("size") for choice in manifest.accepted(entry)]
    return None if member.file_size in sizes else f"has {member.file_size} bytes where {sizes[0] if sizes else 'none'} are expected"


def _model_prefix(names: Mapping[str, zipfile.ZipInfo], source: str) -> str:
    """The archive's outermost folder that holds a plan, as "" or "folder/"."""
    plans = sorted((PurePosixPath(name) for name in names if PurePosixPath(name).name == PLAN_NAME), key=lambda path: len(path.parts))
    if not plans:
        raise ModelError(f"{source}: is no model: there is no {PLAN_NAME} in it")
    if len(plans) > 1 and len(plans[0].parts) == len(plans[1].parts):
        raise ModelError(f"{source}: holds several models ({', '.join(str(p.parent) for p in plans[:3])}). Pack one model an archive")
    parent = plans[0].parent.as_posix()
    return "" if parent == "." else f"{parent}/"


def _check_room(members: Iterable[zipfile.ZipInfo], target: Path, archive: Path) -> None:
    total, free = sum(member.file_size for member in members), shutil.disk_usage(target).free
    if total > free:
        raise ModelError(f"{archive}: would unpack to {total / 2**30:.1f} GiB; {free / 2**30:.1f} GiB are free in {target}")


def _check_directory(
    entries: Sequence[zipfile.ZipInfo], end: int, source: str, wanted: Callable[[PurePosixPath], bool] | None = None
) -> None:
    """Refuses what no honest archive of a model holds, from the archive's directory alone.

    Args:
        end: where the directory starts and the files' bytes end.
        wanted: which files will be read, pickles among them; None means any, and no pickles anywhere.
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
    if any(part in {"", "."} or part != part.strip() or part.endswith(".") or part.split(".")[0].lower() in _DEVICES for part in parts):
        return "a name that some systems read as another"
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
