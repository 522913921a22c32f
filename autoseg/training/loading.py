"""Batches made ahead by loader processes, in the order in which training asks for them."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch.utils.data import DataLoader, Dataset

from autoseg.augmentation.pipeline import Augmenter
from autoseg.errors import WorkerError
from autoseg.processes import end_with_parent
from autoseg.training.batches import PLAIN, Batch, CaseCache, SampleSource
from autoseg.training.interrupt import Stopped
from autoseg.training.sampling import ForegroundRule
from planners.plan import Augmentation

TRAIN, VALIDATION, INNER = "train", "validation", "inner"

Key = tuple[str, int, int]
"""(purpose, epoch, iteration) of a batch."""


class _Keyed(Dataset):
    """Key -> batch, for a DataLoader.

    Args:
        sources: purpose -> what draws its samples, and how they are augmented.
    """

    def __init__(self, sources: Mapping[str, tuple[SampleSource, Augmentation]]):
        self.sources = sources
        self._ready: dict[str, tuple[Augmenter, CaseCache]] = {}

    def __getitem__(self, key: Key) -> Batch:
        purpose, epoch, iteration = key
        source, augmentation = self.sources[purpose]
        if purpose not in self._ready:
            self._ready[purpose] = source.augmenter(augmentation), CaseCache(source)
        return source.batch(purpose, epoch, iteration, *self._ready[purpose])


class _Ahead:
    """Batches that loader processes make ahead, in the order of their keys."""

    def __init__(self, keys: Iterator[Key], batches: Iterator[Batch]):
        self._keys, self._batches = keys, batches
        self._head = next(self._keys, None)

    def take(self, key: Key) -> Batch | None:
        """The batch of a key, where it is the next one or only validation stands before it; else None, and nothing is taken."""
        while key[0] == TRAIN and self._head is not None and self._head[0] != TRAIN:
            self._next()  # validation that nobody asked for
        return self._next() if key == self._head else None

    def close(self) -> None:
        """Ends the processes. torch has no public call for it and waits for the iterator to be forgotten, which a traceback may prevent."""
        getattr(self._batches, "_shutdown_workers", lambda: None)()

    def _next(self) -> Batch:
        self._head = next(self._keys, None)
        return next(self._batches)


class SegmentationBatches:
    """Training and validation batches of one fold (the loop's `Batches`).

    Loader processes make them in the order in which training asks: after an epoch's training batches those that judge it. They live until
    `close`, and must not live longer: deaf to signals, they would keep this process from ending.

    Args:
        source: draws the training samples.
        validation: names of the cases that the learning curve is drawn on; none gives no validation batches.
        inner: names of the training cases that early stopping judges by.
        workers: loader processes; 0 = in this process.
        pinned: whether batches lie in page-locked memory, from where a GPU takes them faster; only where training runs on one.
    """

    def __init__(
        self, source: SampleSource, validation: tuple[str, ...], workers: int, inner: tuple[str, ...] = (), *, pinned: bool = False
    ):
        self.training = source.configuration.training
        self.workers, self.pinned = workers, pinned
        stopping = self.training.early_stopping
        self._judging = {
            VALIDATION: self.training.validation_iterations if validation else 0,
            INNER: stopping.iterations if stopping and inner else 0,
        }
        # what only measures is drawn alike, whatever training is centred on
        measuring = {
            name: replace(source, cases=cases, rule=ForegroundRule()) for name, cases in ((VALIDATION, validation), (INNER, inner))
        }
        self._sources = {TRAIN: (source, source.configuration.augmentation), **{name: (each, PLAIN) for name, each in measuring.items()}}
        self._here = _Keyed(self._sources)
        self._ahead: _Ahead | None = None

    def stream(self, epoch: int, iteration: int) -> Iterator[Batch]:
        """Training batches from that point to the end of training, in order."""
        if self.workers:
            self._ahead = _Ahead(self._order(epoch, iteration), iter(self._loader(self._order(epoch, iteration))))
        yield from (self._batch(key) for key in self._order(epoch, iteration) if key[0] == TRAIN)

    def close(self) -> None:
        """Ends the loader processes; what they have made ahead is lost."""
        if self._ahead:
            self._ahead.close()
        self._ahead = None

    def validation(self, epoch: int) -> Iterator[Batch]:
        """Unaugmented random patches of the fold's validation cases; the same for the same epoch."""
        return (self._batch((VALIDATION, epoch, number)) for number in range(self._judging[VALIDATION]))

    def inner(self) -> Iterator[Batch]:
        """Unaugmented random patches of the inner validation part: the same in every epoch, so that epochs can be compared."""
        return (self._batch((INNER, 0, number)) for number in range(self._judging[INNER]))

    def _order(self, epoch: int, iteration: int) -> Iterator[Key]:
        for now in range(epoch, self.training.epochs):
            yield from ((TRAIN, now, number) for number in range(iteration if now == epoch else 0, self.training.iterations))
            yield from ((VALIDATION, now, number) for number in range(self._judging[VALIDATION]))
            yield from ((INNER, 0, number) for number in range(self._judging[INNER]))

    def _batch(self, key: Key) -> Batch:
        made = self._ahead.take(key) if self._ahead else None
        return self._here[key] if made is None else made

    def _loader(self, keys: Iterator[Key]) -> DataLoader:
        return DataLoader(
            _Keyed(self._sources),
            sampler=keys,
            batch_size=None,
            num_workers=self.workers,
            prefetch_factor=2,
            multiprocessing_context="spawn",
            worker_init_fn=_start_worker,
            pin_memory=self.pinned,
        )


@contextmanager
def loader_deaths(stopping: Callable[[], bool]) -> Iterator[None]:
    """Context in which the death of a loader process becomes a `WorkerError`, or `Stopped` where training is being stopped anyway.

    torch raises it from a signal handler, so at any point, even inside an optimiser's step: what is in memory is then not to be saved.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        if stopping():
            raise Stopped("stopped; training goes on from the checkpoint of its last epoch") from None
        raise WorkerError(
            f"a loader process died ({error}). Most often the system killed it for lack of memory: close other programs or train with "
            "--workers 0; training goes on from its checkpoint"
        ) from error


def _start_worker(_: int) -> None:
    """One compute thread; deaf to the signals that go to a whole process group: the parent stops its workers itself, and where it is
    killed they end by themselves (torch's own watchdog waits for ever once the queue to a dead reader is full)."""
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        threading.Thread(target=end_with_parent, args=(parent.pid,), daemon=True).start()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
