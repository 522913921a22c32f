"""The logbook's numbers for TensorBoard, where that is asked for and installed (the extra `tensorboard`)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from autoseg.errors import TrainingError

FOLDER = "tensorboard"


class TensorBoard:
    """Writes rows of a logbook into `folder`/tensorboard, one point a number and epoch, named as in the row ("inner/score").

    The logbook is the truth: what stood there is written anew from it, so a resumed run has no point twice and none of an epoch that a kill
    undid. A context; on leaving, all is on disk.

    Args:
        folder: the fold's.
        rows: the logbook's, so far.

    Raises:
        TrainingError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, rows: Sequence[Mapping[str, Any]]):
        require_tensorboard()
        from torch.utils.tensorboard import SummaryWriter

        shutil.rmtree(folder / FOLDER, ignore_errors=True)
        self._writer = SummaryWriter(str(folder / FOLDER))
        for row in rows:
            self(row)

    def __call__(self, row: Mapping[str, Any]) -> None:
        """Adds the numbers of an epoch's row."""
        for name, value in _numbers(row):
            self._writer.add_scalar(name, value, row["epoch"])
        self._writer.flush()

    def __enter__(self) -> TensorBoard:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._writer.close()


def require_tensorboard() -> None:
    """Raises TrainingError, naming the extra, where TensorBoard is not installed."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise TrainingError(
            "--tensorboard: TensorBoard is not installed. Install it with: pip install 'autoseg[tensorboard]', or leave the option away; "
            "logbook.jsonl and progress.png hold the same numbers"
        ) from None


def _numbers(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and f"{prefix}{name}" != "epoch":
            yield f"{prefix}{name}", float(value)
