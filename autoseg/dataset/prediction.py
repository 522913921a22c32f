"""Images to predict, found in a folder or given as files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from autoseg.dataset.case import FILE_ENDINGS, Case, Source, has_misspelt_ending, list_names, split_channel, split_ending
from autoseg.errors import DatasetError

Found = tuple[tuple[Case, ...], tuple[str, ...], tuple[str, ...]]


def find_cases(folder_or_files: str | Path | Iterable[str | Path], channels: Sequence[str], file_ending: str = ".nii.gz") -> Found:
    """The cases to predict, by name, one message for each case that cannot be, and notes on files that are not used.

    Args:
        folder_or_files: a folder with CASE_0000.nii.gz, CASE_0001.nii.gz, ... (or CASE.nii.gz where there is one channel, or where the
        file is 4-D
            with one volume a channel), or the files of one case, in channel order unless their names number them. Any ending that is read.
        channels: names in index order.
        file_ending: the dataset's own; named in messages.

    Raises:
        DatasetError: there is no such folder, or nothing in it can be a case.
    """
    if isinstance(folder_or_files, (str, Path)):
        path = Path(folder_or_files)
        if path.is_dir():
            return _in_folder(path, channels, file_ending)
        if not path.exists():
            raise DatasetError(f"{path}: there is no such folder or file of images")
        return _one_case([path], channels)
    return _one_case([Path(path) for path in folder_or_files], channels)


def _in_folder(folder: Path, channels: Sequence[str], file_ending: str) -> Found:
    entries = sorted(folder.iterdir())
    readable = [path for path in entries if not path.name.startswith(".") and split_ending(path.name)[1]]
    unused = [path for path in entries if path not in readable]
    stems = {split_ending(path.name)[0] for path in readable}
    cases: dict[str, dict[int | None, list[Path]]] = {}
    extra = []
    for path in readable:
        name, index = _place(split_ending(path.name)[0], stems, len(channels))
        if index is not None and index >= len(channels):
            extra.append(path.name)
        else:
            cases.setdefault(name, {}).setdefault(index, []).append(path)
    notes = _notes(unused, extra, channels)
    if not cases:
        wanted = f"CASE_0000{file_ending}" + (f" to CASE_{len(channels) - 1:04d}{file_ending}" if len(channels) > 1 else "")
        found = list_names(path.name for path in entries) or "nothing"
        dicom = " DICOM folders must be converted first." if any(path.suffix.lower() == ".dcm" for path in entries) else ""
        raise DatasetError(f"{folder}: no images to predict: expected {wanted} ({', '.join(channels)}), found {found}.{dicom}")
    good, failures = [], []
    for name in sorted(cases):
        try:
            good.append(Case(name, _sources(name, cases[name], channels, file_ending)))
        except DatasetError as error:
            failures.append(str(error))
    return tuple(good), tuple(failures), notes


def _place(stem: str, stems: set[str], channels: int) -> tuple[str, int | None]:
    """Case and channel of a file. Where there is one channel, a number at the end is the channel only if it is 0000 or its 0000 is there
    too: amos_0001 alone is a case's own name."""
    name, index = split_channel(stem)
    if channels == 1 and index and f"{name}_0000" not in stems:
        return stem, None
    return name, index


def _sources(name: str, files: dict[int | None, list[Path]], channels: Sequence[str], file_ending: str) -> tuple[Source, ...]:
    for paths in files.values():
        if len(paths) > 1:
            raise DatasetError(f"case {name}: {list_names(path.name for path in paths)} are the same channel. Leave one of them")
    if None in files:
        path = files[None][0]
        if len(files) > 1:
            others = list_names(paths[0].name for index, paths in files.items() if index is not None)
            raise DatasetError(f"case {name}: {path.name} stands beside {others}. Leave one or the other")
        return _whole(name, path, channels, file_ending)
    missing = [index for index in range(len(channels)) if index not in files]
    if missing:
        ending = split_ending(next(iter(files.values()))[0].name)[1]
        wanted = ", ".join(f"{name}_{index:04d}{ending} ({channels[index]})" for index in missing)
        raise DatasetError(f"case {name}: channel file(s) missing: {wanted}. The model needs {len(channels)}: {', '.join(channels)}")
    return tuple(Source(files[index][0]) for index in range(len(channels)))


