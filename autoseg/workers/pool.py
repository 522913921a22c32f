"""One function over many cases, in processes: streamed, bounded in memory, and never silent or stuck when a worker dies.

Processes come from loky. Each case leaves a mark in a scratch folder while it runs and its value when it is done, so that the death of a
process is told with the case, the signal and the memory it held, and what was finished before stays finished. Values come back through
that folder and not through the pool's pipe: a process that is killed half-way into a pipe would leave its reader waiting for ever.
"""

from __future__ import annotations

import logging
import os
import pickle
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from autoseg.errors import AutosegError, WorkerError
from autoseg.workers.deaths import Death, Watch
from autoseg.workers.outcome import Outcome, unexpected
from autoseg.workers.process import start_worker, work
from autoseg.workers.scratch import mark_path, read_mark, result_path, scratch_folder

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
STRAY_DEATHS = 2


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


@dataclass
class _Crash:
    """A pool that broke: who died at which task, deaths at no task, and what is left to do."""

    at: dict[int, Death]
    stray: list[Death]
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
            outcome = Outcome(task.name, error=unexpected(task.name, traceback.format_exc()))
        del task
        yield outcome
        del outcome


def _as_autoseg_error(name: str, error: BaseException) -> AutosegError:
    return error if isinstance(error, AutosegError) else unexpected(name, _text(error))


def _with_bar(outcomes: Generator[Outcome[T], None, None], total: int, text: str) -> Generator[Outcome[T], None, None]:
    from tqdm import tqdm

    with closing(outcomes), tqdm(total=total, desc=text, disable=None, unit="case") as bar:
        for outcome in outcomes:
            bar.update()
            yield outcome
            del outcome


# --- in processes: what the parent does


def _map_in_processes(function: Callable[[Any], T], tasks: deque[_Task], workers: int) -> Generator[Outcome[T], None, None]:
    first_deaths: dict[int, Death] = {}
    set_aside: list[_Task] = []
    stray = 0
    with scratch_folder() as scratch:
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


def _died_twice(name: str, first: Death, second: Death) -> WorkerError:
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

    executor = ProcessPoolExecutor(workers, initializer=start_worker, initargs=(os.getpid(),), env=ONE_THREAD)
    running: dict[Future[None], _Task] = {}
    finished = False
    with Watch(executor, scratch) as watch:
        try:
            while tasks or running:
                while tasks and len(running) < QUEUED_PER_WORKER * workers:
                    try:
                        future = executor.submit(work, function, tasks[0].item, tasks[0].name, scratch, tasks[0].index)
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
    running: dict[Future[None], _Task], watch: Watch, scratch: Path, error: BaseException
) -> Generator[Outcome[Any], None, _Crash]:
    """Yields what was finished all the same, and returns the rest with the deaths."""
    deaths = watch.deaths() if running else {}
    at, unfinished = {}, []
    for task in sorted(running.values(), key=lambda task: task.index):
        if result_path(scratch, task.index).exists():
            yield _collect(task, scratch)
            continue
        mark = mark_path(scratch, task.index)
        process = read_mark(mark)
        if process in deaths:
            at[task.index] = deaths.pop(process)
        mark.unlink(missing_ok=True)
        unfinished.append(task)
    stray = list(deaths.values())
    return _Crash(at, stray, unfinished, reason=f"a process {stray[0]}" if stray else " ".join(_text(error).split()))


def _collect(task: _Task, scratch: Path) -> Outcome[Any]:
    path = result_path(scratch, task.index)
    try:
        # Written by our own worker a moment ago, in a folder that only this user may enter.
        value, error = pickle.loads(path.read_bytes())  # noqa: S301
    except Exception:
        return Outcome(task.name, error=unexpected(task.name, traceback.format_exc()))
    finally:
        path.unlink(missing_ok=True)
    return Outcome(task.name, value, error)


def _text(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))
