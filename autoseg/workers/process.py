"""What a worker process does: one case after another, each with a mark while it runs and a file with what became of it."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from autoseg.errors import AutosegError, WorkerError
from autoseg.processes import end_with_parent
from autoseg.workers.outcome import unexpected
from autoseg.workers.scratch import mark_path, result_path, write_result


def start_worker(parent: int) -> None:
    # Ctrl-C reaches the whole process group; the parent alone decides what it means and ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, args=(parent,), daemon=True).start()
    from joblib.externals.loky import process_executor

    # loky replaces a process that has grown by 300 MB, which is what one image does; it takes that for a leak.
    process_executor._USE_PSUTIL = False


def work(function: Callable[[Any], Any], item: Any, name: str, scratch: Path, index: int) -> None:
    mark = mark_path(scratch, index)
    with suppress(OSError):  # a mark only serves messages
        mark.write_text(str(os.getpid()))
    try:
        result = (function(item), None)
    except AutosegError as error:
        result = (None, error)
    except BaseException:
        result = (None, unexpected(name, traceback.format_exc()))
    write_result(result_path(scratch, index), _pickled(result, name))
    mark.unlink(missing_ok=True)


def _pickled(result: tuple[Any, AutosegError | None], name: str) -> bytes:
    from joblib.externals.loky.backend.reduction import dumps

    try:
        data = bytes(dumps(result))
        if result[1] is not None:
            pickle.loads(data)  # noqa: S301 (an error class with a constructor of its own may not come back)
        return data
    except Exception:
        text = traceback.format_exc() if result[1] is None else f"{type(result[1]).__name__}: {result[1]}"
        return pickle.dumps((None, unexpected(name, text) if result[1] is None else WorkerError(text)))
