"""What a configuration needs that continues from the masks of a previous stage: those masks out of fold, and that stage's networks.

Fold K learns from masks of the previous stage that did not learn from the case at hand: each training case's comes from the fold of the
same scheme that held it out. Its own held-out cases get theirs from fold K of the previous stage, which held them out too. With
`training.previous_masks` "nested", what made the training cases' masks has held out fold K's cases as well.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from autoseg import files
from autoseg.dataset.case import list_names
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.folds import Folds
from autoseg.dataset.workspace import Workspace
from autoseg.errors import FoldError, TrainingError
from autoseg.inference.model_documents import WEIGHTS_NAME, check_previous_stage, in_order, read_dataset, read_plan
from autoseg.inference.model_folder import ModelFolder
from autoseg.inference.model_writing import write_previous_stage
from autoseg.inference.records import Records, hash_inputs
from autoseg.preprocessing.content import ContentHashes
from autoseg.preprocessing.previous_stage import MaskSource
from autoseg.training.beginning import leaked_cases
from autoseg.training.record import NAME as RUN_NAME
from planners.plan import Plan

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreviousStage:
    """The finished stage that a fold continues from.

    Attributes:
        configuration: its name.
        model: its model folder.
        sources: case -> the mask that the fold sees of it.
    """

    configuration: str
    model: Path
    sources: Mapping[str, MaskSource]

    def identity(self, cases: Iterable[str]) -> dict[str, str]:
        """What a fold's weights depend on besides the rest: the masks of its training cases."""
        return {f"masks of {self.configuration}": files.sha256_json({case: self.sources[case].sha256 for case in sorted(cases)})}

    def copy_into(self, folder: Path, fold: str) -> None:
        """Makes the model folder self-contained: the same fold of this stage goes inside."""
        write_previous_stage(folder, ModelFolder.open(self.model, [fold]))


def previous_stage(
    dataset: Dataset, workspace: Workspace, plan: Plan, configuration: str, folds: Folds, fold: str, options: str = ""
) -> PreviousStage | None:
    """What a fold of this configuration continues from; None for a configuration that starts from the images.

    Under the fold "all" every training case's mask is the one made out of fold, by the fold that held it out; new images are later
    predicted with the fold "all" of the previous stage, which therefore must be there too.

    Args:
        options: what the commands that are named in messages need besides fold and configuration, such as "-d DIR".

    Raises:
        TrainingError: folds of the previous stage are not finished; names the commands that train them. Or its masks were changed.
        FoldError: no fold holds some of the cases out.
        ModelError: the previous stage was trained for other channels, labels or another orientation.
    """
    name = plan.configuration(configuration).previous_stage
    if name is None:
        return None
    holders = mask_folds(folds, fold, nested=plan.configuration(configuration).training.previous_masks == "nested")
    model = workspace.model(name, folds.scheme)
    folders = {
        other: (workspace.nested_model(name, folds.scheme) if folds.is_joint(other) else model) / f"fold_{other}"
        for other in in_order({*holders.values(), fold})
    }
    unfinished = [
        other for other, folder in folders.items() if not _is_finished(folder, [case for case in holders if holders[case] == other])
    ]
    if unfinished:
        commands = "\n".join(f"  autoseg_train {shlex.quote(other)} -c {name}{options}" for other in unfinished)
        raise TrainingError(
            f"{configuration} continues from the masks that {name} made of the cases it had not learned from, and of that, "
            f"{'this fold' if len(unfinished) == 1 else 'these folds'} of the scheme {folds.scheme!r} {_are(unfinished)} not finished: "
            f"{', '.join(unfinished)}. First run:\n{commands}"
        )
    nested_cases = folds.fold(fold).validation if plan.configuration(configuration).training.previous_masks == "nested" else ()
    _require_out_of_fold(folders, holders, frozenset(nested_cases), name)
    for where in {folder.parent for folder in folders.values()}:
        check_previous_stage(plan, configuration, read_plan(where), read_dataset(where, str(where)).configuration, str(where))
    return PreviousStage(name, model, _sources(dataset, workspace, plan, folders, holders, f"-c {name}{options}"))


