"""Models that came from somewhere else: archives are read with suspicion, and pickles are refused.

An archive is judged in three steps, and nothing is written before all of them are passed: its directory (names, kinds, sizes), its manifest
against that directory, and the content of every file that the manifest lists, read once and compared with its SHA-256.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import struct
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from autoseg import files
from autoseg.errors import ModelError
from autoseg.inference import model_manifest as manifest
from autoseg.inference.archive_directory import PICKLED, check_directory
from autoseg.inference.ensemble_document import NAME as ENSEMBLE_NAME
from autoseg.inference.ensemble_document import member_folders
from autoseg.inference.model_documents import CARD_NAME, PLAN_NAME, PREVIOUS_NAME, fold_of

MAX_DIRECTORY_BYTES = 16 << 20
"""Of the list of an archive's files, which is held in memory with some ten times its size before its entries can be counted."""
MAX_DOCUMENT_BYTES = 256 << 20

_CHUNK = 1 << 20
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
        check_directory(entries, opened.start_dir, str(archive), wanted)
        chosen = [entry for entry in entries if not entry.is_dir() and wanted(PurePosixPath(entry.filename))]
        _check_room(chosen, target, archive)
        for entry in chosen:
            files.write_chunks(target / entry.filename, _chunks(opened, entry))


@contextmanager
def opened_archive(archive: Path) -> Iterator[zipfile.ZipFile]:
    """The zip archive, open; what goes wrong while reading it is a ModelError that names it."""
    try:
        with open(archive, "rb", buffering=0) as raw, _Bounded(raw) as stream, zipfile.ZipFile(stream) as opened:
            yield opened
    except _DAMAGED as error:
        raise ModelError(f"{archive}: cannot be unpacked: {error}. Get it again from where it came") from None


class _Bounded(io.BufferedReader):
    """A file that is read in small pieces only: what zipfile wants at once is the archive's directory."""

    def read(self, size: int | None = -1, /) -> bytes:
        """As of any file; BadZipFile where more is wanted than any honest directory has."""
        if size is not None and size > MAX_DIRECTORY_BYTES:
            raise zipfile.BadZipFile(f"its list of files takes {size >> 20} MiB; a model's takes at most {MAX_DIRECTORY_BYTES >> 20}")
        return super().read(size)


def inspect(opened: zipfile.ZipFile, source: str) -> Contents:
    """What of an open archive belongs to the model, after its directory and its manifest were found in order; no other file is read.

    Raises:
        ModelError: as `unpack`.
    """
    entries = opened.infolist()
    check_directory(entries, opened.start_dir, source)
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
    folders = _by_folder(inside)
    for folder in (PREVIOUS_NAME, *(member_folders(inside) if ENSEMBLE_NAME in listed else [])):
        if folder in folders:
            more, more_listed = _model(opened, folders[folder], f"{source}, {folder}")
            members |= {f"{folder}/{name}": member for name, member in more.items()}
            listed |= {f"{folder}/{name}": entry for name, entry in more_listed.items()}
    return members, listed


def _by_folder(inside: Mapping[str, zipfile.ZipInfo]) -> dict[str, dict[str, zipfile.ZipInfo]]:
    """Folder -> what lies in and below it, found in one pass: an archive may have as many folders as files."""
    found: dict[str, dict[str, zipfile.ZipInfo]] = {}
    for name, entry in inside.items():
        folder, slash, rest = name.partition("/")
        if slash:
            found.setdefault(folder, {})[rest] = entry
    return found


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
