"""Prepared cases on disk: plain .npy files that are memory-mapped, with a JSON file that is written last and makes the case valid."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from autoseg.augmentation.counters import generator
from autoseg.errors import DatasetError
from autoseg.files import read_json, replace_with, sha256_file, sha256_json, write_json
from autoseg.preprocessing.lesion_locations import lesion_locations
from autoseg.preprocessing.prepare import PREPARATION_VERSION, CaseProperties, Prepared
from planners.labels import LabelScheme
from planners.plan import Plan, readable

SCHEMA = "autoseg-case/1"

FEWEST_LOCATIONS = 10_000
LOCATED_SHARE = 0.01

ANNOTATED = 0
"""Stands for a class where voxels of any annotation, background included, are located."""

Part = Literal["data", "labels", "locations", "lesions"]


class StoredFile(BaseModel):
    """What an array file must be."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int
    sha256: str


class Description(BaseModel):
    """The JSON file of a prepared case."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_: Literal["autoseg-case/1"] = Field(default=SCHEMA, alias="schema")
    name: str
    key: str
    files: dict[Part, StoredFile]
    properties: CaseProperties


@dataclass(frozen=True)
class StoredCase:
    """A prepared case, opened.

    Attributes:
        name: the case.
        key: hash of the files that it was made from.
        data: float32 (c, z, y, x), a read-only memory map.
        labels: int8 or int16 (z, y, x), a read-only memory map; None for a case without a mask.
        properties: how it came about.
        locations: class -> (n, 3) int32, voxels of that class, for sampling. A class is numbered as in `class_numbers`.
        annotated: (n, 3) int32, voxels of all that is annotated, where the dataset has an ignore label; else None.
        lesions: where `add_lesions` was asked for, a table of `lesion_locations`; else None.
        previous: int8 or int16 (z, y, x), the mask of a previous stage, a read-only memory map; None where there is no such stage.
    """

    name: str
    key: str
    data: np.ndarray
    labels: np.ndarray | None
    properties: CaseProperties
    locations: dict[int, np.ndarray]
    previous: np.ndarray | None = None
    annotated: np.ndarray | None = None
    lesions: np.ndarray | None = None


def cases_key(plan: Plan, configuration: str) -> str:
    """A hash (16 hexadecimal characters) of exactly those plan fields that shape prepared cases: equal keys can share a folder."""
    settings = plan.configuration(configuration)
    scheme = plan.label_scheme
    regions = {"regions": scheme.meaning} if scheme.has_regions else {}
    return sha256_json(
        {
            "version": PREPARATION_VERSION,
            "orientation": plan.orientation,
            "transpose": plan.transpose,
            "channels": plan.channels,
            "labels": plan.labels,
            "dimension": settings.dimension,
            "spacing": settings.spacing,
            "normalisation": [scheme.model_dump(mode="json") for scheme in settings.normalisation],
            "resampling": settings.resampling.model_dump(mode="json", exclude={"logits_order"}),
            **regions,
        }
        | ({"region_of_interest": plan.region_of_interest.model_dump(mode="json")} if plan.region_of_interest else {})
    )[:16]


def class_numbers(scheme: LabelScheme) -> dict[str, int]:
    """Class -> its number among the stored locations: a label's value, a region's place in the order of declaration, from 1."""
    foreground = scheme.foreground
    return {name: number if scheme.has_regions else values[0] for number, (name, values) in enumerate(foreground.items(), 1)}


def class_locations(labels: np.ndarray, name: str, scheme: LabelScheme | None = None) -> dict[int, np.ndarray]:
    """Voxels of each class that is present, drawn without replacement: 10 000, or one in a hundred where that is more.

    Args:
        labels: integers (z, y, x).
        name: the case; the draw depends on it and on the labels only.
        scheme: the classes; None: each value above 0 is one. With an ignore label the voxels of all that is annotated, background
            included, are located too, under `ANNOTATED`.

    Returns:
        class -> int32 (n, 3), in the order of the array.
    """
    flat = labels.ravel()
    present = np.unique(flat).tolist()
    classes: dict[int, tuple[int, ...]] = {value: (value,) for value in present if value > 0}
    if scheme is not None:
        annotated = () if scheme.ignore is None else tuple(value for value in present if value != scheme.ignore)
        # rows are stored by ascending class
        classes = {ANNOTATED: annotated} if annotated else {}
        classes |= {number: scheme.foreground[label] for label, number in class_numbers(scheme).items()}
    locations = {}
    for number, values in classes.items():
        found = np.flatnonzero(flat == values[0] if len(values) == 1 else np.isin(flat, values))
        if not found.size:
            continue
        wanted = min(len(found), max(FEWEST_LOCATIONS, int(np.ceil(LOCATED_SHARE * len(found)))))
        if wanted < len(found):
            rng = generator("class locations", name, number)
            found = found[np.sort(rng.choice(len(found), wanted, replace=False, shuffle=False))]
        locations[number] = np.stack(np.unravel_index(found, labels.shape), axis=1).astype(np.int32)
    return locations


def write_case(folder: str | Path, name: str, prepared: Prepared, key: str = "", scheme: LabelScheme | None = None) -> None:
    """Writes a prepared case. A case that is replaced is not valid in between.

    Args:
        folder: made where missing.
        name: the case.
        prepared: what `prepare` returned.
        key: hash of the case's files (`content.case_key`); `is_complete` asks for it.
        scheme: the classes to be located; None: each value above 0 is one.

    Raises:
        ResourceError: the disk is full.
    """
    folder = Path(folder)
    with suppress(FileNotFoundError):
        _description(folder, name).unlink()
    arrays = {"data": prepared.data}
    if prepared.labels is not None:
        arrays["labels"] = prepared.labels
        arrays["locations"] = _as_table(class_locations(prepared.labels, name, scheme))
    else:
        with suppress(FileNotFoundError):
            _array(folder, name, "labels").unlink()
    files = {part: write_array(_array(folder, name, part), array) for part, array in arrays.items()}
    description = Description(name=name, key=key, files=files, properties=prepared.properties)
    write_json(_description(folder, name), description.model_dump(mode="json", by_alias=True))


def is_complete(folder: str | Path, name: str, key: str) -> bool:
    """Whether the case was written in full from files of that key; looks at the JSON file and at sizes only."""
    try:
        description = _read(Path(folder), name)
    except DatasetError:
        return False
    return description.key == key and not _missing(Path(folder), description)


def open_case(folder: str | Path, name: str) -> StoredCase:
    """A prepared case as memory maps; voxels are read when used.

    Raises:
        DatasetError: the case is missing, incomplete, malformed or of another schema.
    """
    folder = Path(folder)
    description = _read(folder, name)
    problems = _missing(folder, description)
    if problems:
        raise _damaged(folder, name, problems)
    try:
        data = np.load(_array(folder, name, "data"), mmap_mode="r", allow_pickle=False)
        labels, locations, lesions = None, {}, None
        if "labels" in description.files:
            labels = np.load(_array(folder, name, "labels"), mmap_mode="r", allow_pickle=False)
            locations = _from_table(np.load(_array(folder, name, "locations"), allow_pickle=False))
        if "lesions" in description.files:
            lesions = np.load(_array(folder, name, "lesions"), mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError) as error:
        raise _damaged(folder, name, [str(error)]) from error
    annotated = locations.pop(ANNOTATED, None)
    return StoredCase(name, description.key, data, labels, description.properties, locations, annotated=annotated, lesions=lesions)


def has_lesions(folder: str | Path, name: str) -> bool:
    """Whether a prepared case tells its lesions; one without a mask has none to tell.

    Raises:
        DatasetError: the case is missing or malformed.
    """
    files = _read(Path(folder), name).files
    return "lesions" in files or "labels" not in files


def add_lesions(folder: str | Path, name: str, scheme: LabelScheme) -> None:
    """Adds the table of lesions to a prepared case; its other files stay, and it is valid at every moment.

    Raises:
        DatasetError: the case is missing or damaged.
        ResourceError: the disk is full.
    """
    folder = Path(folder)
    case = open_case(folder, name)
    if case.labels is None:
        return
    classes = {number: scheme.foreground[label] for label, number in class_numbers(scheme).items()}
    table = lesion_locations(np.asarray(case.labels), name, classes)
    description = _read(folder, name)
    files = {**description.files, "lesions": write_array(_array(folder, name, "lesions"), table)}
    write_json(_description(folder, name), description.model_copy(update={"files": files}).model_dump(mode="json", by_alias=True))


def case_damage(folder: str | Path, name: str) -> str | None:
    """What is wrong with a prepared case, after all of it was read and compared with its checksums; None for a sound one."""
    folder = Path(folder)
    try:
        description = _read(folder, name)
    except DatasetError as error:
        return str(error)
    problems = _missing(folder, description)
    if not problems:
        paths = {_array(folder, name, part): file for part, file in description.files.items()}
        problems = [f"{path.name} has another SHA-256 than was written" for path, file in paths.items() if sha256_file(path) != file.sha256]
    return _message(folder, name, problems) if problems else None


def discard_case(folder: str | Path, name: str) -> None:
    """Takes the mark of completeness off a prepared case, so that it is prepared anew."""
    _description(Path(folder), name).unlink(missing_ok=True)


def _description(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"


def _array(folder: Path, name: str, part: str) -> Path:
    return folder / f"{name}.{part}.npy"


def write_array(path: Path, array: np.ndarray) -> StoredFile:
    """What the .npy file at `path` now is, after the array was written to it."""
    array = np.ascontiguousarray(array)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    # The buffer is hashed, not the file, so that an error of the disk shows.
    parts = (header.getvalue(), memoryview(array.reshape(-1).view(np.uint8)))
    digest = hashlib.sha256()

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as stream:
            for part in parts:
                stream.write(part)
                digest.update(part)

    replace_with(path, write)
    return StoredFile(size=sum(len(part) for part in parts), sha256=digest.hexdigest())


def _as_table(locations: Mapping[int, np.ndarray]) -> np.ndarray:
    """Rows of label, z, y, x."""
    rows = [np.insert(places, 0, label, axis=1) for label, places in locations.items()]
    return np.concatenate(rows).astype(np.int32) if rows else np.empty((0, 4), np.int32)


def _from_table(table: np.ndarray) -> dict[int, np.ndarray]:
    labels, starts = np.unique(table[:, 0], return_index=True)
    return {int(label): rows[:, 1:] for label, rows in zip(labels, np.split(table, starts[1:]), strict=False)}


def _read(folder: Path, name: str) -> Description:
    document = read_json(_description(folder, name), error=DatasetError)
    try:
        description = Description.model_validate(document)
    except ValidationError as error:
        raise _damaged(folder, name, [f"{name}.json: {readable(error, document)}"]) from None
    if "data" not in description.files or ("labels" in description.files) != ("locations" in description.files):
        raise _damaged(folder, name, [f"{name}.json does not list the files of a case"])
    return description


def _missing(folder: Path, description: Description) -> list[str]:
    problems = []
    for part, file in description.files.items():
        path = _array(folder, description.name, part)
        size = path.stat().st_size if path.is_file() else None
        if size is None:
            problems.append(f"{path.name} is missing")
        elif size != file.size:
            problems.append(f"{path.name} has {size} bytes where {file.size} were written")
    return problems


def _damaged(folder: Path, name: str, problems: list[str]) -> DatasetError:
    return DatasetError(f"{_message(folder, name, problems)}. Run autoseg_train again: it prepares this case anew")


def _message(folder: Path, name: str, problems: list[str]) -> str:
    return f"case {name}: the prepared case in {folder} is damaged: {'; '.join(problems)}"
