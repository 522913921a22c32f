"""Training one fold: its folder and how it starts, and then what `fold` does there."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoseg.dataset.dataset import Dataset
from autoseg.dataset.folds import Fold, Folds
from autoseg.dataset.workspace import Workspace
from autoseg.errors import FoldError, PlanError
from autoseg.inference.model_writing import remove_fold
from autoseg.preprocessing.content import ContentHashes
from autoseg.training import checkpoint
from autoseg.training.beginning import FIELD as INITIAL_WEIGHTS
from autoseg.training.cascade import command_options
from autoseg.training.distributed import joined_ranks
from autoseg.training.fold import FoldResult, FoldRun, prepare_fold
from autoseg.training.initial_weights import plan_start
from autoseg.training.learner import follow
from autoseg.training.record import RunRecord, require_same_siblings
from autoseg.training.run import PlannedDataset, default_workers, locked, run_facts, wanted_settings
from autoseg.training.tensorboard import FOLDER as TENSORBOARD
from autoseg.training.tensorboard import require_tensorboard


def train(
    dataset: str | Path,
    fold: int | str,
    *,
    configuration: str | None = None,
    epochs: int | None = None,
    iterations: int | None = None,
    settings: Mapping[str, Any] | None = None,
    device: str = "auto",
    seed: int | None = None,
    restart: bool = False,
    work: str | Path | None = None,
    name: str = "default",
    workers: int | None = None,
    threads: int | None = None,
    tensorboard: bool = False,
    init: str | Path | None = None,
    init_fold: str | None = None,
    init_despite_leak: bool = False,
) -> FoldResult | None:
    """The result of training a fold to its end, and of predicting its held-out cases with the final weights.

    An interrupted fold goes on where it stopped. A finished one is left as it is, unless `epochs` is larger than what it was trained for.
    Under torchrun the processes share every batch; rank 0 does all else, and the other ranks return None.

    Args:
        dataset: the dataset folder.
        fold: a fold's number or name (a centre's under `loco`), "all", or two folds at once, "0+1", for the nested masks of a cascade.
        configuration: default 3d_fullres, or 2d for 2-D data.
        epochs, iterations, seed: short for settings training.epochs, training.iterations, training.seed.
        settings: plan fields to replace for this run, dotted path -> value.
        device: "auto", "cpu", "cuda" or, with one process, "cuda:i".
        restart: forget what was trained before.
        workers: loader processes, 0 = none; default by the number of cores.
        threads: compute threads on a CPU; default all cores. Recorded, and kept on resuming: it takes part in the exact result.
        tensorboard: also write the logbook's numbers for TensorBoard, into the fold's folder.
        init: a trained model, folder or archive, to begin from in place of random weights; going on needs it no more.
        init_fold: which of its folds; default the one of the same name, else "all", else the first.
        init_despite_leak: begin from it though it was trained on cases that this fold holds out.

    Raises:
        PlanError, FoldError, DatasetError: there is no plan, it does not fit, or a setting is given that a fold never reads.
        LockError: the fold is being trained elsewhere.
        ModelError: `init` is not sound, or its network is another one than the plan's.
        TrainingError: the fold was begun with other settings or cases (and `restart` is not set), `init` was trained on held-out cases, or
            the loss is not finite.
        autoseg.training.interrupt.Stopped: SIGTERM or Ctrl-C; the checkpoint is written.
    """
    if tensorboard:
        require_tensorboard()
    with joined_ranks(device) as (ranks, where):
        workers = default_workers(ranks.local_world) if workers is None else workers
        if not ranks.leads:
            follow(ranks, where, workers)
            return None
        planned = PlannedDataset.open(dataset, configuration, work, name)
        _refuse_unread(settings or {})
        folds = planned.folds()
        chosen = folds.fold(str(fold))
        _require_cases(planned.dataset, chosen, planned.workspace)
        planned.workspace.make()
        folder = _model_folder(planned, folds, str(fold)) / f"fold_{fold}"
        with locked(folder) as check_lock:
            short = {"training.epochs": epochs, "training.iterations": iterations, "training.seed": seed}
            wanted = wanted_settings(folder, settings, short, restart=restart)
            planned = planned.with_settings(wanted)
            ranks.part(planned.spec.batch_size)  # too many processes are refused before cases are prepared
            options = command_options(dataset, work, name)
            data = prepare_fold(planned, folds, str(fold), options, workers)
            start = plan_start(
                folder,
                planned.plan,
                planned.configuration,
                data.held_out,
                ContentHashes(planned.workspace.contents),
                fold=str(fold),
                init=init,
                init_fold=init_fold,
                despite_leak=init_despite_leak,
                restart=restart,
            )
            what = data.identity | (start.identity if start else {})
            require_same_siblings(folder, what)
            if restart:  # only now that nothing stands in the way of training anew
                forget(folder, str(fold))
            facts = run_facts(where, ranks, threads) | ({INITIAL_WEIGHTS: start.beginning.to_dict()} if start else {})
            record = RunRecord(folder, what, planned.spec.training.epochs, wanted, facts)
            if start:
                start.write(record, planned.spec)
            run = FoldRun(data, folder, record, check_lock, ranks, where, workers)
            if record.finished:
                ranks.dismiss()
            else:
                run.learn(threads, tensorboard=tensorboard)
            return run.finish()


def forget(folder: Path, fold: str) -> None:
    """Removes what a fold has learned, out of its model folder first."""
    if (folder.parent / "manifest.json").exists():
        remove_fold(folder.parent, fold)
    checkpoint.remove(folder)
    for name in ("run.json", "summary.json", "summary.csv", "logbook.jsonl", "progress.png", "model.safetensors"):
        (folder / name).unlink(missing_ok=True)
    for name in ("masks", TENSORBOARD):
        shutil.rmtree(folder / name, ignore_errors=True)


def _refuse_unread(settings: Mapping[str, Any]) -> None:
    """Raises PlanError for a field that a fold would pass over in silence."""
    for key in settings:
        if "pretraining" in key.split(".")[:3]:
            raise PlanError(f"--set {key}: a fold does not read this field. Give it to autoseg_pretrain, or to autoseg_plan")


def _model_folder(planned: PlannedDataset, folds: Folds, fold: str) -> Path:
    joint = folds.is_joint(fold)
    return (planned.workspace.nested_model if joint else planned.workspace.model)(planned.configuration, folds.scheme)


def _require_cases(dataset: Dataset, fold: Fold, workspace: Workspace) -> None:
    gone = sorted({*fold.training, *fold.validation} - {case.name for case in dataset.cases})
    if gone:
        raise FoldError(
            f"{workspace.folds}: names {len(gone)} cases that the dataset no longer has: {', '.join(gone[:10])}. "
            "Run autoseg_plan again: it takes them out of the folds"
        )
