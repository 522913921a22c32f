"""Models passed on: one zip out, a model folder in. What is read back is read as by everyone else, with `model_archive`'s suspicion."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg import files
from autoseg.errors import ModelError
from autoseg.inference import model_manifest as manifest
from autoseg.inference import model_metadata
from autoseg.inference.choice import open_members
from autoseg.inference.ensemble_document import NAME as ENSEMBLE_NAME
from autoseg.inference.ensemble_document import member_folder
from autoseg.inference.model_archive import check_contents, inspect, opened_archive, unpack
from autoseg.inference.model_card import model_card
from autoseg.inference.model_documents import CARD_NAME, PREVIOUS_NAME, fold_of
from autoseg.inference.model_folder import ModelFolder
from autoseg.inference.model_writing import fold_figures, json_bytes

EPOCH = (1980, 1, 1, 0, 0, 0)
"""Every file's time in an archive, so that one model gives the same bytes twice."""

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Exchanged:
    """A model that was packed or unpacked.

    Attributes:
        path: the archive, or the folder.
        name, folds: the model's.
        size: bytes of the archive.
        models: how many segment together.
        left_out: files of the archive that are none of the model's and were not read.
    """

    path: Path
    name: str
    folds: tuple[str, ...]
    size: int
    left_out: tuple[str, ...] = ()
    models: int = 1

    def text(self) -> str:
        """For a person."""
        together = f" and {self.models - 1} more that segment together with it" if self.models > 1 else ""
        lines = [f"{self.path}: model {self.name}{together}, folds {', '.join(self.folds)}, {self.size} bytes packed"]
        if self.left_out:
            more = f" and {len(self.left_out) - 5} more" if len(self.left_out) > 5 else ""
            lines.append(f"left out, as the manifest does not list them: {', '.join(self.left_out[:5])}{more}")
        return "\n".join([*lines, model_metadata.INTENDED_USE])

    def to_dict(self) -> dict[str, Any]:
        """For a machine."""
        return {"path": str(self.path), "name": self.name, "folds": list(self.folds), "models": self.models, "size": self.size} | {
            "left_out": list(self.left_out)
        }


def export_model(
    model: str | Path, archive: str | Path, *, folds: Iterable[str | int] | None = None, settings: Mapping[str, str] | None = None
) -> Exchanged:
    """Packs a model into one zip archive: its documents, the weights of the folds, and a manifest with the SHA-256 of every file.

    The archive is written beside its place, read back and compared, and only then takes it. One model gives the same bytes each time.

    Args:
        model: a model folder, or an archive of one, or the chosen.json of autoseg_choose: then all models that it names, and its rules.
        archive: the file to write; must end in .zip and not be there yet.
        folds: those to pack; None means all finished ones.
        settings: fields of the metadata that only the authors know (`model_metadata.AUTHORS_FIELDS`) -> text.

    Raises:
        ModelError: the model is damaged, lacks a fold, or changed meanwhile; the archive is there already or has another ending.
    """
    archive = Path(archive)
    if archive.suffix.lower() != ".zip":
        raise ModelError(f"{archive}: a model is packed as a zip; name a file that ends in .zip")
    if archive.exists():
        raise ModelError(f"{archive}: is there already and is not replaced. Name another file, or remove it")
    opened = open_members(model, folds).packed
    parts = [_part(inner, prefix, {} if prefix else settings or {}) for prefix, inner in _tree(opened)]

    def write(temporary: Path) -> None:
        with zipfile.ZipFile(temporary, "x") as packed:
            for part in parts:
                part.write(packed)
        with opened_archive(temporary) as packed:  # what the disk gives back is what was meant
            check_contents(packed, inspect(packed, str(archive)), str(archive))

    files.replace_with(archive, write)
    return Exchanged(archive, opened.dataset.name, opened.folds, archive.stat().st_size, models=1 + len(opened.others))


