"""Models that came from somewhere else: archives are unpacked with suspicion, and pickles are refused."""

from __future__ import annotations

import shutil
import stat
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from autoseg.errors import ModelError

PICKLED = {".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".joblib", ".npz", ".dill", ".model"}
"""Endings of formats that are, or may hold, pickles."""

MAX_UNPACKED_BYTES = 20 << 30


class Unpacked:
    """A temporary folder that is removed when the object that holds this one goes."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="autoseg-model-"))
        self._finalizer = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)


def refuse_pickles(folder: Path, source: str) -> None:
    """Raises ModelError if a file in or below a folder may be a pickle, by its ending; `source` names the folder."""
    found = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.suffix.lower() in PICKLED]
    if found:
        raise ModelError(
            f"{source}: holds {', '.join(sorted(found)[:5])}: a pickled file can run any code when it is opened, so such a folder is "
            "refused. Models are shared as safetensors; remove these files if you know where they come from"
        )


def unpack(archive: Path, target: Path, marker: str, only: Callable[[PurePosixPath], bool] | None = None) -> Path:
    """Unpacks an archive that somebody else made: only plain files below the target, and no more bytes than announced.

    Args:
        only: names the entries that are wanted; the others stay in the archive. What it names may be a pickle: its caller must not open
            that as one. None means all, and no pickles.

    Returns:
        The outermost folder that holds a file named `marker`; `target` if none does.

    Raises:
        ModelError: the archive reaches out of `target`, holds links or pickles, is too large or is damaged.
    """
    with zipfile.ZipFile(archive) as opened:
        entries = [entry for entry in opened.infolist() if not entry.is_dir()]
        for entry in entries:
            name = PurePosixPath(entry.filename)
            if name.is_absolute() or ".." in name.parts or "\\" in entry.filename or ":" in entry.filename:
                raise ModelError(f"{archive}: holds {entry.filename!r}, which points out of it; refused before anything was written")
            if stat.S_ISLNK(entry.external_attr >> 16):
                raise ModelError(f"{archive}: holds the link {entry.filename!r}; refused before anything was written")
            if only is None and name.suffix.lower() in PICKLED:
                raise ModelError(f"{archive}: holds {entry.filename!r}: pickled files can run code and are refused")
        if only is not None:
            entries = [entry for entry in entries if only(PurePosixPath(entry.filename))]
        total = sum(entry.file_size for entry in entries)
        if total > min(MAX_UNPACKED_BYTES, shutil.disk_usage(target).free):
            raise ModelError(f"{archive}: would unpack to {total / 2**30:.1f} GiB; more than a model has, or than is free in {target}")
        try:
            opened.extractall(target, members=entries)
        # RuntimeError: encrypted, or an unknown compression; OSError: the disk; the others: damaged or cut short.
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError) as error:
            raise ModelError(f"{archive}: cannot be unpacked: {error}") from None
    found = sorted(target.rglob(marker), key=lambda p: len(p.parts))
    return found[0].parent if found else target