def _whole(name: str, path: Path, channels: Sequence[str], file_ending: str) -> tuple[Source, ...]:
    """One file for all channels: MSD's 4-D files."""
    if len(channels) == 1:
        return (Source(path),)
    from autoseg.images import read_header

    volumes = read_header(path).components
    if volumes != len(channels):
        wanted = ", ".join(f"{name}_{index:04d}{file_ending} ({channel})" for index, channel in enumerate(channels))
        raise DatasetError(
            f"case {name}: {path.name} holds {volumes} volume(s), the model needs {len(channels)} channels: "
            f"{wanted}, or one 4-D file with all"
        )
    return tuple(Source(path, component) for component in range(len(channels)))


def _notes(unused: list[Path], extra: list[str], channels: Sequence[str]) -> tuple[str, ...]:
    hidden = [path.name for path in unused if path.name.startswith(".")]
    capitals = [path.name for path in unused if path.name not in hidden and has_misspelt_ending(path.name)]
    others = [path.name for path in unused if path.name not in hidden and path.name not in capitals]
    notes = []
    if hidden:
        notes.append(f"{len(hidden)} hidden file(s) ignored: {list_names(hidden)}")
    if capitals:
        notes.append(f"file(s) not used since their ending is written in capitals; rename them: {list_names(capitals)}")
    if others:
        notes.append(f"{len(others)} file(s) not used, none of {', '.join(FILE_ENDINGS)}: {list_names(others)}")
    if extra:
        notes.append(
            f"{len(extra)} file(s) of channels that the model has not ({len(channels)}: {', '.join(channels)}): {list_names(extra)}"
        )
    return tuple(notes)


def _one_case(paths: Sequence[Path], channels: Sequence[str]) -> Found:
    stems = [split_ending(path.name)[0] for path in paths]
    if not paths:
        raise DatasetError("no image files were given")
    name, _ = split_channel(stems[0])
    problems = [f"{path} is missing" for path in paths if not path.is_file()]
    problems += [f"{path} has none of the endings {', '.join(FILE_ENDINGS)}" for path in paths if not split_ending(path.name)[1]]
    placed = [split_channel(stem) for stem in stems]
    numbered = all(index is not None for _, index in placed) and len({case for case, _ in placed}) == 1
    if problems:
        return (), (f"case {name}: " + "; ".join(problems),), ()
    try:
        if len(channels) == 1 and len(paths) == 1:
            # The only file there can be: whatever number stands at its end cannot be another channel.
            return (Case(name if placed[0][1] == 0 else stems[0], (Source(paths[0]),)),), (), ()
        if numbered:
            files: dict[int | None, list[Path]] = {}
            for path, (_, index) in zip(paths, placed, strict=True):
                files.setdefault(index, []).append(path)
            extra = [str(path) for path, (_, index) in zip(paths, placed, strict=True) if index is not None and index >= len(channels)]
            return (Case(name, _sources(name, files, channels, split_ending(paths[0].name)[1])),), (), _notes([], extra, channels)
        if len(paths) == 1:
            return (Case(stems[0], _whole(stems[0], paths[0], channels, split_ending(paths[0].name)[1])),), (), ()
    except DatasetError as error:
        return (), (str(error),), ()
    if len(paths) != len(channels):
        return (), (f"case {name}: {len(paths)} file(s) were given, the model needs {len(channels)}: {', '.join(channels)}",), ()
    return (Case(name, tuple(Source(path) for path in paths)),), (), ()
