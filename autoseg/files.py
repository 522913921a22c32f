"""Atomic, durable writing, reading and hashes: the only door through which the tools write files.

Every write goes to a temporary file in the target's own folder, is flushed to the disk and then renamed over the target, so that a reader
(also one that comes after a crash) finds the old content or the new one and never a part. Calls to the operating system are looked up
on the `os` module at call time, so that a test can make the N-th of them fail.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from autoseg.errors import AutosegError, ResourceError

TEMPORARY_PREFIX = ".autoseg-tmp-"

_NO_SPACE = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_NOT_ALLOWED = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENOENT,
    errno.EEXIST,
    errno.ENAMETOOLONG,
    errno.ELOOP,
}
_NO_FOLDER_SYNC = {errno.EINVAL, errno.EBADF, getattr(errno, "ENOTSUP", errno.EINVAL)}


# --- atomic writing


def write_bytes(path: str | Path, data: bytes | bytearray | memoryview) -> None:
    """Replaces a file's content by `data`, whole or not at all, and returns when it is on the disk. Missing parent folders are made.

    Raises:
        ResourceError: the disk is full or failing; names the path and the free space. The old file is intact.
        AutosegError: the place cannot be written (permission, read-only, a folder of that name).
    """
    with _replacing(Path(path)) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_chunks(path: str | Path, chunks: Iterable[bytes]) -> None:
    """Replaces a file's content by pieces that are made one after another, whole or not at all; raises as `write_bytes`."""

    def write(temporary: Path) -> None:
        with open(temporary, "xb") as stream:
            for chunk in chunks:
                stream.write(chunk)

    replace_with(path, write)


def write_text(path: str | Path, text: str) -> None:
    """Replaces a file's content by `text` in UTF-8 with the line ends as given; raises as `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | Path, value: Any) -> None:
    """Replaces a file's content by `value` as standard JSON (two-space indent, key order kept); raises as `write_bytes`.

    Numpy scalars and arrays and paths are converted. NaN and infinity are no JSON: put None where a value is missing.

    Raises:
        ValueError: `value` holds NaN or an infinity.
        TypeError: `value` holds something that JSON cannot.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=_plain) + "\n")


def replace_with(path: str | Path, writer: Callable[[Path], None]) -> None:
    """Replaces a file by what `writer(temporary_path)` writes, whole or not at all; raises as `write_bytes`.

    The temporary path lies in the same folder and ends as `path` does, so that writers that choose a format by the ending work. The writer
    may re-open and check what it wrote: when it raises, the old file stays and the temporary one is removed.
    """
    with _replacing(Path(path)) as temporary:
        writer(temporary)
        descriptor = os.open(temporary, os.O_RDWR | getattr(os, "O_BINARY", 0))
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def new_folder(path: str | Path, *, error: type[AutosegError] = AutosegError) -> Iterator[Path]:
    """A temporary folder that becomes `path` when the block ends well, and is removed when it does not: a whole folder or none.

    Write into it with the functions above. A kill leaves a folder with a temporary name beside `path`, never a part of it at `path`.

    Raises:
        error: there is something at `path` already that is no empty folder.
        AutosegError: the place cannot be written.
        ResourceError: as `write_bytes`.
    """
    path = Path(os.path.abspath(path))
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(6)}-{path.name[-120:]}")
    try:
        if os.path.lexists(path) and not (path.is_dir() and not path.is_symlink() and not any(path.iterdir())):
            raise error(f"{path}: is there already and is not replaced. Name another folder, or remove it.")
        os.makedirs(temporary)
        try:
            yield temporary
            _sync_folder(temporary)
            os.rename(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _sync_folder(path.parent)
    except OSError as failure:
        raise write_error(path, failure) from failure


def remove_leftovers(folder: str | Path) -> tuple[str, ...]:
    """Removes the temporary files and folders that killed processes left in a folder and returns their names; only for the holder of its
    lock."""
    leftovers = tuple(sorted(name for name in os.listdir(folder) if is_temporary(name)))
    for name in leftovers:
        path = os.path.join(folder, name)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)
            continue
        with suppress(FileNotFoundError):
            os.unlink(path)
    return leftovers


