"""HECKTOR's data as they are handed out, made into a dataset folder: CT and PET on one grid, masks, and the clinical table as cases.csv."""

from autoseg.importers.hecktor.importing import ImportResult, import_hecktor

__all__ = ["ImportResult", "import_hecktor"]