def _require_out_of_fold(folders: Mapping[str, Path], holders: Mapping[str, str], unknown: frozenset[str], name: str) -> None:
    """TrainingError where the weights that a fold began from had been trained on a case that it draws, or on one of `unknown`."""
    leaked = {
        other: [case for case in leaked_cases(folder) if holders.get(case) == other or case in unknown] for other, folder in folders.items()
    }
    found = "; ".join(f"fold {other}: {list_names(cases)}" for other, cases in leaked.items() if cases)
    if found:
        raise TrainingError(
            f"masks of {name} are not out of fold, since the weights that its folds began from had been trained on these cases: {found}. "
            f"Train those folds of {name} anew, without --init or from weights that have not seen them (--restart)"
        )


def mask_folds(folds: Folds, fold: str, *, nested: bool = False) -> dict[str, str]:
    """{case: the previous stage's fold whose mask of it the fold sees}: the first that held it out, or the fold itself where that did.

    Args:
        nested: for a training case, the joint fold that held out both it and the fold's own held-out cases. The fold "all" has none of its
            own.

    Raises:
        FoldError: no fold holds a training case out.
    """
    chosen = folds.fold(fold)
    found = {
        case: next((name for name, other in folds.folds.items() if name != fold and case in other.validation), "")
        for case in chosen.training
    }
    never = [case for case, name in found.items() if not name]
    if never:
        raise FoldError(
            f"the scheme {folds.scheme!r} holds {len(never)} cases out in no fold: {list_names(never)}. A cascade learns from out-of-fold "
            "masks, so it needs a scheme that holds every case out, such as cv5: choose one with autoseg_plan --folds"
        )
    if nested and fold in folds.folds:
        found = {case: folds.joint(name, fold) for case, name in found.items()}
    return found | {case: fold for case in chosen.validation if case not in found}


def command_options(dataset: str | Path, work: str | Path | None, name: str) -> str:
    """What a command needs to find the same dataset and plan, with a space in front."""
    given = [("-d", dataset), *([("--work", work)] if work else []), *([("--name", name)] if name != "default" else [])]
    return "".join(f" {option} {shlex.quote(str(value))}" for option, value in given)


def _is_finished(folder: Path, cases: Iterable[str]) -> bool:
    """Whether a fold has its final weights and has predicted these held-out cases with them."""
    if not (folder / RUN_NAME).is_file() or not (folder / WEIGHTS_NAME).is_file():
        return False
    run = files.read_json(folder / RUN_NAME, error=TrainingError)
    ended = run["finished_epochs"] >= run["epochs"] or run.get("early_stopping", {}).get("stopped", False)
    validated = run.get("validated") or {}
    return ended and validated.get("epochs") == run["finished_epochs"] and set(cases) <= set(validated["cases"])


def _sources(
    dataset: Dataset, workspace: Workspace, plan: Plan, folders: Mapping[str, Path], holders: Mapping[str, str], options: str
) -> dict[str, MaskSource]:
    hashes = ContentHashes(workspace.contents)
    records = {fold: Records(folders[fold] / "masks") for fold in set(holders.values())}
    found, problems = {}, {}
    for name, fold in holders.items():
        path = records[fold].folder / f"{name}{plan.file_ending}"
        record = records[fold].of(name)
        content = hashes.of(path) if path.is_file() else ""
        if record is None or record.outputs.get(path.name) != content:
            problems[name] = f"{path} is missing, or not what was predicted"
        elif record.inputs != hash_inputs(dataset.case(name), hashes.of):
            problems[name] = f"{path} was predicted from another image than the one that is there now"
        else:
            found[name] = MaskSource(path, content)
    hashes.save()
    if problems:
        broken = in_order({holders[name] for name in problems})
        listed = "\n".join(f"  - case {name}: {problem}" for name, problem in list(problems.items())[:10])
        more = f"\n  - and {len(problems) - 10} more" if len(problems) > 10 else ""
        commands = "\n".join(
            f"  rm {shlex.quote(str(folders[fold] / 'summary.json'))}; autoseg_train {shlex.quote(fold)} {options}" for fold in broken
        )
        raise TrainingError(f"{len(problems)} masks of the previous stage cannot be used:\n{listed}{more}\nPredict them anew:\n{commands}")
    return found


def _are(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"
