"""One function over many cases, in processes: streamed, bounded in memory, and never silent or stuck when a worker dies.

Processes come from loky. Each case leaves a mark in a scratch folder while it runs and its value when it is done, so that the death of a
process is told with the case, the signal and the memory it held, and what was finished before stays finished. Values come back through
that folder and not through the pool's pipe: a process that is killed half-way into a pipe would leave its reader waiting for ever.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from autoseg.errors import AutosegError, ResourceError, WorkerError

logger = logging.getLogger(__name__)

T = TypeVar("T")

ONE_THREAD = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "BLOSC_NTHREADS",
        "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
    ),
    "1",
)
"""Set in a worker before it imports anything, so that one worker is one busy core (torch follows OMP_NUM_THREADS)."""

QUEUED_PER_WORKER = 2
SAMPLE_SECONDS = 0.1
PARENT_CHECK_SECONDS = 0.5
LOOK_SECONDS = 5.0
STRAY_DEATHS = 2


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What became of one case: its value, or the error that stands in the place of one."""

    name: str
    value: T | None = None
    error: AutosegError | None = None


def map_cases(
    function: Callable[[Any], T], items: Iterable[Any], *, workers: int, names: Iterable[str], progress: str | None = None
) -> Iterator[Outcome[T]]:
    """The outcome of `function(item)` for every item, each as soon as it is there, in no particular order.

    An `AutosegError` that the function raises is that item's `Outcome.error`; any other exception becomes a `WorkerError` with its
    traceback. When a process dies, the case it was at is set aside, the unfinished ones go on in half as many processes, and what was set
    aside is tried once more at the end, alone; a second death is its `Outcome.error`, a `WorkerError`. At most 2 x `workers` values exist
    that the caller has not taken.

    Args:
        function: called in the processes; it and the items must be picklable (closures are).
        workers: how many processes, each with one compute thread; 0 runs everything here, without any child.
        names: one an item; the case's name in messages.
        progress: text of a progress bar, which shows only on a terminal; None for no bar.

    Raises:
        ValueError: `workers` is negative, or there are not as many names as items.
        ResourceError: there is no room for temporary files.
    """
    tasks = deque(_Task(index, name, item) for index, (name, item) in enumerate(zip(names, items, strict=True)))
    if workers < 0:
        raise ValueError(f"workers must be 0 or more, found {workers}")
    total = len(tasks)
    outcomes = _map_here(function, tasks) if workers == 0 else _map_in_processes(function, tasks, min(workers, max(total, 1)))
    return outcomes if progress is None else _with_bar(outcomes, total, progress)


@dataclass(frozen=True)
class _Task:
    index: int
    name: str
    item: Any


@dataclass(frozen=True)
class _Death:
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


@dataclass
class _Crash:
    """A pool that broke: who died at which task, deaths at no task, and what is left to do."""

    at: dict[int, _Death]
    stray: list[_Death]
    unfinished: list[_Task]
    reason: str


# --- in this process


def _map_here(function: Callable[[Any], T], tasks: deque[_Task]) -> Generator[Outcome[T], None, None]:
    while tasks:
        task = tasks.popleft()
        try:
            outcome = Outcome(task.name, value=function(task.item))
        except AutosegError as error:
            outcome = Outcome(task.name, error=error)
        except Exception:
            outcome = Outcome(task.name, error=_unexpected(task.name, traceback.format_exc()))
        del task
        yield outcome
        del outcome


def _unexpected(name: str, text: str) -> WorkerError:
    return WorkerError(f"case {name}: an error that autoseg did not expect; please report it with these lines:\n{text.rstrip()}")


def _as_autoseg_error(name: str, error: BaseException) -> AutosegError:
    return error if isinstance(error, AutosegError) else _unexpected(name, _text(error))


def _with_bar(outcomes: Generator[Outcome[T], None, None], total: int, text: str) -> Generator[Outcome[T], None, None]:
    from tqdm import tqdm

    with closing(outcomes), tqdm(total=total, desc=text, disable=None, unit="case") as bar:
        for outcome in outcomes:
            bar.update()
            yield outcome
            del outcome


# --- in processes: what the parent does


