"""A plan's folds: those that stand, joined by new cases, or made now. Each scheme keeps its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from autoseg import files
from autoseg.dataset.case import Case, list_names
from autoseg.dataset.checks import CaseFacts, presence
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.fold import BUILT_IN
from autoseg.dataset.fold_file import load_folds
from autoseg.dataset.fold_schemes import make_folds
from autoseg.dataset.folds import Folds
from autoseg.dataset.workspace import Workspace
from autoseg.errors import FoldError

FOLD_SEED = 12345
MANY_CENTRES = 5
"""From so many centres on, folds are of whole centres unless another scheme is asked for."""


def choose_folds(dataset: Dataset, workspace: Workspace, scheme: str | None, facts: Sequence[CaseFacts]) -> Folds:
    """The folds to use; nothing is written.

    Args:
        scheme: a scheme, or a file of folds; None means the one in use, whatever cases have joined, else `default_scheme`. A scheme that
            was in use before comes back as it was, joined by new cases; a file only as long as its content is the same.
        facts: of the cases; () before they are known, to see whether the scheme fits at all.

    Raises:
        FoldError: the scheme does not fit the dataset.
    """
    in_use = _read(workspace.folds)
    if scheme is None and in_use is not None:
        return _joined(_own(workspace, in_use.scheme) or in_use, dataset, facts)
    notes: tuple[str, ...] = ()
    if scheme is None:
        scheme, notes = default_scheme(dataset.cases)
    path = Path(scheme)
    is_file = path.suffix == ".json" or (path.is_file() and not BUILT_IN.fullmatch(scheme))
    name = path.name.removesuffix(".json") if is_file else scheme
    standing = _own(workspace, name) or (in_use if in_use and in_use.scheme == name else None)
    if in_use is not None and in_use.scheme != name:
        notes += (f"the folds in use are now {name}; those of {in_use.scheme} are kept beside them",)
    if standing is not None and (not is_file or standing.file_sha256 == _hash(path)):
        made = _joined(standing, dataset, facts)
    elif not is_file:
        made = make_folds(dataset.cases, scheme, seed=FOLD_SEED, presence=presence(facts))
    else:
        made = load_folds(path, dataset.cases, presence(facts))
        if standing is not None:
            notes += (f"{path} has changed: its folds are read anew, and folds that were trained before no longer fit",)
    return replace(made, notes=(*notes, *made.notes))


def default_scheme(cases: Sequence[Case]) -> tuple[str, tuple[str, ...]]:
    """The scheme where none is asked for, and notes: "grouped" from `MANY_CENTRES` centres on, so that the mask of a held-out case comes
    from a network that never saw its hospital; else "cv5". Centres can be held out only where every case has one and no patient two."""
    centres = {case.centre for case in cases} - {""}
    if len(centres) < MANY_CENTRES:
        return "cv5", ()
    seen: dict[str, set[str]] = {}
    for case in cases:
        seen.setdefault(case.patient, set()).add(case.centre)
    homeless = sorted(case.name for case in cases if not case.centre)
    travellers = sorted(patient for patient, places in seen.items() if len(places) > 1)
    if not homeless and not travellers:
        return "grouped", (
            f"there are {len(centres)} centres: every fold holds out whole centres (grouped), so that each held-out case is from a "
            "hospital that its network never saw. --folds cv5 spreads the centres over all folds instead",
        )
    why = f"{len(homeless)} case(s) have none: {list_names(homeless)}" if homeless else f"patients in two: {list_names(travellers)}"
    return "cv5", (
        f"there are {len(centres)} centres, but {why}. So folds are cv5, in which networks see every hospital; for folds of whole centres "
        "mend cases.csv and ask with --folds grouped",
    )


def write_folds(workspace: Workspace, folds: Folds) -> None:
    """Writes the folds as the ones in use, and where their scheme is kept."""
    for path in (workspace.folds_of(folds.scheme), workspace.folds):
        files.write_json(path, folds.to_json())


def _own(workspace: Workspace, scheme: str) -> Folds | None:
    path = workspace.folds_of(scheme)
    return _read(path) if path.parent == workspace.folds.parent else None


def _read(path: Path) -> Folds | None:
    return Folds.from_json(files.read_json(path, error=FoldError), str(path)) if path.exists() else None


def _hash(path: Path) -> str:
    try:
        return files.sha256_file(path)
    except OSError as error:
        raise FoldError(f"{path}: cannot be read: {error.strerror}") from None


def _joined(standing: Folds, dataset: Dataset, facts: Sequence[CaseFacts]) -> Folds:
    names = {case.name for case in dataset.cases}
    gone, new = set(standing.members) - names, names - set(standing.members)
    folds = (standing.without(gone) if gone else standing).extend(dataset.cases, presence(facts))
    if not gone and not new:
        return folds
    note = f"{len(new)} new cases joined the folds that stand, {len(gone)} left them; no other case moved"
    return replace(folds, notes=(*folds.notes, note))
