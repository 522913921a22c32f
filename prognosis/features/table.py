"""The feature table: a row a patient, with how each row's mask came about; features.csv for the numbers, features.json for the rest."""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg import files
from autoseg.commands.entry import RESEARCH_ONLY
from autoseg.dataset.case import list_names
from prognosis.errors import FeatureError
from prognosis.features.case import FEATURES
from prognosis.features.feature import FLAGS, Group

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "autoseg-features/1"
PATIENT, CASE, FLAGS_COLUMN = "patient", "case", "flags"
FLAG_SEPARATOR = ";"


@dataclass(frozen=True)
class MaskOrigin:
    """How a patient's mask came about.

    Attributes:
        case: the imaging study that was measured.
        fold: whose network made the mask; the case was held out from it.
        saw_centre: whether that network was trained on cases of the same centre; true too where nobody can tell.
        sha256: of the mask's file.
    """

    case: str
    fold: str
    saw_centre: bool
    sha256: str


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """Features of patients.

    Attributes:
        frame: index `patient` (str), a float64 column a feature, nan where it has no value; index and columns are unique.
        flags: patient -> those of `feature.FLAGS` that hold; patients without any are left out.
        masks: patient -> where the mask is from; empty for a table that was made elsewhere.
        unmeasured: patient -> why there is no row; such patients are in no other field.
        failures: the reasons among these that are errors of a case rather than a mask that is not there; not part of the files.
        segmentation_saw_centre: whether a network saw the centre of a patient whose mask it made, or may have (then a note says why); None
            where nothing is known of the masks.
        segmentation_saw_patient: whether such a network learned from masks of networks that had been trained on the patient, as a
            cascade's does; None where unknown.
        scheme, configuration: the folds and the network of the masks; "" where unknown.
        labels: what the dataset calls the primary tumour ("GTVp") and the nodes ("GTVn"); empty where unknown.
        notes: what a user should know.
    """

    frame: pd.DataFrame
    flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    masks: Mapping[str, MaskOrigin] = field(default_factory=dict)
    unmeasured: Mapping[str, str] = field(default_factory=dict)
    failures: tuple[str, ...] = ()
    segmentation_saw_centre: bool | None = None
    segmentation_saw_patient: bool | None = None
    scheme: str = ""
    configuration: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def patients(self) -> tuple[str, ...]:
        """Those with a row, in the table's order."""
        return tuple(self.frame.index)

    def groups(self) -> dict[str, Group]:
        """Column -> "volume" or "image"; a column that autoseg does not define is "image"."""
        return {column: FEATURES[column].group if column in FEATURES else "image" for column in self.frame.columns}

    def write(self, path: str | Path) -> None:
        """Writes the numbers to `path` (CSV) and the rest beside it, with the ending .json; numbers survive the round trip bit by bit.

        Raises:
            ResourceError, AutosegError: as `autoseg.files.write_bytes`.
        """
        path = Path(path)
        content = self._csv().encode()
        files.write_bytes(path, content)
        files.write_json(path.with_suffix(".json"), self._document(content))

    @staticmethod
    def read(path: str | Path) -> FeatureTable:
        """The table in a CSV file with a column `patient` and numbers in all others, `case` and `flags` (";" between several) apart.

        The JSON file beside it tells where the masks are from; without it, or where the CSV was changed since, that is unknown: `masks` is
        empty, `segmentation_saw_centre` and `segmentation_saw_patient` None, and a note says so.

        Raises:
            FeatureError: a file cannot be read, is no such table, names a patient or column twice, or holds something that is no number.
        """
        path = Path(path)
        content, frame, flags = _read_csv(path)
        beside = path.with_suffix(".json")
        if not beside.exists():
            return FeatureTable(frame, flags, notes=(f"{path.name}: there is no {beside.name}: where its masks are from is unknown",))
        document = _read_document(beside)
        if document["csv_sha256"] != _sha256(content):
            note = f"{path.name} was changed after {beside.name} was written: where its masks are from is unknown"
            return FeatureTable(frame, flags, notes=(note,))
        return FeatureTable(
            frame,
            flags,
            masks={patient: MaskOrigin(**origin) for patient, origin in document["masks"].items()},
            unmeasured=document["unmeasured"],
            segmentation_saw_centre=document["segmentation_saw_centre"],
            segmentation_saw_patient=document.get("segmentation_saw_patient"),  # tables of the first releases do not tell
            scheme=document["scheme"],
            configuration=document["configuration"],
            labels=document["labels"],
            notes=tuple(document["notes"]),
        )

    def _csv(self) -> str:
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([PATIENT, CASE, FLAGS_COLUMN, *self.frame.columns])
        for patient, values in zip(self.frame.index, self.frame.to_numpy(float), strict=True):
            case = self.masks[patient].case if patient in self.masks else ""
            numbers = ("" if math.isnan(value) else repr(float(value)) for value in values)
            writer.writerow([patient, case, FLAG_SEPARATOR.join(self.flags.get(patient, ())), *numbers])
        return text.getvalue()

    def _document(self, content: bytes) -> dict[str, Any]:
        from autoseg.training.record import software_versions

        return {
            "schema": SCHEMA,
            "use": RESEARCH_ONLY,
            "csv_sha256": _sha256(content),
            "segmentation_saw_centre": self.segmentation_saw_centre,
            "segmentation_saw_patient": self.segmentation_saw_patient,
            "scheme": self.scheme,
            "configuration": self.configuration,
            "labels": dict(self.labels),
            "patients": len(self.frame),
            "notes": list(self.notes),
            "unmeasured": dict(self.unmeasured),
            "masks": {patient: asdict(origin) for patient, origin in self.masks.items()},
            "flags": FLAGS,
            "definitions": {name: asdict(FEATURES[name]) for name in self.frame.columns if name in FEATURES},
            "versions": software_versions(),
        }


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read_csv(path: Path) -> tuple[bytes, pd.DataFrame, dict[str, tuple[str, ...]]]:
    import pandas as pd

    try:
        content = path.read_bytes()
        lines = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True))
    except OSError as error:
        raise FeatureError(f"{path}: cannot be read: {error.strerror}. Make it with: prognosis features") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise FeatureError(f"{path}: is no CSV text in UTF-8: {error}") from None
    header = [name.strip() for name in lines[0]] if lines else []
    problems = [f"the column {name!r} stands twice" for name in sorted({n for n in header if header.count(n) > 1})]
    if PATIENT not in header:
        problems.append(f"the first line must name the columns, {PATIENT!r} among them; found: {list_names(header) or 'nothing'}")
    columns = [name for name in header if name not in (PATIENT, CASE, FLAGS_COLUMN)]
    rows: dict[str, list[float]] = {}
    flags: dict[str, tuple[str, ...]] = {}
    for number, cells in enumerate(lines[1:] if not problems else (), start=2):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(header):
            problems.append(f"row {number}: has {len(cells)} fields, the header has {len(header)}")
            continue
        record = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
        patient = record[PATIENT]
        if not patient or patient in rows:
            problems.append(f"row {number}: " + (f"the patient {patient} stands here for the second time" if patient else "has no patient"))
            continue
        rows[patient] = [_number(record[name], number, name, problems) for name in columns]
        if record.get(FLAGS_COLUMN):
            flags[patient] = tuple(record[FLAGS_COLUMN].split(FLAG_SEPARATOR))
    if problems:
        raise FeatureError(f"{path}: " + "; ".join(problems[:10]) + (f"; and {len(problems) - 10} more" if len(problems) > 10 else ""))
    index = pd.Index(rows, name=PATIENT, dtype=object)
    return content, pd.DataFrame(list(rows.values()), index=index, columns=columns, dtype="float64"), flags


def _number(text: str, row: int, column: str, problems: list[str]) -> float:
    if not text:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.inf
    if math.isinf(value):
        problems.append(f"row {row}, column {column}: must be a finite number with a decimal point, or empty; found {text!r}")
    return value


def _read_document(path: Path) -> dict[str, Any]:
    document = files.read_json(path, error=FeatureError)
    wanted = ("csv_sha256", "masks", "unmeasured", "segmentation_saw_centre", "scheme", "configuration", "labels", "notes")
    if not isinstance(document, dict) or document.get("schema") != SCHEMA or not all(name in document for name in wanted):
        found = document.get("schema") if isinstance(document, dict) else type(document).__name__
        raise FeatureError(f"{path}: is no document of schema {SCHEMA}, found {found!r}. Make it anew with: prognosis features")
    return document
