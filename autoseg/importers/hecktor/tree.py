"""What lies in a folder of HECKTOR data: which file is whose. Only names are looked at.

Each edition has its own layout, and each layout is one function in `EDITIONS` that tells what it finds, or None where it does not apply.
Everything after this module knows studies and tables only.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from autoseg.dataset.case import bad_name, has_misspelt_ending, list_names, split_ending
from autoseg.errors import DatasetError

CT, PT, MASK = "CT", "PT", "mask"
IMAGES = (CT, PT)
ROLES = {"": MASK, "ct": CT, "pt": PT, "pet": PT}
PLANNING = ("ctplanning", "rtdose", "dosimetry_ct", "radiotherapy_dosemaps")
"""Endings of the radiotherapy planning's files, in both spellings that were handed out; they are not imported."""

_FILE = re.compile(rf"(?P<patient>.+?)(?:_+(?P<role>ct|pt|pet|{'|'.join(PLANNING)}))?", re.IGNORECASE)
_TASK = re.compile(r"task[ _-]*(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Study:
    """A patient's files: a CT, a PET and, where there is one, a mask. `files` maps `CT`, `PT` and `MASK` to them."""

    patient: str
    files: Mapping[str, Path]


@dataclass
class Tree:
    """What was found.

    Attributes:
        edition: the layout's name in `EDITIONS`.
        studies: those that can be imported, by patient.
        tables: the clinical tables, in the tasks' order.
        problems: one message for each patient whose study cannot be imported.
        notes: what a user should know: files that are not used.
    """

    edition: str
    folder: Path
    studies: list[Study] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def patient_name(text: str) -> str:
    """A patient's name as it is written here: HECKTOR has both CHUM-001 and CHUM_001 for one patient."""
    return text.strip().replace("_", "-")


def patient_key(text: str) -> str:
    """What two spellings of a patient's name have in common: capitals do not count either."""
    return patient_name(text).casefold()


def read_tree(folder: str | Path) -> Tree:
    """What lies in a folder of HECKTOR data.

    Raises:
        DatasetError: there is no such folder, or its layout is none that is known.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DatasetError(f"{folder}: {'is a file, not a folder' if folder.exists() else 'there is no such folder'}")
    for edition in EDITIONS.values():
        tree = edition(folder)
        if tree is not None:
            tree.studies.sort(key=lambda study: study.patient)
            return tree
    entries = [path.name for path in _entries(folder)]
    inside = [path for path in _entries(folder) if path.is_dir() and any(edition(path) for edition in EDITIONS.values())]
    hint = f" Did you mean {' or '.join(map(str, inside))}?" if inside else ""
    raise DatasetError(
        f"{folder}: is no HECKTOR folder of a known layout: expected are folders 'Task 1' to 'Task 3' with one folder a patient "
        f"(HECKTOR 2025), found: {list_names(entries) or 'nothing'}.{hint}"
    )


# --- 2025: a folder a task, a folder a patient, files named PATIENT__CT.nii.gz, PATIENT__PT.nii.gz, PATIENT.nii.gz


@dataclass(frozen=True)
class _Place:
    """A patient's folder in one task and the files in it that are needed."""

    task: str
    folder: Path
    files: Mapping[str, Path]


def _edition_2025(folder: Path) -> Tree | None:
    tasks = [(int(match[1]), path) for path in _entries(folder) if path.is_dir() and (match := _TASK.fullmatch(path.name))]
    if not tasks:
        return None
    tree, strays = Tree("2025", folder), _Strays()
    tree.tables = _tables([folder, *(path for _, path in sorted(tasks))])
    strays.add(path for path in _entries(folder) if path not in [*tree.tables, *(path for _, path in tasks)])
    places: dict[str, list[_Place]] = {}
    for _, task in sorted(tasks):
        for path in _entries(task):
            if path.is_dir():
                place = _Place(task.name, path, _needed_files(path, strays, tree.problems))
                places.setdefault(patient_key(path.name), []).append(place)
            elif path not in tree.tables:
                strays.add([path])
    for key in sorted(places):
        _add_study(places[key], tree)
    tree.notes += strays.notes(folder)
    return tree


def _tables(folders: Iterable[Path]) -> list[Path]:
    """The clinical tables: CSV files that name a task, by its number."""
    found = [path for folder in folders for path in _entries(folder) if path.suffix.lower() == ".csv" and _TASK.search(path.stem)]
    return sorted((path for path in found if not path.name.startswith(".")), key=lambda path: (_task_number(path), path.name))


def _task_number(path: Path) -> int:
    match = _TASK.search(path.stem)
    return int(match[1]) if match else 0


def _needed_files(folder: Path, strays: _Strays, problems: list[str]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in _entries(folder):
        stem, ending = split_ending(path.name)
        match = _FILE.fullmatch(stem) if ending and path.is_file() and not path.name.startswith(".") else None
        if match is None or patient_key(match["patient"]) != patient_key(folder.name):
            strays.add([path])
            continue
        suffix = (match["role"] or "").lower()
        role = ROLES.get(suffix)
        if role is None:
            strays.planning[suffix] += 1
        elif role in files:
            both = f"{files[role].name} and {path.name}"
            problems.append(f"patient {patient_name(folder.name)}: {both} in {folder} are both its {role}. Leave one of them")
        else:
            files[role] = path
    return files


def _add_study(places: list[_Place], tree: Tree) -> None:
    """The study of a patient who may be in several tasks: the files of the folder that has most of them, the others' where it has none."""
    patient = patient_name(places[0].folder.name)
    twice = [task for task, count in Counter(place.task for place in places).items() if count > 1]
    if twice:
        folders = [place.folder.name for place in places if place.task == twice[0]]
        tree.problems.append(f"patient {patient}: {twice[0]} has {len(folders)} folders of this patient: {list_names(folders)}. Leave one")
        return
    if reason := bad_name(patient):
        tree.problems.append(f"patient {patient!r}: the name {reason}. Rename the folder {places[0].folder}")
        return
    ranked = sorted(places, key=lambda place: -len(place.files))  # stable: the first task wins a tie
    files = dict(ranked[0].files)
    for place in ranked[1:]:
        for role, path in place.files.items():
            if role not in files:
                files[role] = path
                tree.notes.append(f"patient {patient}: its {role} is that of {place.task}, since {ranked[0].task} has none")
            elif path.stat().st_size != files[role].stat().st_size:
                tree.notes.append(f"patient {patient}: {place.task} holds another {role} than {ranked[0].task}, whose is used")
    missing = [role for role in IMAGES if role not in files]
    if missing:
        names = " and ".join(f"{patient}__{role}.nii.gz" for role in missing)
        tree.problems.append(
            f"patient {patient}: has no {' and no '.join(missing)}: {names} {'is' if len(missing) == 1 else 'are'} missing in "
            f"{' and '.join(str(place.folder) for place in places)}. Add what is missing, or take the folder away"
        )
    elif not any(problem.startswith(f"patient {patient}: ") for problem in tree.problems):
        tree.studies.append(Study(patient, files))


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


EDITIONS: dict[str, Callable[[Path], Tree | None]] = {"2025": _edition_2025}
