"""Which names an evaluation uses: labels and centres from the dataset that the masks belong to."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

from autoseg.dataset import table
from autoseg.dataset.description import FILE_NAME, read_description
from planners.labels import Values

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Names:
    """Labels, name -> value or values (None: unknown), case -> centre, and the dataset folder they come from (None: none was found)."""

    labels: dict[str, Values] | None = None
    centres: dict[str, str] = field(default_factory=dict)
    folder: Path | None = None


def names_for(reference: Path, dataset: Path | None = None, *, are_labels_known: bool = False) -> Names:
    """Names from `dataset`; where none is named from the current folder, else from the one that holds the references, else empty ones.

    Args:
        are_labels_known: whether the labels are known without a dataset; else it is said that there is none.

    Raises:
        DatasetError: a dataset was named that has no dataset.json, or dataset.json, cases.csv or casesTs.csv is not valid.
    """
    folders = (Path("."), reference.absolute().parent) if dataset is None else (dataset,)
    for folder in folders:
        if dataset is not None or (folder / FILE_NAME).exists():
            labels = read_description(folder).labels
            logger.info("labels from %s", folder / FILE_NAME)
            tables = [folder / name for name in (table.NEW_FILE_NAME, table.FILE_NAME) if (folder / name).exists()]
            rows = [row for path in tables for row in table.read_table(path).values()]
            return Names(labels, {row.case: row.centre for row in rows if row.centre}, folder)
    if not are_labels_known:
        logger.warning("no %s in %s: labels are named by their values", FILE_NAME, " or ".join(map(str, folders)))
    return Names()
