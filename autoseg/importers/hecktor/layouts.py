"""Which file of a HECKTOR folder is whose. Only names are looked at.

Each edition has its own layout, and each layout is one function in `EDITIONS` that tells what it finds, or None where it does not apply.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from autoseg.dataset.case import bad_name, has_misspelt_ending, list_names, split_ending
from autoseg.dataset.patients import patient_key, patient_name
from autoseg.errors import DatasetError
from autoseg.importers.hecktor.tree import CT, IMAGES, MASK, PT, Study, Tree

ROLES = {"": MASK, "ct": CT, "pt": PT, "pet": PT}
PLANNING = ("ctplanning", "rtdose", "dosimetry_ct", "radiotherapy_dosemaps")
"""Endings of the radiotherapy planning's files, in both spellings that were handed out; they are not imported."""

_FILE = re.compile(rf"(?P<patient>.+?)(?:_+(?P<role>ct|pt|pet|{'|'.join(PLANNING)}))?", re.IGNORECASE)
_TASK = re.compile(r"task[ _-]*(\d+)", re.IGNORECASE)
_TABLE = re.compile(r"^hecktor|info|endpoint", re.IGNORECASE)
"""The clinical tables beside images that lie in no task: hecktor2022_clinical_info_training.csv, HECKTOR_2026_Training.csv and the like."""

EXPECTED = {
    "2022": "folders imagesTr and labelsTr with PATIENT__CT.nii.gz and PATIENT__PT.nii.gz in the first (HECKTOR 2022)",
    "2025": "folders 'Task 1' to 'Task 3' with one folder a patient (HECKTOR 2025)",
    "2026": "one folder a patient with PATIENT__CT.nii.gz and PATIENT__PT.nii.gz (HECKTOR 2026)",
}


