"""chosen.json: which of a plan's models segment new images, together or alone, and which rules follow. autoseg_choose writes it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autoseg import files
from autoseg.errors import FoldNotFinished, ModelError
from autoseg.inference.ensemble_document import EnsembleDocument
from autoseg.inference.model_folder import ModelFolder
from autoseg.inference.postprocessing import Rule, check_rules, parse_rules, rules_text

logger = logging.getLogger(__name__)

NAME = "chosen.json"
SCHEMA = "autoseg-choice/1"


@dataclass(frozen=True)
class ChosenModel:
    """One model of a choice.

    Attributes:
        name: as the choice calls it.
        folder: the model folder.
        folds: fold -> SHA-256 of its weights, of those that the choice was made by.
    """

    name: str
    folder: Path
    folds: Mapping[str, str]


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        name: of the candidate, such as "2d+3d_fullres".
        models: their probabilities are averaged.
        rules: of postprocessing.
        found: how it was found, for people: the compared candidates, the rule, figures.
    """

    name: str
    models: tuple[ChosenModel, ...]
    rules: tuple[Rule, ...] = ()
    found: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self, folder: Path) -> dict[str, Any]:
        """Plain JSON; models are named by their paths from `folder`."""
        models = [
            {"name": model.name, "folder": Path(os.path.relpath(model.folder, folder)).as_posix(), "folds": dict(model.folds)}
            for model in self.models
        ]
        rules = [rule.to_dict() for rule in self.rules]
        return {"schema": SCHEMA, "name": self.name, "models": models, "postprocessing": rules, "found": dict(self.found)}

    def write(self, folder: Path) -> Path:
        """Writes chosen.json into a plan's folder; its path."""
        files.write_json(folder / NAME, self.to_dict(folder))
        return folder / NAME

    def text(self) -> str:
        """In words."""
        together = f"the mean probabilities of {self.name}" if len(self.models) > 1 else self.name
        return f"{together}; postprocessing: {rules_text(self.rules)}"


@dataclass(frozen=True)
class Members:
    """What segments together: opened models of the same channels and labels, and rules; see `Ensemble`."""

    models: tuple[ModelFolder, ...]
    rules: tuple[Rule, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def called(self) -> dict[str, ModelFolder]:
        """What each model is called -> the model; by its configuration where nothing else is said."""
        names = self.names or tuple(model.dataset.configuration for model in self.models)
        unique = names if len(set(names)) == len(names) else tuple(f"{name} ({place})" for place, name in enumerate(names, 1))
        return dict(zip(unique, self.models, strict=True))

    @property
    def packed(self) -> ModelFolder:
        """The first model with the others inside it, as they are passed on; one model without rules as it is."""
        first, *others = self.models
        if not others and not self.rules:
            return first
        names = self.names or tuple(model.dataset.configuration for model in self.models)
        return replace(first, ensemble=EnsembleDocument(names, self.rules), others=tuple(others))


def read_choice(path: Path) -> Choice:
    """The choice in a file.

    Raises:
        ModelError: it cannot be read, or is none.
    """
    document = files.read_json(path, error=ModelError)
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise ModelError(f"{path}: 'schema' must be '{SCHEMA}'. Choose again with autoseg_choose, or name a configuration with -c")
    try:
        models = tuple(_model(item, path.parent) for item in document["models"])
        name, rules, found = str(document["name"]), parse_rules(document["postprocessing"], str(path)), document["found"]
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: {type(error).__name__}: {error}: a key is missing or of the wrong kind. Choose again") from None
    if not models:
        raise ModelError(f"{path}: 'models' is empty. Choose again with autoseg_choose")
    return Choice(name, models, rules, found)


def open_choice(path: Path, folds: Iterable[str | int] | None = None) -> Members:
    """The models of a choice, opened and found intact.

    Args:
        folds: of every model; None means all finished ones.

    Raises:
        FoldNotFinished: a model lacks a fold that is asked for.
        ModelError: a model is gone or damaged, or they do not go together.
    """
    choice = read_choice(path)
    wanted = None if folds is None else list(folds)
    opened = []
    for chosen in choice.models:
        try:
            opened.append(ModelFolder.open(chosen.folder, wanted))
        except FoldNotFinished as error:
            raise FoldNotFinished(
                f"{path}: chose {choice.name}, and folds are asked for of each of its models: {error}. Without folds (-f) all finished "
                "ones are taken; -c NAME takes one configuration by itself"
            ) from None
        except ModelError as error:
            raise ModelError(
                f"{path}: was made of {choice.name}: {error}\nChoose again with autoseg_choose, or name a configuration with -c"
            ) from None
        changed = [fold for fold, sha256 in chosen.folds.items() if opened[-1].hashes.get(fold, sha256) != sha256]
        if changed:
            logger.warning(
                "%s: %s was trained anew since it was chosen (folds %s): compare again with autoseg_choose",
                path,
                chosen.name,
                ", ".join(changed),
            )
    members = Members(tuple(opened), choice.rules, tuple(model.name for model in choice.models))
    check_members(members, str(path))
    return members


def open_members(model: str | Path | ModelFolder | Members, folds: Iterable[str | int] | None = None) -> Members:
    """What segments, from a model folder, zipped or not, alone or with others inside it, or from a chosen.json.

    Args:
        folds: of every model; None means all finished ones.

    Raises:
        ModelError: as `ModelFolder.open` and `open_choice`.
    """
    if isinstance(model, Members):
        return model
    if not isinstance(model, ModelFolder):
        if Path(model).name == NAME:
            return open_choice(Path(model), folds)
        model = ModelFolder.open(model, folds)
    if model.ensemble is None:
        return Members((model,))
    members = Members((model, *model.others), model.ensemble.rules, model.ensemble.members)
    check_members(members, str(model.folder))
    return members


def check_members(members: Members, source: str) -> None:
    """ModelError where models cannot segment together, or rules are about classes that they do not have."""
    first = members.models[0].plan
    for model in members.models[1:]:
        different = [name for name in ("channels", "label_scheme", "file_ending") if getattr(model.plan, name) != getattr(first, name)]
        if different:
            raise ModelError(
                f"{source}: its models differ in {', '.join(different)}, so that they cannot segment together. Choose again with "
                "autoseg_choose"
            )
    check_rules(members.rules, first.label_scheme, source)


def _model(document: Any, folder: Path) -> ChosenModel:
    folds = {str(fold): str(sha256) for fold, sha256 in document["folds"].items()}
    return ChosenModel(str(document["name"]), Path(os.path.normpath(folder / str(document["folder"]))), folds)
