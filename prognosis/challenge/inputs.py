"""The input folder: CT and PET brought onto one grid as the importer does it, and the EHR as a table of one row."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoseg import files
from autoseg.dataset.case import list_names, split_ending
from autoseg.errors import DatasetError, GeometryError, ImageError
from autoseg.images import Geometry, Image, read_image
from autoseg.importers.hecktor.case import AIR, implausible
from autoseg.importers.hecktor.grids import Onto, field_of_view, resample

CASE = "patient"
"""What the one patient is called: the platform tells no name."""

CENTRE = ("centerid", "centreid")
"""No predictor, and missing for some of the tasks."""


@dataclass(frozen=True)
class Images:
    """CT and PET on one grid.

    Attributes:
        ct, pet: on that grid.
        ct_grid: the CT's own, to which the mask returns.
        notes: what was noticed.
    """

    ct: Image
    pet: Image
    ct_grid: Geometry
    notes: tuple[str, ...]


def read_images(folder: Path, onto: Onto) -> Images:
    """The images of an input folder: images/ct and images/pet, one file in each.

    Args:
        onto: the grid that the networks were trained on; see `autoseg.importers.hecktor`.

    Raises:
        ImageError: a file is missing, broken or 2-D, or there are several.
        GeometryError: CT and PET do not overlap.
    """
    # Voxels that are not finite are replaced, and noted, before resampling spreads them.
    ct, pet = (read_image(_only_file(folder / "images" / name), case=CASE, allow_nonfinite=True) for name in ("ct", "pet"))
    for role, image in (("CT", ct), ("PET", pet)):
        if image.geometry.dimension != 3:
            raise ImageError(f"case {CASE}: its {role} ({image.path}) is 2-D; expected is a volume")
    notes = [*ct.notes, *pet.notes, *implausible(CASE, ct, pet)]
    grid = onto.grid(ct.geometry, pet.geometry)
    covered = field_of_view(pet.geometry, grid)
    if not covered.any() or not field_of_view(ct.geometry, grid).any():
        raise GeometryError(f"case {CASE}: CT and PET do not overlap: CT is {ct.geometry}; PET is {pet.geometry}")
    uncovered = 1 - np.count_nonzero(covered) / covered.size
    if uncovered:
        notes.append(f"{uncovered:.1%} of the grid lie beyond the PET's field of view, where PET is 0")
    on_grid = [Image(resample(one, grid, outside=outside), grid, one.path) for one, outside in ((ct, AIR), (pet, 0.0))]
    return Images(on_grid[0], on_grid[1], ct.geometry, tuple(notes))


def _only_file(folder: Path) -> Path:
    found = sorted(path for path in folder.glob("*") if split_ending(path.name)[1] and not path.name.startswith("."))
    if len(found) != 1:
        there = list_names(path.name for path in sorted(folder.glob("*"))) or ("nothing" if folder.is_dir() else "no such folder")
        raise ImageError(f"{folder}: must hold one image (.mha, .nii.gz, .nii or .nrrd), found {there}")
    return found[0]


# --- the EHR


@dataclass(frozen=True)
class Record:
    """The EHR: column -> text ("" where nothing is known), and what was noticed."""

    values: dict[str, str]
    notes: tuple[str, ...] = ()

    def write_table(self, path: Path) -> None:
        """Writes the table of one row that prognosis reads."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([["case", *self.values], [CASE, *self.values.values()]])
        files.write_text(path, text.getvalue())


def read_record(path: Path) -> Record:
    """The EHR in a JSON file: an object of columns and values. CenterID is left out; null and absent fields are not known.

    A file that is missing or no object is told in the notes and nothing is known then: images alone may still say something.
    """
    try:
        content, notes = _parsed(path)
    except DatasetError as error:
        return Record({}, (f"{error}; nothing is known of the patient but the images",))
    values = {name.strip(): _text(value) for name, value in content.items() if name.strip()}
    kept = {name: value for name, value in values.items() if re.sub(r"[\s_]+", "", name).casefold() not in (*CENTRE, "case", "patient")}
    unknown = [name for name, value in kept.items() if not value]
    if unknown:
        notes.append(f"{path.name}: not known: {list_names(unknown)}")
    return Record(kept, tuple(notes))


def _parsed(path: Path) -> tuple[dict[str, Any], list[str]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: is no UTF-8 text (byte {error.start})") from None
    notes = []
    try:
        content = json.loads(text)
    except ValueError as error:
        try:  # HECKTOR 2026's own sample has a comma after its last field
            content = json.loads(re.sub(r",(\s*[}\]])", r"\1", text))
        except ValueError:
            raise DatasetError(f"{path}: is no valid JSON: {error}") from None
        notes.append(f"{path.name}: a comma after the last field is passed over")
    if isinstance(content, list) and len(content) == 1:
        content = content[0]
    if not isinstance(content, dict):
        raise DatasetError(f"{path}: must hold one object of columns and values, found {type(content).__name__}")
    return content, notes


def _text(value: Any) -> str:
    if value is None or isinstance(value, list | dict) or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return str(int(value)) if isinstance(value, bool) else str(value).strip()