def read_tree(folder: str | Path, edition: str | None = None) -> Tree:
    """What lies in a folder of HECKTOR data.

    Args:
        edition: a name in `EDITIONS`; None: the one whose layout the folder has.

    Raises:
        DatasetError: there is no such folder, or its layout is none that is known, or not the one that is asked for, or two at once.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DatasetError(f"{folder}: {'is a file, not a folder' if folder.exists() else 'there is no such folder'}")
    if edition is not None and edition not in EDITIONS:
        raise DatasetError(f"--edition {edition}: the editions are {', '.join(EDITIONS)}")
    asked = EDITIONS if edition is None else {edition: EDITIONS[edition]}
    found = [tree for layout in asked.values() if (tree := layout(folder)) is not None]
    if len(found) > 1:
        names = " and ".join(tree.edition for tree in found)
        raise DatasetError(f"{folder}: holds what HECKTOR {names} have. Say which is meant with --edition, or part them into two folders")
    if not found:
        raise _unknown(folder, list(asked))
    (tree,) = found
    tree.studies.sort(key=lambda study: study.patient)
    return tree


def _unknown(folder: Path, asked: list[str]) -> DatasetError:
    entries = _entries(folder)
    near = [path for path in entries if path.is_dir()]
    near += [folder.absolute().parent] if _TASK.fullmatch(folder.absolute().name) else []
    inside = [path for path in near if any(EDITIONS[edition](path) for edition in asked)]
    hint = f" Did you mean {' or '.join(map(str, inside))}?" if inside else ""
    return DatasetError(
        f"{folder}: is no HECKTOR folder of a known layout: expected are {', or '.join(EXPECTED[edition] for edition in asked)}; found: "
        f"{list_names(path.name for path in entries) or 'nothing'}.{hint}"
    )


@dataclass(frozen=True)
class _Place:
    """Where a patient's files lie together, and those that are needed.

    Attributes:
        part: of the source, for messages; a patient may be in several.
        folder: that holds the files.
        patient: as it is spelt there.
        is_test: whether they are of the test set.
    """

    part: str
    folder: Path
    patient: str
    files: Mapping[str, Path]
    is_test: bool = False


# --- 2022: imagesTr with PATIENT__CT.nii.gz and PATIENT__PT.nii.gz, labelsTr with PATIENT.nii.gz; imagesTs likewise


def _edition_2022(folder: Path) -> Tree | None:
    splits = [split for split in ("Tr", "Ts") if (folder / f"images{split}").is_dir()]
    if not any(_role(path) in IMAGES for split in splits for path in _entries(folder / f"images{split}")):
        return None
    tree, strays = Tree("2022", folder, tables=_tables_beside(folder)), _Strays()
    used = [folder / f"{kind}{split}" for split in splits for kind in ("images", "labels")]
    strays.add(path for path in _entries(folder) if path not in [*tree.tables, *used])
    places: dict[str, list[_Place]] = {}
    for split in splits:
        for key, place in _flat_places(folder, split, strays, tree.problems).items():
            places.setdefault(key, []).append(place)
    return _finished(tree, places, strays)


def _flat_places(folder: Path, split: str, strays: _Strays, problems: list[str]) -> dict[str, _Place]:
    images, labels = folder / f"images{split}", folder / f"labels{split}"
    files: dict[str, dict[str, Path]] = {}
    names: dict[str, str] = {}
    for path in [*_entries(images), *(_entries(labels) if labels.is_dir() else [])]:
        role, parts = _role(path), _parts(path)
        if parts is None or (role == MASK) != (path.parent == labels):
            strays.add([path])
        elif role is None:
            strays.planning[parts["role"].lower()] += 1
        else:
            key = patient_key(parts["patient"])
            names.setdefault(key, parts["patient"])
            _take(files.setdefault(key, {}), role, path, names[key], problems)
    return {key: _Place(images.name, images, names[key], found, is_test=split == "Ts") for key, found in files.items()}


# --- 2025: a folder a task, a folder a patient, files named PATIENT__CT.nii.gz, PATIENT__PT.nii.gz, PATIENT.nii.gz


def _edition_2025(folder: Path) -> Tree | None:
    tasks = [(int(match[1]), path) for path in _entries(folder) if path.is_dir() and (match := _TASK.fullmatch(path.name))]
    if not tasks:
        return None
    tree, strays = Tree("2025", folder), _Strays()
    tree.tables = _tables_by_task([folder, *(path for _, path in sorted(tasks))])
    strays.add(path for path in _entries(folder) if path not in [*tree.tables, *(path for _, path in tasks)])
    places: dict[str, list[_Place]] = {}
    for _, task in sorted(tasks):
        for path in _entries(task):
            if path.is_dir():
                place = _Place(task.name, path, path.name, _files_of_patient(path, strays, tree.problems))
                places.setdefault(patient_key(path.name), []).append(place)
            elif path not in tree.tables:
                strays.add([path])
    return _finished(tree, places, strays)


# --- 2026: the same without tasks


def _edition_2026(folder: Path) -> Tree | None:
    if _TASK.fullmatch(folder.absolute().name):
        return None  # one task of HECKTOR 2025 by itself
    patients = [path for path in _entries(folder) if path.is_dir() and _own_roles(path)]
    if not any(_own_roles(path) & set(IMAGES) for path in patients):
        return None
    tree, strays = Tree("2026", folder, tables=_tables_beside(folder)), _Strays()
    strays.add(path for path in _entries(folder) if path not in [*tree.tables, *patients])
    places: dict[str, list[_Place]] = {}
    for path in patients:
        place = _Place(folder.name, path, path.name, _files_of_patient(path, strays, tree.problems))
        places.setdefault(patient_key(path.name), []).append(place)
    return _finished(tree, places, strays)


def _own_roles(folder: Path) -> set[str | None]:
    """What the files in a folder are that are called as the folder is."""
    named = [(path, parts["patient"]) for path in _entries(folder) if (parts := _parts(path)) is not None]
    return {_role(path) for path, patient in named if patient_key(patient) == patient_key(folder.name)}


# --- what the layouts share


def _parts(path: Path) -> re.Match[str] | None:
    """A file's name taken apart; None for what is no image file."""
    stem, ending = split_ending(path.name)
    return _FILE.fullmatch(stem) if ending and path.is_file() and not path.name.startswith(".") else None


def _role(path: Path) -> str | None:
    """`CT`, `PT` or `MASK` by a file's name; None for a file of radiotherapy planning or no image file."""
    parts = _parts(path)
    return None if parts is None else ROLES.get((parts["role"] or "").lower())


def _tables_by_task(folders: Iterable[Path]) -> list[Path]:
    """The clinical tables: CSV files that name a task, by its number."""
    found = [path for folder in folders for path in _entries(folder) if path.suffix.lower() == ".csv" and _TASK.search(path.stem)]
    return sorted((path for path in found if not path.name.startswith(".")), key=lambda path: (_task_number(path), path.name))


