"""Atomic, durable writing, hashes, manifests and locks: the only door through which the tools write files.

Every write goes to a temporary file in the target's own folder, is flushed to the disk and then renamed over the target, so that a reader
(also one that comes after a crash) finds the old content or the new one and never a part. Calls to the operating system are looked up
on the `os` module at call time, so that a test can make the N-th of them fail.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import os
import secrets
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from autoseg.errors import AutosegError, LockError, ResourceError

logger = logging.getLogger(__name__)

TEMPORARY_PREFIX = ".autoseg-tmp-"
LOCK_NAME = ".autoseg-lock"
LOCK_POLL_SECONDS = 0.5

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
            _write_all(descriptor, data)
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
        raise _write_error(path, failure) from failure


def remove_leftovers(folder: str | Path) -> tuple[str, ...]:
    """Removes the temporary files that killed processes left in a folder and returns their names; only for the holder of its lock."""
    leftovers = tuple(sorted(name for name in os.listdir(folder) if is_temporary(name)))
    for name in leftovers:
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, name))
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
        raise _write_error(path, error) from error


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


def _write_all(descriptor: int, data: bytes | bytearray | memoryview) -> None:
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


def _write_error(path: Path, error: OSError) -> AutosegError | OSError:
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


# --- locks


class FoldLock:
    """A lock on a folder against other processes, also on other hosts that share the disk; a context manager.

    The lock is a file made with O_CREAT | O_EXCL that holds host, process id and the process's start time; a daemon thread renews its time
    stamp. A lock is taken over, with a logged line, when its process is dead (same host), or when its time stamp is older than
    `stale_after` (otherwise).

    Args:
        path: the lock file, or the folder to lock (its file `.autoseg-lock` then).
        heartbeat: seconds between renewals.
        stale_after: seconds without renewal after which a lock of another host is dead.
        wait: seconds to wait for another process to give the lock back; None as long as it takes.

    Raises:
        LockError: on entering: another process holds the lock; tells its host, process id, age and the remedy.
    """

    def __init__(self, path: str | Path, *, heartbeat: float = 30.0, stale_after: float = 600.0, wait: float | None = 0.0):
        path = Path(path)
        self.path = path / LOCK_NAME if path.is_dir() else path
        self.heartbeat = heartbeat
        self.stale_after = stale_after
        self.wait = math.inf if wait is None else wait
        self._token = ""
        self._owner_pid = 0
        self._released = threading.Event()
        self._lost = False
        self._thread: threading.Thread | None = None

    def acquire(self) -> FoldLock:
        """This lock, held; raises LockError where another process holds it for longer than `wait`."""
        self._token = secrets.token_hex(16)
        until = time.monotonic() + self.wait
        waiting = False
        while True:
            try:
                self._take()
                break
            except LockError as error:
                if time.monotonic() >= until:
                    raise
                if not waiting:
                    logger.info("waiting: %s", error)
                waiting = True
                time.sleep(min(LOCK_POLL_SECONDS, max(0.0, until - time.monotonic())))
        self._owner_pid = os.getpid()
        self._lost = False
        self._released.clear()
        self._thread = threading.Thread(target=self._beat, name=f"heartbeat of {self.path}", daemon=True)
        self._thread.start()
        return self

    def release(self) -> None:
        """Gives the lock back; a forked child and a lock that was lost to another process leave the file alone."""
        if not self._token or self._owner_pid != os.getpid():
            return
        self._released.set()
        if self._thread is not None:
            self._thread.join()
        if _read_lock(self.path).get("token") == self._token:
            with suppress(OSError):
                os.unlink(self.path)
        self._token = ""

    def check(self) -> None:
        """Raises LockError when another process took this lock over (it may, when this one was suspended for longer than `stale_after`)."""
        if self._lost:
            raise LockError(f"{self.path}: another process took over while this one did not respond. Let the other one go on.")

    def __enter__(self) -> FoldLock:
        return self.acquire()

    def __exit__(self, *exception: object) -> None:
        self.release()

    def _take(self) -> None:
        for _ in range(10):
            if self._create():
                return
            self._take_over_or_refuse()
        raise LockError(f"{self.path}: several processes are fighting for this lock. Wait until one of them is done.")

    def _create(self) -> bool:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return False
        except OSError as error:
            raise _write_error(self.path, error) from error
        try:
            _write_all(descriptor, json.dumps({**_this_process(), "token": self._token}).encode())
            os.fsync(descriptor)
        except OSError as error:
            with suppress(OSError):
                os.unlink(self.path)
            raise _write_error(self.path, error) from error
        finally:
            os.close(descriptor)
        return True

    def _take_over_or_refuse(self) -> None:
        holder = _read_lock(self.path)
        age = self._age()
        if age is None:
            return  # it was released in this moment
        reason = _why_stale(holder, age, self.stale_after)
        who = f"process {holder.get('pid', 'unknown')} on host {holder.get('host', 'unknown')}"
        if reason is None:
            raise LockError(
                f"{self.path.parent}: {who} is at work here (its last sign of life was {age:.0f} s ago). Wait for it to end or end it; "
                f"if you know that it is dead, delete {self.path}."
            )
        # Renaming first makes sure that of two processes that see the same dead lock, one cannot delete the other's fresh one unnoticed.
        aside = self.path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(6)}-{self.path.name[-120:]}")
        try:
            os.rename(self.path, aside)
        except FileNotFoundError:
            return
        if _read_lock(aside).get("token") != holder.get("token"):
            with suppress(OSError):
                os.link(aside, self.path)
        else:
            logger.warning("%s: taking over the lock of %s: %s", self.path, who, reason)
        with suppress(OSError):
            os.unlink(aside)

    def _age(self) -> float | None:
        """Seconds since the last heartbeat by the clock of the file system, which on a network disk is not this host's."""
        probe = self.path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(6)}-probe")
        try:
            renewed = os.stat(self.path).st_mtime
        except FileNotFoundError:
            return None
        try:
            os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            now = os.stat(probe).st_mtime
        except OSError:
            now = time.time()
        with suppress(OSError):
            os.unlink(probe)
        return max(0.0, now - renewed)

    def _beat(self) -> None:
        while not self._released.wait(self.heartbeat):
            try:
                if _read_lock(self.path).get("token") != self._token:
                    self._lost = True
                    logger.error("%s: this lock was taken over by another process or deleted", self.path)
                    return
                os.utime(self.path)
            except OSError as error:  # a network disk that comes and goes; the next beat tries again
                logger.warning("%s: the heartbeat failed: %s", self.path, error)


def _this_process() -> dict[str, Any]:
    pid = os.getpid()
    return {
        "host": socket.gethostname(),
        "pid": pid,
        "namespace": _pid_namespace(),
        "started": _start_time(pid),
        "since": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _pid_namespace() -> str:
    # Two containers may share a host name while each counts processes from 1: a pid then says nothing about the other one.
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _start_time(pid: int) -> str | None:
    """A process's start in clock ticks since boot with the boot's id (tells a pid from its later re-use), or None without /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}:{Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}"
    except (OSError, IndexError):
        return None


def _read_lock(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _why_stale(holder: dict[str, Any], age: float, stale_after: float) -> str | None:
    same_host = holder.get("host") == socket.gethostname() and holder.get("namespace") == _pid_namespace()
    if same_host and sys.platform != "win32":  # on Windows os.kill(pid, 0) would end the process
        return None if _is_alive(int(holder.get("pid", 0)), holder.get("started")) else "the process is dead"
    return f"no sign of life for {age:.0f} s (limit {stale_after:.0f} s)" if age > stale_after else None


def _is_alive(pid: int, started: str | None) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # alive, but another user's
    return started is None or _start_time(pid) in (None, started)