def _map_in_processes(function: Callable[[Any], T], tasks: deque[_Task], workers: int) -> Generator[Outcome[T], None, None]:
    first_deaths: dict[int, _Death] = {}
    set_aside: list[_Task] = []
    stray = 0
    with _scratch_folder() as scratch:
        while tasks or set_aside:
            if not tasks:
                tasks, set_aside, workers = deque(set_aside), [], 1
            crash = yield from _run_pool(function, tasks, workers, Path(scratch))
            if crash is None:
                continue
            stray += not crash.at
            halved = max(1, workers // 2)
            for task in reversed(crash.unfinished):
                death = crash.at.get(task.index)
                if death is None:
                    tasks.appendleft(task)
                elif task.index in first_deaths:
                    yield Outcome(task.name, error=_died_twice(task.name, first_deaths[task.index], death))
                else:
                    first_deaths[task.index] = death
                    set_aside.append(task)
                    logger.warning(
                        "case %s: its worker process %s. The others go on with %d worker(s); it is tried again at the end, alone.",
                        task.name,
                        death,
                        halved,
                    )
            if not crash.at:
                logger.warning("worker processes died at no case: %s", crash.reason)
            if stray >= STRAY_DEATHS:
                yield from _give_up([*tasks, *set_aside], crash.reason)
                return
            workers = halved


def _scratch_folder() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="autoseg-workers-", ignore_cleanup_errors=True)
    except OSError as error:
        raise _no_scratch(error) from None


def _died_twice(name: str, first: _Death, second: _Death) -> WorkerError:
    return WorkerError(
        f"case {name}: its worker process {first}. Tried again alone, it {second}. "
        "If memory is short, close other programs or use fewer --workers; --workers 0 shows more of a crash."
    )


def _give_up(tasks: list[_Task], reason: str) -> Generator[Outcome[Any], None, None]:
    for task in tasks:
        yield Outcome(
            task.name, error=WorkerError(f"case {task.name}: not done, since worker processes keep dying: {reason}. Try --workers 0.")
        )


def _run_pool(function: Callable[[Any], T], tasks: deque[_Task], workers: int, scratch: Path) -> Generator[Outcome[T], None, _Crash | None]:
    """Yields outcomes until the tasks are used up (returns None) or a process died (returns the crash; tasks not sent stay in `tasks`)."""
    from joblib.externals.loky.process_executor import BrokenProcessPool, ProcessPoolExecutor

    executor = ProcessPoolExecutor(workers, initializer=_start_worker, initargs=(os.getpid(),), env=ONE_THREAD)
    running: dict[Future[None], _Task] = {}
    finished = False
    with _Watch(executor, scratch) as watch:
        try:
            while tasks or running:
                while tasks and len(running) < QUEUED_PER_WORKER * workers:
                    try:
                        future = executor.submit(_work, function, tasks[0].item, tasks[0].name, scratch, tasks[0].index)
                    except BrokenProcessPool as error:
                        return (yield from _after_crash(running, watch, scratch, error))
                    running[future] = tasks.popleft()
                    future.add_done_callback(watch.look)
                # The limit is for Windows, where a wait without one does not hear Ctrl-C.
                done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in done:
                    problem = future.exception()
                    if isinstance(problem, BrokenProcessPool):
                        return (yield from _after_crash(running, watch, scratch, problem))
                    task = running.pop(future)
                    yield _collect(task, scratch) if problem is None else Outcome(task.name, error=_as_autoseg_error(task.name, problem))
            finished = True
        finally:
            executor.shutdown(wait=True, kill_workers=not finished)
    return None


def _after_crash(
    running: dict[Future[None], _Task], watch: _Watch, scratch: Path, error: BaseException
) -> Generator[Outcome[Any], None, _Crash]:
    """Yields what was finished all the same, and returns the rest with the deaths."""
    deaths = watch.deaths() if running else {}
    at, unfinished = {}, []
    for task in sorted(running.values(), key=lambda task: task.index):
        if _result_path(scratch, task.index).exists():
            yield _collect(task, scratch)
            continue
        mark = _mark_path(scratch, task.index)
        process = _read_mark(mark)
        if process in deaths:
            at[task.index] = deaths.pop(process)
        mark.unlink(missing_ok=True)
        unfinished.append(task)
    stray = list(deaths.values())
    return _Crash(at, stray, unfinished, reason=f"a process {stray[0]}" if stray else " ".join(_text(error).split()))


