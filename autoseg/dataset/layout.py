"""Cases of a dataset folder: as dataset.json lists them, or as the files in imagesTr and labelsTr tell."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from autoseg.dataset.case import (
    Case,
    Source,
    bad_name,
    has_misspelt_ending,
    list_names,
    near_matches,
    split_channel,
    split_ending,
)
from autoseg.dataset.description import Description, Entry

IMAGES = "imagesTr"
LABELS = "labelsTr"


@dataclass
class Found:
    """Cases of a folder, everything wrong with them, and what a user should know of the files that are not used. `mistaken`: wrong names
    that were given."""

    cases: list[Case] = field(default_factory=list)
    mistaken: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_training_cases(folder: Path, description: Description, exclude: Collection[str] = (), known: Collection[str] = ()) -> Found:
    """The training cases of a dataset folder, by name, with what is wrong; a case in `exclude` is left out before it is looked at.

    Args:
        known: those of `exclude` that must be there.
    """
    found = Found()
    if description.listed is not None:
        names = _from_entries(folder, description, description.listed, _listed_sources, exclude, found)
    elif description.training is not None:
        names = _from_entries(folder, description, description.training, _training_sources, exclude, found)
        _note_unused(folder, exclude, found)
    else:
        names = _from_folders(folder, description, exclude, found)
    for name in known:
        if name not in names:
            found.mistaken.append(f"--exclude {name}: there is no case of that name.{near_matches(name, sorted(names))}")
    if description.count is not None and description.count != len(names):
        found.notes.append(f"dataset.json says numTraining {description.count}, the folder holds {len(names)} training cases")
    missing = [path for path in description.test if not (folder / path).exists()]
    if missing:
        found.notes.append(f"test files that dataset.json lists and that are not here: {list_names(missing)}")
    found.cases.sort(key=lambda case: case.name)
    return found


# --- cases that dataset.json lists

Locate = Callable[[Path, Description, Entry, list[str]], tuple[Source, ...]]


def _from_entries(
    folder: Path, description: Description, entries: Iterable[Entry], locate: Locate, exclude: Collection[str], found: Found
) -> set[str]:
    names: set[str] = set()
    for entry in entries:
        if entry.name in exclude:
            names.add(entry.name)
            continue
        before = len(found.problems)
        if entry.name in names:
            found.problems.append(f"case {entry.name}: stands twice in dataset.json. Case names (file names without ending) must be unique")
        elif reason := bad_name(entry.name):
            found.problems.append(f"case {entry.name!r}: the name {reason}. Rename it")
        names.add(entry.name)
        problems: list[str] = []
        sources = locate(folder, description, entry, problems)
        label = folder / entry.label if entry.label else None
        if label is None:
            problems.append(f"case {entry.name}: has no label in dataset.json. Add one, or leave the case out with --exclude {entry.name}")
        elif not label.is_file():
            problems.append(f"case {entry.name}: its label {_missing(label, entry.label)}")
        elif not split_ending(label.name)[1]:
            problems.append(f"case {entry.name}: its label {entry.label} has no ending that is read (.nii.gz, .nii, .nrrd, .mha)")
        found.problems.extend(problems)
        if len(found.problems) == before:
            found.cases.append(Case(entry.name, sources, label))
    return names


def _listed_sources(folder: Path, description: Description, entry: Entry, problems: list[str]) -> tuple[Source, ...]:
    if len(entry.images) != len(description.channels):
        problems.append(
            f"case {entry.name}: dataset.json lists {len(entry.images)} image(s), the channels are {len(description.channels)}: "
            f"{', '.join(description.channels)}"
        )
    for channel, image in zip(description.channels, entry.images, strict=False):
        if not (folder / image).is_file():
            problems.append(f"case {entry.name}: its {channel} image {_missing(folder / image, image)}")
        elif not split_ending(image)[1]:
            problems.append(f"case {entry.name}: its {channel} image {image} has no ending that is read (.nii.gz, .nii, .nrrd, .mha)")
    return tuple(Source(folder / image) for image in entry.images)


def _training_sources(folder: Path, description: Description, entry: Entry, problems: list[str]) -> tuple[Source, ...]:
    """MSD: the file itself, 4-D where there are several channels; nnU-Net's first version lists that name and stores one file a channel."""
    image = folder / entry.images[0]
    if image.is_file():
        if len(description.channels) == 1:
            return (Source(image),)
        return tuple(Source(image, component) for component in range(len(description.channels)))
    ending = split_ending(image.name)[1] or description.file_ending
    apart = [image.with_name(f"{entry.name}_{index:04d}{ending}") for index in range(len(description.channels))]
    if not any(path.is_file() for path in apart):
        problems.append(f"case {entry.name}: its image {_missing(image, entry.images[0])}")
    for channel, path in zip(description.channels, apart, strict=True):
        if any(other.is_file() for other in apart) and not path.is_file():
            problems.append(f"case {entry.name}: its {channel} image {_missing(path, str(path.relative_to(folder)))}")
    return tuple(Source(path) for path in apart)