def import_model(archive: str | Path, folder: str | Path) -> Exchanged:
    """Unpacks a model that was received as a zip into a new model folder: the whole model, or nothing.

    The archive is judged before anything is written (`model_archive.unpack`); then the documents must fit each other and the weights the
    plan's network, and only then does the folder take its name.

    Raises:
        ModelError: the archive is not to be trusted, is damaged, or is no model that this release can apply.
        AutosegError: `folder` is there already and is not empty.
    """
    archive, folder = Path(archive), Path(folder)
    if archive.is_dir():
        raise ModelError(f"{archive}: is a folder. A model folder needs no import: use it with -m, or copy it")
    if not archive.is_file():
        raise ModelError(f"{archive}: there is no such file")
    if not zipfile.is_zipfile(archive):
        raise ModelError(f"{archive}: is no zip archive, or it was cut short. Get it again from where it came")
    with files.new_folder(folder) as fresh:
        contents = unpack(archive, fresh)
        try:
            opened = ModelFolder.open(fresh)
            open_members(opened)
            for _, inner in _tree(opened):
                for fold in inner.folds:
                    inner.load_network(fold)
        except ModelError as error:
            raise ModelError(str(error).replace(str(fresh), str(archive))) from None
    return Exchanged(folder, opened.dataset.name, opened.folds, archive.stat().st_size, contents.left_out, 1 + len(opened.others))


def _tree(opened: ModelFolder, prefix: str = "") -> Iterator[tuple[str, ModelFolder]]:
    """The model and all that lie inside it, with their places: those that it continues from, those that it segments together with."""
    yield prefix, opened
    if opened.previous is not None:
        yield from _tree(opened.previous, f"{prefix}{PREVIOUS_NAME}/")
    for number, other in enumerate(opened.others, 1):
        yield from _tree(other, f"{prefix}{member_folder(number)}/")


@dataclass(frozen=True)
class _Part:
    """One model of an archive: its files on the disk with their entries, and the documents that are made anew. `prefix`: where it goes."""

    folder: Path
    prefix: str
    kept: Mapping[str, manifest.Entry]
    described: Mapping[str, bytes]

    def write(self, packed: zipfile.ZipFile) -> None:
        """Appends the model to an archive, documents first."""
        entries = {**self.kept, **{name: manifest.measure(data) for name, data in self.described.items()}}
        for name, data in {manifest.NAME: json_bytes(manifest.document(entries)), **self.described}.items():
            packed.writestr(_entry(self.prefix, name), data)
        for name in sorted(self.kept, key=lambda name: (bool(fold_of(name)), name)):
            self._pack(packed, name)

    def _pack(self, packed: zipfile.ZipFile, name: str) -> None:
        path, digest = self.folder / name, hashlib.sha256()
        large = path.stat().st_size > 1 << 31
        with open(path, "rb") as source, packed.open(_entry(self.prefix, name), "w", force_zip64=large) as target:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                target.write(chunk)
        if digest.hexdigest() != self.kept[name].get("sha256"):
            raise ModelError(f"{path}: is not what {manifest.NAME} says, or changed while it was packed. Run again")


def _part(opened: ModelFolder, prefix: str, settings: Mapping[str, str]) -> _Part:
    """What of an opened model is packed: all that its manifest lists, without the folds that were not opened."""
    described = _described(opened, settings)
    listed = {name: entry for name, entry in manifest.read_entries(opened.folder).items() if fold_of(name) in {"", *opened.folds}}
    kept = {name: _held(opened, name, entry) for name, entry in listed.items() if name not in described}
    return _Part(opened.folder, prefix, kept, described)


def _described(opened: ModelFolder, settings: Mapping[str, str]) -> dict[str, bytes]:
    """The documents that tell of these folds alone, made anew: metadata and card."""
    known = opened.metadata or {}
    figures = fold_figures(opened.folder, known, opened.folds)
    made = model_metadata.metadata(opened.plan, opened.dataset, figures, model_metadata.with_authors_fields(known, settings))
    card = model_card(opened.plan, opened.dataset, figures, opened.ensemble.text() if opened.ensemble else "")
    documents = {model_metadata.NAME: json_bytes(made), CARD_NAME: card.encode()}
    return documents if opened.ensemble is None else {**documents, ENSEMBLE_NAME: json_bytes(opened.ensemble.to_dict())}


def _held(opened: ModelFolder, name: str, entry: manifest.Entry) -> manifest.Entry:
    """The entry of what is there now, where a change that was cut short left two that are accepted."""
    choices = manifest.accepted(entry)
    if len(choices) == 1:
        return choices[0]
    digest = files.sha256_file(opened.folder / name)
    return next((choice for choice in choices if choice.get("sha256") == digest), choices[0])


def _entry(prefix: str, name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(prefix + name, EPOCH)
    entry.external_attr = 0o100644 << 16
    # Weights are noise to a packer: deflating them costs minutes and saves a few percent.
    entry.compress_type = zipfile.ZIP_STORED if fold_of(name) else zipfile.ZIP_DEFLATED
    return entry