def is_temporary(name: str) -> bool:
    """Whether a file name is one of the temporary names that writing uses; listings of a folder leave those out."""
    return name.startswith(TEMPORARY_PREFIX)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(6)}-{path.name[-120:]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise write_error(path, error) from error


def allocate(descriptor: int, size: int) -> None:
    """Makes an open file `size` bytes long, with room on the disk for all of them.

    Where room is only promised, writing into a memory map ends the process with a signal once the disk is full.

    Raises:
        OSError: there is no room.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.ftruncate(descriptor, size)


def write_all(descriptor: int, data: bytes | bytearray | memoryview) -> None:
    """Writes all of the data to an open file; raises OSError."""
    rest = memoryview(data).cast("B")
    while rest:
        # One write moves at most 2 GiB on Linux, and on a nearly full disk it may move less than asked.
        rest = rest[os.write(descriptor, rest[: 1 << 30]) :]


def _sync_folder(folder: Path) -> None:
    if sys.platform == "win32":  # a folder cannot be opened there; NTFS journals the rename
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def write_error(path: Path, error: OSError) -> AutosegError | OSError:
    """What to raise where writing `path` failed: an error that tells the remedy."""
    if error.errno is None:
        return error
    reason = os.strerror(error.errno)
    if error.errno in _NO_SPACE:
        return ResourceError(
            f"{path}: {reason} while writing ({_free_space(path)}). Free some space or write elsewhere; the old file is intact."
        )
    if error.errno in _NOT_ALLOWED:
        named = f" ({error.filename})" if error.filename and TEMPORARY_PREFIX not in str(error.filename) else ""
        return AutosegError(f"{path}: cannot be written: {reason}{named}. Choose a folder that you may write to.")
    return ResourceError(f"{path}: writing failed: {reason} ({_free_space(path)}). Check the disk and run again.")


def _free_space(path: Path) -> str:
    for folder in path.absolute().parents:
        with suppress(OSError):
            return f"{shutil.disk_usage(folder).free / 2**20:.1f} MiB are free on {folder}"
    return "free space unknown"


def _plain(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # a numpy scalar or array, without importing numpy
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} is nothing that JSON can hold")


# --- reading and hashing


def read_json(path: str | Path, *, error: type[AutosegError] = AutosegError) -> Any:
    """The value in a JSON file (UTF-8, with or without a byte-order mark).

    Args:
        error: the class to raise, such as `PlanError`.

    Raises:
        error: the file is missing or unreadable, is no JSON (the line and column are told), or an object has the same key twice.
    """

    try:
        data = Path(path).read_bytes()
    except OSError as problem:
        raise error(f"{path}: cannot be read: {problem.strerror}.") from problem
    return parse_json(data, str(path), error=error)


def parse_json(data: bytes, source: str, *, error: type[AutosegError] = AutosegError) -> Any:
    """The value in the bytes of a JSON file, which `source` names; arguments and errors as `read_json`."""

    def refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise error(f"{source}: the key {key!r} stands twice in one object, so one of the two would be lost. Remove one of them.")
            found[key] = value
        return found

    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=refuse_duplicates)
    except json.JSONDecodeError as problem:
        raise error(
            f"{source}: is no valid JSON: {problem.msg} at line {problem.lineno}, column {problem.colno}. Mend the file there."
        ) from problem
    except (ValueError, RecursionError) as problem:
        raise error(f"{source}: is no valid JSON text in UTF-8: {problem}.") from problem


def sha256_file(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """The SHA-256 of a JSON value's canonical text (sorted keys, no spaces, ASCII): equal values give equal hashes, whatever the key order.

    Raises:
        ValueError, TypeError: as `write_json`.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain)
    return hashlib.sha256(text.encode("ascii")).hexdigest()