def _collect(task: _Task, scratch: Path) -> Outcome[Any]:
    path = _result_path(scratch, task.index)
    try:
        # Written by our own worker a moment ago, in a folder that only this user may enter.
        value, error = pickle.loads(path.read_bytes())  # noqa: S301
    except Exception:
        return Outcome(task.name, error=_unexpected(task.name, traceback.format_exc()))
    finally:
        path.unlink(missing_ok=True)
    return Outcome(task.name, value, error)


def _text(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


class _Watch:
    """Keeps the memory that each busy process was last seen with, and notes which had died when the pool broke."""

    def __init__(self, executor: Any, scratch: Path):
        self._executor = executor
        self._scratch = scratch
        self._memory: dict[int, tuple[int, int]] = {}
        self._dead: dict[int, int | None] = {}
        self._looked = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="autoseg-worker-watch", daemon=True)

    def __enter__(self) -> _Watch:
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

    def deaths(self) -> dict[int, _Death]:
        """Process id -> how it died; called once a future has told that the pool broke."""
        # A future wakes those who wait for it before it calls `look`.
        self._looked.wait(LOOK_SECONDS)
        return {pid: _Death(status, *self._memory.get(pid, (None, None))) for pid, status in self._dead.items()}

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            with suppress(OSError):
                for mark in list(self._scratch.glob("*.running")):
                    process = _read_mark(mark)
                    seen = process and _memory_of(process)
                    if process and seen:
                        self._memory[process] = (seen[0], max(seen[1], self._memory.get(process, (0, 0))[1]))


def _memory_of(process: int) -> tuple[int, int] | None:
    """Bytes of memory that a process holds now and held at most; None when it is gone."""
    if sys.platform == "linux":
        with suppress(OSError, ValueError):
            fields = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
            if "VmRSS" in fields:
                return int(fields["VmRSS"].split()[0]) * 1024, int(fields["VmHWM"].split()[0]) * 1024
        return None
    import psutil

    with suppress(psutil.Error):
        held = psutil.Process(process).memory_info().rss
        return held, held
    return None


# --- in processes: what a worker does


def _start_worker(parent: int) -> None:
    # Ctrl-C reaches the whole process group; the parent alone decides what it means and ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, args=(parent,), daemon=True).start()
    from joblib.externals.loky import process_executor

    # loky replaces a process that has grown by 300 MB, which is what one image does; it takes that for a leak.
    process_executor._USE_PSUTIL = False


def end_with_parent(parent: int) -> None:
    """Ends this process when its parent is gone, so that a killed command leaves no orphan at work; for a daemon thread."""
    import psutil

    while os.getppid() == parent and psutil.pid_exists(parent):
        time.sleep(PARENT_CHECK_SECONDS)
    os._exit(1)


def _work(function: Callable[[Any], Any], item: Any, name: str, scratch: Path, index: int) -> None:
    mark = _mark_path(scratch, index)
    with suppress(OSError):  # a mark only serves messages
        mark.write_text(str(os.getpid()))
    try:
        result = (function(item), None)
    except AutosegError as error:
        result = (None, error)
    except BaseException:
        result = (None, _unexpected(name, traceback.format_exc()))
    _write_result(_result_path(scratch, index), _pickled(result, name))
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
        return pickle.dumps((None, _unexpected(name, text) if result[1] is None else WorkerError(text)))


def _write_result(path: Path, data: bytes) -> None:
    partial = path.with_suffix(".partial")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    except OSError as error:
        raise _no_scratch(error) from None


def _no_scratch(error: OSError) -> ResourceError:
    return ResourceError(
        f"{tempfile.gettempdir()}: results on their way cannot be kept there: {error.strerror}. "
        "Free some space, or set TMPDIR to another folder"
    )


def _mark_path(scratch: Path, index: int) -> Path:
    return scratch / f"{index}.running"


def _result_path(scratch: Path, index: int) -> Path:
    return scratch / f"{index}.result"


def _read_mark(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
