"""Where everything that the tools write lies."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg import files
from autoseg.errors import DatasetError, PlanError, ResourceError
from planners.plan import Plan, PlanInvalid

FOLDER = "autoseg-work"


@dataclass(frozen=True)
class Workspace:
    """Paths under the work folder, for one plan.

    Args:
        root: the work folder.
        name: the plan's name.
    """

    root: Path
    name: str = "default"

    @staticmethod
    def of(dataset: Path, work: Path | None = None, name: str = "default") -> Workspace:
        """The workspace of a dataset folder: `work`, or autoseg-work inside it.

        Raises:
            PlanError: the plan's name cannot be a folder's name.
        """
        if not name or name in {".", "..", "cases"} or any(c in name for c in '/\\:*?"<>|\0') or name.startswith("."):
            raise PlanError(f"--name {name!r}: a plan's name must be usable as a folder name (letters, digits, - and _) and not 'cases'")
        return Workspace((work or dataset / FOLDER).absolute(), name)

    @property
    def fingerprint(self) -> Path:
        return self.root / "fingerprint.json"

    @property
    def plan(self) -> Path:
        return self.root / self.name / "plan.json"

    @property
    def planned(self) -> Path:
        """What planning was asked for and the hash of what it wrote: shows whether a plan was edited by hand."""
        return self.root / self.name / "planned.json"

    @property
    def plan_page(self) -> Path:
        """The plan for people: its reasons, and how the centres compare."""
        return self.root / self.name / "plan.html"

    @property
    def plan_fingerprint(self) -> Path:
        """The fingerprint that the plan was made from; `fingerprint` is the one of the planning that ran last, of whatever plan."""
        return self.root / self.name / "fingerprint.json"

    @property
    def folds(self) -> Path:
        """The folds that are in use."""
        return self.root / self.name / "folds.json"

    def folds_of(self, scheme: str) -> Path:
        """A scheme's folds, which are kept when another scheme is in use."""
        return self.root / self.name / f"folds-{scheme}.json"

    @property
    def chosen(self) -> Path:
        """Which models segment new images; autoseg_choose writes it."""
        return self.root / self.name / "chosen.json"

    @property
    def choosing(self) -> Path:
        """The out-of-fold masks of models that segment together."""
        return self.root / self.name / "choosing"

    def record(self) -> dict[str, Any]:
        """What planned.json says of the plan that stands; {} where it says nothing.

        While a plan is replaced, the file tells of the coming one too: that counts from the moment that plan.json is the coming one.

        Raises:
            PlanError: planned.json is not valid.
        """
        if not self.planned.exists():
            return {}
        record = files.read_json(self.planned, error=PlanError)
        if not isinstance(record, dict) or not isinstance(record.get("coming", {}), dict):
            raise PlanError(f"{self.planned}: is not what autoseg_plan writes. Take it away; the plan then counts as edited by hand")
        coming = record.pop("coming", {})
        replaced = bool(coming) and self.plan.exists() and files.sha256_file(self.plan) == coming.get("plan")
        return coming if replaced else record

    def excluded(self) -> tuple[str, ...]:
        """The cases that the plan leaves out; () where there is no plan.

        Raises:
            PlanError: planned.json is not valid.
        """
        names = self.record().get("exclude", [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise PlanError(f"{self.planned}: the field 'exclude' must be a list of case names. Mend it, or take the file away")
        return tuple(names)

    def cases(self, key: str) -> Path:
        """Folder of prepared cases; `key` is the hash of what shaped them."""
        return self.root / "cases" / key

    @property
    def contents(self) -> Path:
        """What is remembered of files' hashes."""
        return self.root / "cases" / "contents.json"

    def model(self, configuration: str, scheme: str) -> Path:
        """The model folder."""
        return self.root / self.name / configuration / scheme

    def nested_model(self, configuration: str, scheme: str) -> Path:
        """The model folder of folds that hold out two folds at once: apart from the others, with which they are never ensembled."""
        return self.model(configuration, f"{scheme}-nested")

    def pretrained(self, configuration: str, images: str) -> Path:
        """The folder of a configuration's network that was pretrained on some images."""
        return self.root / self.name / configuration / "pretrained" / images

    def fold(self, configuration: str, scheme: str, fold: str) -> Path:
        """The folder of one fold."""
        return self.model(configuration, scheme) / f"fold_{fold}"

    def make(self) -> None:
        """Creates the work folder and the plan's.

        Raises:
            DatasetError: it cannot be written to.
        """
        try:
            (self.root / self.name).mkdir(parents=True, exist_ok=True)
            if not os.access(self.root / self.name, os.W_OK):
                raise PermissionError(13, "Permission denied")
        except OSError as error:
            raise DatasetError(
                f"{self.root}: cannot be written to ({error.strerror}). Choose another place with --work DIR, for example on scratch"
            ) from None

    def read_plan(self) -> Plan:
        """The plan.

        Raises:
            PlanError: there is none, or it is not valid.
        """
        if not self.plan.exists():
            raise PlanError(
                f"{self.plan}: there is no plan {self.name!r} here. Make it with: autoseg_plan --name {self.name}; where it was made with "
                "--work DIR, give the same here"
            )
        document = files.read_json(self.plan, error=PlanError)  # an edit may have written a key twice, of which one would be lost
        try:
            return Plan.from_json(json.dumps(document), source=str(self.plan))
        except PlanInvalid as error:
            raise PlanError(str(error)) from None


def require_disk(folder: Path, needed: int, what: str) -> None:
    """Checks the free space before long work.

    Args:
        folder: an existing folder, or one whose parent exists.
        needed: bytes.
        what: what the space is for.

    Raises:
        ResourceError: less is free.
    """
    place = folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        raise ResourceError(
            f"{folder}: {what} needs about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free. "
            "Free some space or choose another --work DIR"
        )
