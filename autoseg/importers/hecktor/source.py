"""Images and clinical tables of one HECKTOR folder together, and the tables of the dataset that is made from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from autoseg.dataset.case import list_names
from autoseg.dataset.patients import patient_key
from autoseg.dataset.table import FILE_NAME, NEW_FILE_NAME, Row, write_table
from autoseg.errors import DatasetError
from autoseg.importers.hecktor.clinical import Clinical, join_tables, name_centres
from autoseg.importers.hecktor.layouts import read_tree
from autoseg.importers.hecktor.tree import MASK, Tree


@dataclass(frozen=True)
class Source:
    """A folder that is imported: what lies in it and what its tables say."""

    tree: Tree
    clinical: Clinical

    @staticmethod
    def read(folder: str | Path, edition: str | None = None) -> Source:
        """The source in a folder, of the edition that is named or found; see `read_tree`.

        Raises:
            DatasetError: no known layout, or tables that contradict each other.
        """
        tree = read_tree(folder, edition)
        return Source(tree, join_tables(tree.tables))

    @cached_property
    def patients(self) -> dict[str, str]:
        """`patient_key` -> name of everyone with images or a row, by name; a folder's spelling goes before a table's."""
        names = {**self.clinical.names, **self._with_images}
        return dict(sorted(names.items(), key=lambda item: item[1]))

    @property
    def unlabelled(self) -> list[str]:
        """The patients with images and no mask, but for those of the test set."""
        return [study.patient for study in self.tree.studies if MASK not in study.files and not study.is_test]

    @property
    def tested(self) -> list[str]:
        """The patients of the edition's test set, of whom nothing is learned."""
        return [study.patient for study in self.tree.studies if study.is_test]

    @property
    def notes(self) -> list[str]:
        """What a user should know of files, tables, patients without a row and rows without images."""
        notes = [*self.tree.notes, *self.clinical.notes]
        if not self.tree.tables:
            notes.append(f"{self.tree.folder}: there is no clinical table (a CSV file called as HECKTOR's are)")
        elif without := [name for key, name in self._with_images.items() if key not in self.clinical.rows]:
            notes.append(f"{len(without)} patient(s) have no row in the clinical tables: {list_names(without)}")
        if rows := [name for key, name in self.clinical.names.items() if key not in self._with_images]:
            notes.append(f"{len(rows)} patient(s) of the clinical tables have no images that can be imported: {list_names(rows)}")
        return notes

    @property
    def _with_images(self) -> dict[str, str]:
        return {patient_key(study.patient): study.patient for study in self.tree.studies}

    def rows(self, patients: Iterable[str], centres: Mapping[str, str]) -> list[Row]:
        """Lines of a dataset's table for some patients; blank where nothing is known."""
        return [Row(name, name, centres[name], dict(self.clinical.rows.get(patient_key(name), {}))) for name in patients]


def require_apart(training: Source, new: Source) -> None:
    """Raises DatasetError where a patient is in both."""
    both = [name for key, name in new.patients.items() if key in training.patients]
    if both:
        raise DatasetError(
            f"{len(both)} patient(s) of {new.tree.folder}, the new ones, are also in {training.tree.folder}: {list_names(both)}. Who is "
            "trained on cannot be new: take them out of one of the two, images and rows"
        )


def write_tables(folder: Path, training: Source, new: Source | None) -> tuple[dict[str, str], tuple[str, ...]]:
    """Writes cases.csv (everyone of `training` but its test set) and, where there are any, casesTs.csv (its patients without a mask, its
    test set, and the new ones).

    Returns:
        Patient -> centre, and notes.
    """
    sources = [training] if new is None else [training, new]
    centres, notes = name_centres({name: source.clinical.centre_id(name) for source in sources for name in source.patients.values()})
    tested = set(training.tested)
    learned = [name for name in training.patients.values() if name not in tested]
    write_table(folder / FILE_NAME, training.rows(learned, centres), training.clinical.columns)
    rows = training.rows(sorted([*training.unlabelled, *tested]), centres)
    columns = dict.fromkeys(training.clinical.columns if rows else ())
    if new is not None:
        rows += new.rows(new.patients.values(), centres)
        columns |= dict.fromkeys(new.clinical.columns)
    if rows:
        write_table(folder / NEW_FILE_NAME, rows, list(columns))
    else:
        (folder / NEW_FILE_NAME).unlink(missing_ok=True)
    return centres, notes
