"""How worker processes died: which, by what signal, and with how much memory."""

from __future__ import annotations

import signal
import threading
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg.processes import memory_of
from autoseg.workers.scratch import read_mark

SAMPLE_SECONDS = 0.1
LOOK_SECONDS = 5.0


@dataclass(frozen=True)
class Death:
    """A process that ended on its own: its exit status (negative: minus the signal) and the memory it was last seen with, in bytes."""

    status: int | None
    memory: int | None
    peak: int | None

    def __str__(self) -> str:
        how = "ended unexpectedly"
        if self.status is not None and self.status >= 0:
            how = f"ended by itself with exit status {self.status}"
        elif self.status is not None:
            with suppress(ValueError):
                how = f"was killed by {signal.Signals(-self.status).name}{_LIKELY_CAUSE.get(-self.status, '')}"
        if self.memory is None or self.peak is None:
            return how
        return f"{how}, when it held {self.memory / 2**30:.2f} GiB of memory (peak {self.peak / 2**30:.2f} GiB)"


_LIKELY_CAUSE = {
    9: " (probably by the system, for lack of memory)",
    11: " (a crash inside a compiled library)",
    7: " (a memory-mapped file was cut short or its disk failed)",
    15: " (someone asked it to end)",
}


class Watch:
    """Keeps the memory that each busy process was last seen with, and notes which had died when the pool broke."""

    def __init__(self, executor: Any, scratch: Path):
        self._executor = executor
        self._scratch = scratch
        self._memory: dict[int, tuple[int, int]] = {}
        self._dead: dict[int, int | None] = {}
        self._looked = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="autoseg-worker-watch", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def look(self, future: Future[Any]) -> None:
        """Called when a future ends. When the pool breaks, loky fails the futures before it kills the surviving processes, so those that
        have ended at the first failure are the ones that died by themselves."""
        from joblib.externals.loky.process_executor import BrokenProcessPool

        if not self._looked.is_set() and isinstance(future.exception(), BrokenProcessPool):
            processes = dict(self._executor._processes or {})
            self._dead = {pid: process.exitcode for pid, process in processes.items() if process.exitcode is not None}
            self._looked.set()

    def deaths(self) -> dict[int, Death]:
        """Process id -> how it died; called once a future has told that the pool broke."""
        # A future wakes those who wait for it before it calls `look`.
        self._looked.wait(LOOK_SECONDS)
        return {pid: Death(status, *self._memory.get(pid, (None, None))) for pid, status in self._dead.items()}

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            with suppress(OSError):
                for mark in list(self._scratch.glob("*.running")):
                    process = read_mark(mark)
                    seen = process and memory_of(process)
                    if process and seen:
                        self._memory[process] = (seen[0], max(seen[1], self._memory.get(process, (0, 0))[1]))
