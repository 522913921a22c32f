"""The folder through which worker processes and their parent tell each other what became of each case.

Its name says whose it is, so that what a killed run left is known to belong to nobody, and the next run takes it away.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import tempfile
from contextlib import suppress
from pathlib import Path

from autoseg.errors import ResourceError
from autoseg.processes import is_alive, pid_namespace, start_time

PREFIX = "autoseg-workers-"
OWNED = re.compile(re.escape(PREFIX) + r"(?P<place>[0-9a-f]{8})-(?P<pid>\d+)-(?P<start>[0-9a-f]{8})-")


def scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """A new folder of this process, after those were removed that ended processes of this user left.

    Raises:
        ResourceError: there is no room for it.
    """
    try:
        remove_abandoned(Path(tempfile.gettempdir()))
        name = f"{PREFIX}{_place()}-{os.getpid()}-{_start(os.getpid())}-"
        return tempfile.TemporaryDirectory(prefix=name, ignore_cleanup_errors=True)
    except OSError as error:
        raise no_room(error) from None


def remove_abandoned(parent: Path) -> list[Path]:
    """Removes the scratch folders whose process has ended, and returns them; those of other users, hosts and containers stay."""
    place, removed = _place(), []
    for path in parent.glob(f"{PREFIX}*"):
        owner = OWNED.match(path.name)
        if owner and owner["place"] == place and _is_mine(path) and not _owner_lives(int(owner["pid"]), owner["start"]):
            shutil.rmtree(path, ignore_errors=True)
            removed.append(path)
    return removed


def _place() -> str:
    """Where process ids are counted: this host and this namespace, as 8 hexadecimal characters."""
    return hashlib.sha256(f"{socket.gethostname()}/{pid_namespace()}".encode()).hexdigest()[:8]


def _start(pid: int) -> str:
    """When a process started, as 8 hexadecimal characters."""
    return hashlib.sha256(str(start_time(pid)).encode()).hexdigest()[:8]


def _owner_lives(pid: int, start: str) -> bool:
    return is_alive(pid, None) and _start(pid) == start


def _is_mine(path: Path) -> bool:
    with suppress(OSError):
        return path.is_dir() and not path.is_symlink() and (not hasattr(os, "getuid") or path.lstat().st_uid == os.getuid())
    return False


def write_result(path: Path, data: bytes) -> None:
    """Writes a result whole or not at all.

    Raises:
        ResourceError: there is no room for it.
    """
    partial = path.with_suffix(".partial")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    except OSError as error:
        raise no_room(error) from None


def no_room(error: OSError) -> ResourceError:
    """The error of a temporary folder that takes nothing more."""
    return ResourceError(
        f"{tempfile.gettempdir()}: results on their way cannot be kept there: {error.strerror}. "
        "Free some space, or set TMPDIR to another folder"
    )


def mark_path(scratch: Path, index: int) -> Path:
    """The file that stands while the case of that index is worked on; it holds the process' id."""
    return scratch / f"{index}.running"


def result_path(scratch: Path, index: int) -> Path:
    """The file with what became of the case of that index."""
    return scratch / f"{index}.result"


def read_mark(path: Path) -> int | None:
    """The process that a mark names; None where there is none any more."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
