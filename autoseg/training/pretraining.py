"""Pretraining a configuration's network on images without labels: a masked autoencoder put into the loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autoseg import files
from autoseg.dataset.case import Case
from autoseg.dataset.unlabelled import find_unlabelled, require_any
from autoseg.errors import PlanError
from autoseg.inference.trained_on import trained_on
from autoseg.preprocessing.cases import PreparedCases, prepare_cases
from autoseg.preprocessing.content import ContentHashes
from autoseg.preprocessing.store import cases_key
from autoseg.report.curves import write_learning_curve
from autoseg.training import checkpoint
from autoseg.training.batches import PLAIN
from autoseg.training.distributed import joined_ranks
from autoseg.training.learner import Lesson, follow
from autoseg.training.logbook import Logbook
from autoseg.training.masked_images import MaskedImages
from autoseg.training.pretrained_folder import DOCUMENTS, write_pretrained
from autoseg.training.record import RunRecord, identity
from autoseg.training.run import (
    PlannedDataset,
    begun_accumulation,
    default_workers,
    go_on_as_begun,
    locked,
    run_facts,
    teach,
    wanted_settings,
)
from autoseg.training.tasks import Inpainting
from planners.plan import Configuration, Training

UNLABELLED = "unlabelled"

READS: dict[str, tuple[str, ...]] = {
    "training": ("accumulation", "compile", "deterministic", "seed"),
    "augmentation": ("spatial", "mirror"),
    "inference": (),
}
"""Part of a configuration -> the fields of it that pretraining reads."""


@dataclass(frozen=True)
class PretrainingResult:
    """What pretraining left on disk; `errors`: the mean squared error of hidden voxels, epoch by epoch."""

    folder: Path
    cases: int
    errors: tuple[float, ...]

    def text(self) -> str:
        """For a person."""
        course = f"{self.errors[0]:.4f} in the first epoch, {self.errors[-1]:.4f} in the last" if self.errors else "n/a"
        return (
            f"pretrained on {self.cases} cases: {self.folder}\nmean squared error of hidden voxels: {course}\n"
            f"begin a fold from it with: autoseg_train FOLD --init {self.folder}"
        )


def pretrain(
    dataset: str | Path,
    *,
    configuration: str | None = None,
    images: Sequence[str | Path] = (),
    with_fold: str | None = None,
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
) -> PretrainingResult | None:
    """The result of pretraining a configuration's network to its end. An interrupted run goes on where it stopped.

    Under torchrun the processes share every batch, as for `train`; those other than rank 0 return None.

    Args:
        dataset: the dataset folder; it must be planned. Its images without labels are learned from, see `find_unlabelled`.
        configuration: default 3d_fullres, or 2d for 2-D data.
        images: further folders of images.
        with_fold: a fold whose training images are learned from too; its held-out cases never are. The result suits that fold alone.
        epochs, iterations: short for settings pretraining.epochs, pretraining.iterations; seed for training.seed.
        settings: plan fields to replace for this run, dotted path -> value.
        device, restart, work, name, workers, threads: as for `train`.

    Raises:
        PlanError, FoldError, DatasetError: there is no plan, no such fold, nothing to learn from, or a setting that is never read here.
        CasesFailed: some cases could not be prepared.
        LockError: it is being pretrained elsewhere.
        TrainingError: the run was begun with other settings or images (and `restart` is not set), or the loss is not finite.
        Stopped: SIGTERM or Ctrl-C; the checkpoint is written.
    """
    with joined_ranks(device) as (ranks, where):
        workers = default_workers(ranks.local_world) if workers is None else workers
        if not ranks.leads:
            follow(ranks, where, workers)
            return None
        planned = PlannedDataset.open(dataset, configuration, work, name)
        _refuse_unread(settings or {})
        cases, label = _cases(planned, images, with_fold)
        planned.workspace.make()
        folder = planned.workspace.pretrained(planned.configuration, label)
        with locked(folder) as check_lock:
            short = {"pretraining.epochs": epochs, "pretraining.iterations": iterations, "training.seed": seed}
            wanted = wanted_settings(folder, settings, short, restart=restart)
            planned = planned.with_settings(wanted)
            ranks.part(planned.spec.batch_size)  # too many processes are refused before cases are prepared
            among = replace(planned.dataset, cases=tuple(cases))
            prepared = prepare_cases(among, planned.plan, planned.configuration, planned.workspace, workers=workers, verify=True)
            spec = autoencoder_configuration(planned.spec)
            what = identity(spec, planned.plan.label_scheme, prepared.keys, cases_key(planned.plan, planned.configuration))
            what |= {"pretraining": files.sha256_json(spec.pretraining.model_dump(mode="json", exclude={"epochs"}))}
            if restart:
                forget(folder)
            record = RunRecord(folder, what, spec.training.epochs, wanted, run_facts(where, ranks, threads))
            if record.finished:
                ranks.dismiss()
            else:
                title = f"pretraining {label}"
                go_on_as_begun(record, title, where, ranks, threads)
                lesson = _lesson(title, planned, spec, folder, prepared, record)
                hidden = f"{spec.pretraining.masked_share:.0%} of the blocks hidden"
                introduction = f"pretraining {planned.configuration} on {len(cases)} cases, {hidden}"
                state, logbook = teach(lesson, record, ranks, where, workers, check_lock=check_lock, introduction=introduction)
                write_learning_curve(logbook.rows, folder / "progress.png", title=f"pretraining on {len(cases)} cases")
                seen = trained_on(cases, ContentHashes(planned.workspace.contents))
                write_pretrained(folder, planned.plan, planned.configuration, len(cases), state.result, seen)
                record.update(finished_epochs=state.progress.epoch)
            rows = Logbook(folder / "logbook.jsonl", record["finished_epochs"]).rows
            return PretrainingResult(folder, len(cases), tuple(row["loss"] for row in rows))


def _refuse_unread(settings: Mapping[str, Any]) -> None:
    """Raises PlanError for a field that pretraining would pass over in silence."""
    for key in settings:
        part, *field = key.split(".")[2 if key.startswith("configurations.") else 0 :] or [""]
        if part in READS and (not field or field[0] not in READS[part]):
            raise PlanError(
                f"--set {key}: pretraining does not read this field. How long and by what it learns stands under pretraining, such as "
                f"pretraining.epochs; of {part} it reads {' and '.join(READS[part]) or 'nothing'}"
            )


def _cases(planned: PlannedDataset, images: Sequence[str | Path], with_fold: str | None) -> tuple[list[Case], str]:
    """The cases to learn from, and the name of what is learned from them."""
    cases = list(find_unlabelled(planned.dataset, images))
    label = UNLABELLED
    if with_fold is not None:
        folds = planned.folds()
        cases += [planned.dataset.case(case) for case in sorted(folds.fold(with_fold).training)]
        label = f"{folds.scheme}-fold_{with_fold}"
    require_any(cases, planned.dataset, images)
    return cases, label


def _lesson(name: str, planned: PlannedDataset, spec: Configuration, folder: Path, prepared: PreparedCases, record: RunRecord) -> Lesson:
    channels = len(planned.plan.channels)
    return Lesson(
        name,
        spec,
        Inpainting(),
        channels=channels,
        heads=channels,
        folder=folder,
        source=MaskedImages(prepared.folder, tuple(sorted(prepared.keys)), spec, spec.training.seed, name, prepared.keys),
        precision=record["precision"],
        threads=record["threads"],
        accumulation=begun_accumulation(record, spec),
    )


def autoencoder_configuration(spec: Configuration) -> Configuration:
    """The configuration as it is pretrained: its schedule from `pretraining`, moved and mirrored only, judged at full resolution alone."""
    own = spec.pretraining
    training = Training(
        epochs=own.epochs,
        iterations=own.iterations,
        validation_iterations=0,
        gradient_clip=own.gradient_clip,
        accumulation=spec.training.accumulation,
        compile=spec.training.compile,
        deterministic=spec.training.deterministic,
        seed=spec.training.seed,
        optimiser=own.optimiser,
        schedule=own.schedule,
    )
    moved = PLAIN.model_copy(update={"spatial": spec.augmentation.spatial, "mirror": spec.augmentation.mirror})
    network = spec.network.model_copy(update={"deep_supervision": False})
    return spec.model_copy(update={"training": training, "augmentation": moved, "network": network, "previous_stage": None})


def forget(folder: Path) -> None:
    """Removes what a pretraining run has left."""
    checkpoint.remove(folder)
    for name in ("manifest.json", *DOCUMENTS, "run.json", "logbook.jsonl", "progress.png"):
        (folder / name).unlink(missing_ok=True)
