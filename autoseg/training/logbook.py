"""The logbook: one JSON line an epoch, cut back to the checkpoint on resuming."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoseg import files


class Logbook:
    """Rows of a training run in `path`, in memory and on disk.

    Args:
        path: the .jsonl file.
        epochs_done: rows of this epoch and later are dropped: a kill can leave them behind the checkpoint.
    """

    def __init__(self, path: Path, epochs_done: int):
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                except ValueError:
                    continue  # not one of ours, or damaged: the epoch before it still counts
                if isinstance(row, dict) and row.get("epoch", epochs_done) < epochs_done:
                    self.rows.append(row)
        self._write()

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds a row and writes the book."""
        self.rows.append(dict(row))
        self._write()

    def seconds_per_epoch(self, last: int = 5) -> float | None:
        """Mean seconds of the last epochs, validation included; None before the first."""
        times = [row["seconds"] + row.get("validation_seconds", 0.0) for row in self.rows[-last:] if "seconds" in row]
        return sum(times) / len(times) if times else None

    def _write(self) -> None:
        files.write_text(self.path, "".join(json.dumps(row) + "\n" for row in self.rows))
