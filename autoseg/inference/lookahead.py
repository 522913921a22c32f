"""The next case is read and prepared in a thread while the network works on this one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")


class Lookahead(Generic[Item, Prepared]):
    """Prepares at most one case ahead, in a thread."""

    def __init__(self, prepare: Callable[[Item], Prepared], has_room: Callable[[Item], bool], *, enabled: bool):
        self._prepare, self._has_room, self._enabled = prepare, has_room, enabled
        self._pool: ThreadPoolExecutor | None = None
        self._waiting: tuple[Item, Future[Prepared]] | None = None

    def __enter__(self) -> Lookahead[Item, Prepared]:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def start(self, case: Item) -> None:
        """Begins to prepare a case, unless memory is short."""
        if not self._enabled or not self._has_room(case):
            return
        self._pool = self._pool or ThreadPoolExecutor(1, thread_name_prefix="next-case")
        self._waiting = (case, self._pool.submit(self._prepare, case))

    def take(self, case: Item) -> Prepared:
        """The prepared case, from the thread where it was begun there; raises what preparing raised."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None and waiting[0] is case:
            return waiting[1].result()
        return self._prepare(case)
