"""dataset.json: read, checked as a whole, in nnU-Net's spelling (versions 1 and 2) and in the Medical Segmentation Decathlon's (MSD)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg.dataset.case import FILE_ENDINGS, split_ending
from autoseg.errors import DatasetError
from autoseg.files import read_json
from planners.labels import IGNORE, LabelScheme, Values, scheme_problems

FILE_NAME = "dataset.json"


@dataclass(frozen=True)
class Entry:
    """A case as dataset.json lists it: its files as written there."""

    name: str
    images: tuple[str, ...]
    label: str | None


@dataclass(frozen=True)
class Description:
    """What dataset.json says.

    Args:
        channels: their names in index order.
        labels: name -> value, by value; with regions name -> value or values, as declared.
        file_ending: of the images and masks.
        count: numTraining, where it stands.
        listed: `dataset{...}`: cases with their files; None where the folders tell.
        training: MSD's `training` list; None where there is none.
        test: MSD's `test` list.
        region_order: `regions_class_order`: the value that each region is painted with; empty without regions.
    """

    name: str
    channels: tuple[str, ...]
    labels: dict[str, Values]
    file_ending: str
    count: int | None
    listed: tuple[Entry, ...] | None
    training: tuple[Entry, ...] | None
    test: tuple[str, ...]
    region_order: tuple[int, ...] = ()


def read_description(folder: Path) -> Description:
    """The checked content of a dataset folder's dataset.json.

    Raises:
        DatasetError: it is missing, no JSON, has a key twice or is not of the documented form; all that is wrong stands in one message.
    """
    path = folder / FILE_NAME
    if not folder.is_dir():
        raise DatasetError(f"{folder}: there is no such folder. Name the dataset folder with -d DIR")
    if not path.exists():
        raise DatasetError(f"{folder}: there is no {FILE_NAME}, so this is no dataset folder. Name one with -d DIR, or write the file")
    document = read_json(path, error=DatasetError)
    if not isinstance(document, dict):
        raise DatasetError(f"{path}: must be a JSON object ({{...}}), found {_kind(document)}")
    return parse_description(document, str(path), folder.resolve().name)


def parse_description(document: Mapping[str, Any], source: str, folder_name: str) -> Description:
    """The description in a dataset.json's value.

    Args:
        source: the file, for messages.
        folder_name: the dataset's name where the document has none.

    Raises:
        DatasetError: as `read_description`.
    """
    problems: list[str] = []
    channels = _channels(document, problems)
    labels, order = _labels(document, problems)
    listed = _listed(document, problems)
    training = _training(document, problems)
    test = _test(document, problems)
    ending = _file_ending(document, training, problems)
    count = document.get("numTraining")
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 0):
        problems.append(f"numTraining: must be a whole number, found {count!r}")
        count = None
    name = document.get("name", folder_name)
    if not isinstance(name, str):
        problems.append(f"name: must be a text, found {_kind(name)}")
    if problems:
        raise DatasetError(f"{source}: " + (problems[0] if len(problems) == 1 else "\n".join(["", *(f"  - {p}" for p in problems)])))
    return Description(str(name) or folder_name, channels, labels, ending, count, listed, training, test, order)


def _channels(document: Mapping[str, Any], problems: list[str]) -> tuple[str, ...]:
    field = "channel_names" if "channel_names" in document else "modality"
    value = document.get(field)
    if value is None:
        problems.append('channel_names: missing; it must name the image channels, for example {"0": "CT", "1": "PET"}')
        return ()
    if not isinstance(value, dict) or not value:
        problems.append(f'{field}: must be an object such as {{"0": "CT"}}, found {_kind(value)}')
        return ()
    wanted = [str(index) for index in range(len(value))]
    if set(value) != set(wanted):
        problems.append(f"{field}: its keys must be {', '.join(repr(w) for w in wanted)}, found {', '.join(repr(k) for k in value)}")
        return ()
    wrong = [index for index in wanted if not isinstance(value[index], str) or not value[index].strip()]
    if wrong:
        problems.append(f"{field}.{wrong[0]}: must be a channel's name, found {value[wrong[0]]!r}")
        return ()
    return tuple(value[index].strip() for index in wanted)


def _labels(document: Mapping[str, Any], problems: list[str]) -> tuple[dict[str, Values], tuple[int, ...]]:
    """Name -> value or values, and the order in which regions are painted; both empty where something is wrong."""
    value = document.get("labels")
    if value is None:
        problems.append('labels: missing; it must give each class its value in the masks, for example {"background": 0, "tumour": 1}')
        return {}, ()
    if not isinstance(value, dict) or not value:
        problems.append(f'labels: must be an object such as {{"background": 0, "tumour": 1}}, found {_kind(value)}')
        return {}, ()
    before = len(problems)
    pairs: list[tuple[str, Values]]
    if all(key.isdecimal() for key in value) and all(isinstance(name, str) for name in value.values()):
        pairs = [(name, int(key)) for key, name in value.items()]
    else:
        pairs = _named_labels(value, problems)
    order = _region_order(document, problems)
    if pairs:
        _check_names(pairs, problems)
        _check_values(pairs, problems)
    if len(problems) == before:
        problems += scheme_problems(dict(pairs), order)
    if len(problems) > before:
        return {}, ()
    found = LabelScheme(dict(pairs), order)
    return (dict(pairs) if found.has_regions else dict(sorted(pairs, key=lambda pair: pair[1]))), order


def _named_labels(value: Mapping[str, Any], problems: list[str]) -> list[tuple[str, Values]]:
    pairs: list[tuple[str, Values]] = []
    for name, found in value.items():
        numbers = found if isinstance(found, list) else [found]
        if not all(isinstance(number, int) and not isinstance(number, bool) for number in numbers):
            wanted = "a region must be a list of whole numbers" if isinstance(found, list) else "must be a whole number"
            problems.append(f"labels.{name}: {wanted}, found {found!r}")
        elif len(numbers) == 1:
            pairs.append((name, numbers[0]))
        else:
            pairs.append((name, tuple(numbers)))
    return pairs


def _region_order(document: Mapping[str, Any], problems: list[str]) -> tuple[int, ...]:
    order = document.get("regions_class_order")
    if order is None:
        return ()
    if not isinstance(order, list) or not all(isinstance(value, int) and not isinstance(value, bool) for value in order):
        problems.append(f"regions_class_order: must be a list of mask values, one a region, found {order!r}")
        return ()
    return tuple(order)


def _check_names(pairs: list[tuple[str, Values]], problems: list[str]) -> None:
    if any(not name.strip() for name, _ in pairs):
        problems.append("labels: a class has an empty name")
    names = [name for name, _ in pairs]
    for name in sorted({name for name in names if names.count(name) > 1}):
        problems.append(f"labels: two values have the name {name!r}")
    single = [value for _, value in pairs if isinstance(value, int)]
    for number in sorted({number for number in single if single.count(number) > 1}):
        same = " and ".join(repr(name) for name, value in pairs if value == number)
        problems.append(f"labels: {same} have the same value {number}; each class needs its own")


def _check_values(pairs: list[tuple[str, Values]], problems: list[str]) -> None:
    scheme = LabelScheme(dict(pairs))
    present = sorted({number for _, value in pairs for number in ((value,) if isinstance(value, int) else value)})
    if 0 not in {value for _, value in pairs if isinstance(value, int)}:
        problems.append(f"labels: no class has the value 0, which must be the background; found {present}")
    elif not scheme.foreground:
        but = "background" if IGNORE not in scheme.labels else f"background and {IGNORE!r}"
        problems.append(f"labels: there is nothing but {but} to learn; add a class with the value 1")
    elif present != list(range(len(present))):
        change = ", ".join(f"{old} -> {new}" for new, old in enumerate(present) if new != old)
        problems.append(
            f"labels: the values must be consecutive from 0, found {present}. Renumber them here and in every mask, for example {change}"
        )


def _listed(document: Mapping[str, Any], problems: list[str]) -> tuple[Entry, ...] | None:
    value = document.get("dataset")
    if value is None or value == {}:
        return None
    if not isinstance(value, dict):
        problems.append(f'dataset: must be an object of cases ({{"case": {{"images": [...], "label": "..."}}}}), found {_kind(value)}')
        return None
    entries = []
    for name, files in value.items():
        where = f"dataset.{name}"
        if not isinstance(files, dict):
            problems.append(f'{where}: must be {{"images": [...], "label": "..."}}, found {_kind(files)}')
            continue
        images, label = files.get("images"), files.get("label")
        if not isinstance(images, list) or not all(isinstance(image, str) and image for image in images):
            problems.append(f"{where}.images: must be a list of file names, one a channel, found {images!r}")
        elif label is not None and not isinstance(label, str):
            problems.append(f"{where}.label: must be a file name, found {label!r}")
        else:
            entries.append(Entry(name, tuple(images), label or None))
    return tuple(entries)


def _training(document: Mapping[str, Any], problems: list[str]) -> tuple[Entry, ...] | None:
    value = document.get("training")
    if value is None or value == []:
        return None
    if not isinstance(value, list):
        problems.append(f'training: must be a list of {{"image": "...", "label": "..."}}, found {_kind(value)}')
        return None
    entries = []
    for index, item in enumerate(value):
        image = item.get("image") if isinstance(item, dict) else None
        label = item.get("label") if isinstance(item, dict) else None
        if not isinstance(image, str) or not image or not (label is None or isinstance(label, str)):
            problems.append(
                f'training[{index}]: must be {{"image": "./imagesTr/x.nii.gz", "label": "./labelsTr/x.nii.gz"}}, found {item!r}'
            )
        elif not Path(image).name.startswith("._"):
            entries.append(Entry(split_ending(Path(image).name)[0], (image,), label or None))
    return tuple(entries)


def _test(document: Mapping[str, Any], problems: list[str]) -> tuple[str, ...]:
    value = document.get("test") or []
    if not isinstance(value, list):
        problems.append(f"test: must be a list of file names, found {_kind(value)}")
        return ()
    return tuple(item for item in value if isinstance(item, str))


def _file_ending(document: Mapping[str, Any], training: tuple[Entry, ...] | None, problems: list[str]) -> str:
    value = document.get("file_ending")
    if value is None:
        # MSD and nnU-Net's first version have no such field.
        endings = [split_ending(entry.images[0])[1] for entry in training or ()]
        return next((ending for ending in endings if ending), ".nii.gz")
    if not isinstance(value, str) or value not in FILE_ENDINGS:
        problems.append(f"file_ending: must be one of {', '.join(FILE_ENDINGS)}, found {value!r}")
        return ".nii.gz"
    return value


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: f"the text {value!r}", bool: "true or false", type(None): "null"}
    if isinstance(value, (dict, list)) and not value:
        return f"{kinds[type(value)]} with nothing in it"
    return kinds.get(type(value), f"the number {value!r}")