def _missing(path: Path, written: str | None) -> str:
    if path.is_symlink():
        return f"{written} is a link to {path.readlink()}, which is not there"
    others = [other.name for other in _files(path.parent) if other.name.lower() == path.name.lower()]
    hint = f" (there is {others[0]}: endings are written in small letters)" if others else ""
    return f"{written} is {'a folder' if path.is_dir() else 'missing'}{hint}"


def _note_unused(folder: Path, exclude: Collection[str], found: Found) -> None:
    used = {source.path for case in found.cases for source in case.images} | {case.label for case in found.cases}
    for sub in (IMAGES, LABELS):
        rest = [path.name for path in _files(folder / sub) if path not in used and not _belongs_to(path.name, exclude)]
        _note_files(sub, rest, "are not listed in dataset.json and not used", found)


def _belongs_to(file: str, names: Collection[str]) -> bool:
    stem = split_ending(file)[0]
    return stem in names or split_channel(stem)[0] in names


# --- cases that the folders tell


def _from_folders(folder: Path, description: Description, exclude: Collection[str], found: Found) -> set[str]:
    ending = description.file_ending
    absent = [sub for sub in (IMAGES, LABELS) if not (folder / sub).is_dir()]
    if absent:
        found.problems.append(f"{folder}: the folder {' and '.join(absent)} is missing, and dataset.json lists no cases either")
        return set()
    images, strays = _by_case(folder / IMAGES, ending, len(description.channels))
    _note_files(IMAGES, strays, f"are not used: no CASE_0000{ending} of the {len(description.channels)} channel(s)", found)
    labels = {path.name[: -len(ending)]: path for path in _files(folder / LABELS) if _is_plain(path.name, ending)}
    rest = [path.name for path in _files(folder / LABELS) if path not in labels.values()]
    _note_files(LABELS, rest, f"are not used: no CASE{ending}", found)
    names = set(images) | set(labels)
    for name in sorted(names):
        if name in exclude:
            continue
        before = len(found.problems)
        files = images.get(name, {})
        for index, channel in enumerate(description.channels):
            if index not in files:
                path = folder / IMAGES / f"{name}_{index:04d}{ending}"
                found.problems.append(f"case {name}: its {channel} image {_missing(path, f'{IMAGES}/{path.name}')}")
            elif not files[index].is_file():
                found.problems.append(f"case {name}: its {channel} image {_missing(files[index], f'{IMAGES}/{files[index].name}')}")
        label = labels.get(name, folder / LABELS / f"{name}{ending}")
        if not label.is_file():
            found.problems.append(
                f"case {name}: its label {_missing(label, f'{LABELS}/{label.name}')}. Add it, or leave the case out with --exclude {name}"
            )
        if reason := bad_name(name):
            found.problems.append(f"case {name!r}: the name {reason}. Rename it")
        if len(found.problems) == before:
            found.cases.append(Case(name, tuple(Source(files[index]) for index in range(len(description.channels))), label))
    return names


def _by_case(folder: Path, ending: str, channels: int) -> tuple[dict[str, dict[int, Path]], list[str]]:
    """Case -> channel index -> file, and the names of the files that are none of these."""
    cases: dict[str, dict[int, Path]] = {}
    strays = []
    for path in _files(folder):
        name, index = split_channel(path.name[: -len(ending)]) if _is_plain(path.name, ending) else (path.name, None)
        if index is None or index >= channels:
            strays.append(path.name)
        else:
            cases.setdefault(name, {})[index] = path
    return cases, strays


def _is_plain(name: str, ending: str) -> bool:
    return not name.startswith(".") and split_ending(name)[1] == ending


def _files(folder: Path) -> list[Path]:
    """Everything in a folder, by name; nothing where it is missing."""
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _note_files(sub: str, names: list[str], why: str, found: Found) -> None:
    hidden = [name for name in names if name.startswith(".")]
    capitals = [name for name in names if not name.startswith(".") and has_misspelt_ending(name)]
    others = [name for name in names if name not in hidden and name not in capitals]
    if hidden:
        found.notes.append(f"{sub}: {len(hidden)} hidden file(s) ignored: {list_names(hidden)}")
    if capitals:
        found.notes.append(f"{sub}: file(s) not used since their ending is written in capitals; rename them: {list_names(capitals)}")
    if others:
        found.notes.append(f"{sub}: {len(others)} file(s) {why}: {list_names(others)}")
