"""How the editions of HECKTOR lay out their data, for the phantom cohort to be written in each: folders, names, tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from autoseg.errors import DatasetError
from autoseg.importers.cohort.patients import Patients
from autoseg.importers.cohort.tables import COLUMNS_2022, COLUMNS_2025, COLUMNS_2026, Columns, csv_text, task_tables

ENDING = ".nii.gz"


@dataclass(frozen=True)
class Layout:
    """One edition's.

    Attributes:
        training, new: names of the folders of the patients with outcomes, and of the new ones.
        image: (patient, "CT" or "PT", new) -> the file, relative to the folder.
        mask: patient -> the file, relative to the folder.
        columns: of its tables.
        tables, new_tables: file name -> content, for each of the two folders.
    """

    training: str
    new: str
    image: Callable[[str, str, bool], str]
    mask: Callable[[str], str]
    columns: Columns
    tables: Callable[[Patients], Mapping[str, str]]
    new_tables: Callable[[Patients], Mapping[str, str]]


def layout_of(edition: str) -> Layout:
    """The layout of an edition.

    Raises:
        DatasetError: there is no such edition.
    """
    if edition not in LAYOUTS:
        raise DatasetError(f"--edition {edition}: the editions are {', '.join(LAYOUTS)}")
    return LAYOUTS[edition]


def _tables_2022(patients: Patients) -> dict[str, str]:
    columns = COLUMNS_2022.texts(patients)
    followed = [row for row, known in enumerate(columns["Task 2"]) if known == "1"]
    return {
        "hecktor2022_clinical_info_training.csv": csv_text(columns, COLUMNS_2022.clinical),
        "hecktor2022_endpoint_training.csv": csv_text(columns, ("PatientID", *COLUMNS_2022.survival), followed),
    }


def _tables_2026(patients: Patients) -> dict[str, str]:
    columns = COLUMNS_2026
    return {"HECKTOR_2026_Training_Task.csv": csv_text(columns.texts(patients), (*columns.clinical, *columns.survival, *columns.stages))}


LAYOUTS: Mapping[str, Layout] = {
    "2022": Layout(
        "hecktor2022_training",
        "hecktor2022_testing",
        image=lambda patient, role, new: f"images{'Ts' if new else 'Tr'}/{patient}__{role}{ENDING}",
        # as the challenge's page writes it, with another separator than the images have
        mask=lambda patient: f"labelsTr/{patient.replace('-', '_')}{ENDING}",
        columns=COLUMNS_2022,
        tables=_tables_2022,
        new_tables=lambda new: {"hecktor2022_clinical_info_testing.csv": csv_text(COLUMNS_2022.texts(new), COLUMNS_2022.clinical)},
    ),
    "2025": Layout(
        "hecktor2025_training",
        "hecktor2025_new",
        image=lambda patient, role, new: f"Task 1/{patient}/{patient}__{role}{ENDING}",
        mask=lambda patient: f"Task 1/{patient}/{patient}{ENDING}",
        columns=COLUMNS_2025,
        tables=lambda patients: {f"HECKTOR_2025_Training_Task_{task}.csv": text for task, text in task_tables(patients).items()},
        new_tables=lambda new: {"HECKTOR_2025_Test_Task_1.csv": csv_text(COLUMNS_2025.texts(new), COLUMNS_2025.clinical)},
    ),
    "2026": Layout(
        "hecktor2026_training",
        "hecktor2026_new",
        image=lambda patient, role, new: f"{patient}/{patient}__{role}{ENDING}",
        mask=lambda patient: f"{patient}/{patient}{ENDING}",
        columns=COLUMNS_2026,
        tables=_tables_2026,
        new_tables=lambda new: {"HECKTOR_2026_Test_Task.csv": csv_text(COLUMNS_2026.texts(new), COLUMNS_2026.clinical)},
    ),
}
