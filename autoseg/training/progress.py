"""What training tells while it runs: a line and a logbook row an epoch, the learning curve, a progress bar, how long it will take."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from autoseg.durations import duration
from autoseg.report.curves import write_learning_curve
from autoseg.training.logbook import Logbook
from autoseg.training.state import Progress
from planners.plan import Training

logger = logging.getLogger(__name__)

CURVE_EVERY_SECONDS = 60.0


class Recorder:
    """Writes an epoch's row to the logbook, the log, `also` and, now and then, the learning curve.

    Args:
        name: of the run: "fold 0".
        told: what the log says of a row's learning.
    """

    def __init__(
        self,
        logbook: Logbook,
        picture: Path,
        name: str,
        training: Training,
        told: Callable[[dict[str, Any]], str],
        also: Callable[[dict[str, Any]], None] = lambda row: None,
    ):
        self.logbook, self.picture, self.name, self.training, self.told, self.also = logbook, picture, name, training, told, also
        self._drawn = 0.0

    def __call__(self, row: dict[str, Any]) -> None:
        self.logbook.append(row)
        self.also(row)
        left = (self.training.epochs - row["epoch"] - 1) * (self.logbook.seconds_per_epoch() or 0.0)
        logger.info(
            "%s epoch %d/%d: %s, lr %.5f, %.1f s, waiting for data %.0f %%, %s left",
            self.name,
            row["epoch"] + 1,
            self.training.epochs,
            self.told(row),
            row["lr"],
            row["seconds"] + row["validation_seconds"],
            100 * row["data_wait"],
            duration(left),
        )
        if time.monotonic() - self._drawn > CURVE_EVERY_SECONDS:
            write_learning_curve(self.logbook.rows, self.picture, title=self.name)
            self._drawn = time.monotonic()


@contextlib.contextmanager
def iteration_bar(training: Training, progress: Progress) -> Iterator[Callable[[], None]]:
    """A progress bar over all iterations that tells once, early, how long training will take."""
    from tqdm import tqdm

    total = training.epochs * training.iterations
    done = progress.epoch * training.iterations + progress.iteration
    started, count = time.monotonic(), 0

    with tqdm(total=total, initial=done, unit="it", disable=None, leave=False) as bar:

        def tick() -> None:
            nonlocal count, started
            count += 1
            bar.update()
            if count == 1:
                started = time.monotonic()  # the first one pays for start-up
            if count == 4:
                each = (time.monotonic() - started) / 3
                left = total - done - count
                logger.info("about %.2f s an iteration: %s for the %d left", each, duration(each * left), left)

        yield tick
