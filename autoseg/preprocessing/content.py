"""What a case's files hold, as hashes: so that a changed file redoes its own case and nothing else."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg.errors import AutosegError
from autoseg.files import read_json, sha256_file, sha256_json, write_json

if TYPE_CHECKING:
    from autoseg.dataset import Case

SETTLED_NS = 2_000_000_000
"""A file changed this shortly before it was hashed could change again within one tick of its time stamp; it is not remembered."""


class ContentHashes:
    """SHA-256 of files, read again only where size or time of change differ from what is remembered.

    Args:
        path: a JSON file to remember in, between runs; None remembers within this object only. An unreadable one is started afresh.
    """

    def __init__(self, path: str | Path | None = None):
        self.path = None if path is None else Path(path)
        self.known: dict[str, list[Any]] = {}
        self._changed = False
        if self.path is not None and self.path.is_file():
            try:
                found = read_json(self.path)
            except AutosegError:
                found = None
            if isinstance(found, dict):
                self.known = {k: v for k, v in found.items() if isinstance(v, list) and len(v) == 3}

    def of(self, file: str | Path) -> str:
        """The SHA-256 of the file's content now.

        Raises:
            OSError: the file cannot be read.
        """
        file = Path(file).absolute()
        state = file.stat()
        remembered = self.known.get(str(file))
        if remembered is not None and remembered[:2] == [state.st_size, state.st_mtime_ns]:
            return str(remembered[2])
        started = time.time_ns()
        content = sha256_file(file)
        if started - state.st_mtime_ns > SETTLED_NS:
            self.known[str(file)] = [state.st_size, state.st_mtime_ns, content]
            self._changed = True
        return content

    def unread_bytes(self, file: str | Path) -> int:
        """How much `of` will have to read of a file: 0 where it is remembered or missing."""
        file = Path(file).absolute()
        try:
            state = file.stat()
        except OSError:
            return 0
        remembered = self.known.get(str(file))
        return 0 if remembered is not None and remembered[:2] == [state.st_size, state.st_mtime_ns] else state.st_size

    def save(self) -> None:
        """Writes what is known to `path`; nothing where nothing is new."""
        if self.path is not None and self._changed:
            write_json(self.path, self.known)
            self._changed = False


def case_key(case: Case, hashes: ContentHashes | None = None) -> str:
    """A hash of what the case's files hold, images and mask (hexadecimal, 64 characters); paths and names do not enter.

    Args:
        case: its `images` (path, component) and `label` are read.
        hashes: remembers files between calls; None reads them all.
    """
    hashes = hashes or ContentHashes()
    images = [[hashes.of(source.path), source.component] for source in case.images]
    return sha256_json({"images": images, "label": None if case.label is None else hashes.of(case.label)})