def _task_number(path: Path) -> int:
    match = _TASK.search(path.stem)
    return int(match[1]) if match else 0


def _tables_beside(folder: Path) -> list[Path]:
    """The clinical tables beside the images, those of outcomes last."""
    found = [path for path in _entries(folder) if path.suffix.lower() == ".csv" and _TABLE.search(path.stem)]
    return sorted(found, key=lambda path: ("endpoint" in path.stem.lower(), path.name))


def _files_of_patient(folder: Path, strays: _Strays, problems: list[str]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in _entries(folder):
        parts, role = _parts(path), _role(path)
        if parts is None or patient_key(parts["patient"]) != patient_key(folder.name):
            strays.add([path])
        elif role is None:
            strays.planning[parts["role"].lower()] += 1
        else:
            _take(files, role, path, folder.name, problems)
    return files


def _take(files: dict[str, Path], role: str, path: Path, patient: str, problems: list[str]) -> None:
    if role in files:
        both = f"{files[role].name} and {path.name}"
        problems.append(f"patient {patient_name(patient)}: {both} in {path.parent} are both its {role}. Leave one of them")
    else:
        files[role] = path


def _finished(tree: Tree, places: Mapping[str, list[_Place]], strays: _Strays) -> Tree:
    for key in sorted(places):
        _add_study(places[key], tree)
    tree.notes += strays.notes(tree.folder)
    return tree


def _add_study(places: list[_Place], tree: Tree) -> None:
    """The study of a patient who may be in several parts: the files of the part that has most of them, the others' where it has none."""
    patient = patient_name(places[0].patient)
    twice = [part for part, count in Counter(place.part for place in places).items() if count > 1]
    if twice:
        folders = [place.patient for place in places if place.part == twice[0]]
        tree.problems.append(f"patient {patient}: {twice[0]} has {len(folders)} folders of this patient: {list_names(folders)}. Leave one")
        return
    if reason := bad_name(patient):
        tree.problems.append(f"patient {patient!r}: the name {reason}. Rename it in {places[0].folder}")
        return
    ranked = sorted(places, key=lambda place: -len(place.files))  # stable: the first part wins a tie
    files = dict(ranked[0].files)
    for place in ranked[1:]:
        for role, path in place.files.items():
            if role not in files:
                files[role] = path
                tree.notes.append(f"patient {patient}: its {role} is that of {place.part}, since {ranked[0].part} has none")
            elif path.stat().st_size != files[role].stat().st_size:
                tree.notes.append(f"patient {patient}: {place.part} holds another {role} than {ranked[0].part}, whose is used")
    missing = [role for role in IMAGES if role not in files]
    if missing:
        names = " and ".join(f"{patient}__{role}.nii.gz" for role in missing)
        tree.problems.append(
            f"patient {patient}: has no {' and no '.join(missing)}: {names} {'is' if len(missing) == 1 else 'are'} missing in "
            f"{' and '.join(str(place.folder) for place in places)}. Add what is missing, or take the patient's files away"
        )
    elif not any(problem.startswith(f"patient {patient}: ") for problem in tree.problems):
        tree.studies.append(Study(patient, files, ranked[0].is_test))


class _Strays:
    """Files that are not used."""

    def __init__(self) -> None:
        self.paths: list[Path] = []
        self.planning: Counter[str] = Counter()

    def add(self, paths: Iterable[Path]) -> None:
        self.paths += paths

    def notes(self, folder: Path) -> list[str]:
        notes = []
        if self.planning:
            counts = ", ".join(f"{count} {suffix}" for suffix, count in sorted(self.planning.items()))
            notes.append(f"{folder}: files of radiotherapy planning are not imported: {counts}")
        hidden = [path for path in self.paths if path.name.startswith(".")]
        capitals = [path for path in self.paths if path not in hidden and has_misspelt_ending(path.name)]
        others = [path for path in self.paths if path not in hidden and path not in capitals]
        for paths, what in (
            (hidden, "hidden file(s) ignored"),
            (capitals, "file(s) not used since their ending is written in capitals; rename them"),
            (others, "file(s) or folder(s) not used, since nothing is known of such a name there"),
        ):
            if paths:
                notes.append(f"{folder}: {len(paths)} {what}: {list_names(path.relative_to(folder).as_posix() for path in paths)}")
        return notes


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


EDITIONS: dict[str, Callable[[Path], Tree | None]] = {"2022": _edition_2022, "2025": _edition_2025, "2026": _edition_2026}
