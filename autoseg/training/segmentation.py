"""Training one fold: a segmentation network, its loss, batches and metric put into the loop, then its out-of-fold masks."""

from __future__ import annotations

import contextlib
import logging
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autoseg import files
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.folds import Fold, Folds
from autoseg.dataset.workspace import Workspace, require_disk
from autoseg.errors import FoldError, PlanError, TrainingError
from autoseg.networks.build import build_network
from autoseg.networks.norm import channels_last
from autoseg.networks.precision import choose_device, choose_precision
from autoseg.preprocessing.cases import PreparedCases, prepare_cases
from autoseg.report.curves import write_learning_curve
from autoseg.training import checkpoint
from autoseg.training.batches import SampleSource, SegmentationBatches, loader_deaths
from autoseg.training.interrupt import StopRequest
from autoseg.training.logbook import Logbook
from autoseg.training.loop import Schedule, TrainState, fit
from autoseg.training.losses import segmentation_loss
from autoseg.training.schedule import learning_rate
from autoseg.training.validate import predict_out_of_fold, publish_fold
from planners.memory import element_count
from planners.plan import Configuration, Plan, PlanInvalid, default_configuration, override

logger = logging.getLogger(__name__)

RUN_SCHEMA = "autoseg-run/1"
CURVE_EVERY_SECONDS = 60.0


@dataclass(frozen=True)
class FoldResult:
    """What a trained fold left on disk."""

    folder: Path
    summary: dict[str, Any]

    def text(self) -> str:
        """For a person: mean Dice of the held-out cases, a label, and where things lie."""
        held_out = "held-out cases" if self.summary.get("out_of_fold", True) else "training cases (not held out)"
        scores = ", ".join(f"{name} {'n/a' if value is None else f'{value:.3f}'}" for name, value in self.summary.get("dice", {}).items())
        return f"fold finished: {self.folder}\nDice of the {held_out}: {scores or 'n/a'}"


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
) -> FoldResult:
    """The result of training a fold to its end, and of predicting its held-out cases with the final weights.

    An interrupted fold goes on where it stopped. A finished one is left as it is, unless `epochs` is larger than what it was trained for.

    Args:
        dataset: the dataset folder.
        fold: a fold's number or name (a centre's under `loco`), or "all".
        configuration: default 3d_fullres, or 2d for 2-D data.
        epochs, iterations, seed: short for settings training.epochs, training.iterations, training.seed.
        settings: plan fields to replace for this run, dotted path -> value.
        device: "auto", "cpu", "cuda" or "cuda:i".
        restart: forget what was trained before.
        workers: loader processes, 0 = none; default by the number of cores.
        threads: compute threads on a CPU; default all cores. Recorded, and kept on resuming: it takes part in the exact result.

    Raises:
        PlanError, FoldError, DatasetError: there is no plan, or it does not fit.
        LockError: the fold is being trained elsewhere.
        TrainingError: the fold was begun with other settings or cases (and `restart` is not set), or the loss is not finite.
        autoseg.training.loop.Stopped: SIGTERM or Ctrl-C; the checkpoint is written.
    """
    opened = Dataset.open(dataset)
    workspace = Workspace.of(opened.folder, Path(work) if work else None, name)
    plan = workspace.read_plan()
    configuration = configuration or default_configuration(plan)
    plan = _with_settings(plan, configuration, epochs, iterations, seed, settings)
    spec = plan.configuration(configuration)
    folds = read_folds(workspace)
    chosen = folds.fold(str(fold))
    _require_cases(opened, chosen, workspace)
    folder = workspace.fold(configuration, folds.scheme, str(fold))
    folder.mkdir(parents=True, exist_ok=True)
    with files.FoldLock(folder / "lock.json"):
        files.remove_leftovers(folder)
        workers = _default_workers() if workers is None else workers
        prepared = prepare_cases(
            opened, plan, configuration, workspace, names=sorted({*chosen.training, *chosen.validation}), workers=workers
        )
        run = _Run(plan, configuration, spec, folds, str(fold), chosen, folder, prepared, choose_device(device))
        run.begin(restart=restart, threads=threads)
        run.learn(workers)
        return run.finish(opened, workspace, workers)


def read_folds(workspace: Workspace) -> Folds:
    """The plan's folds.

    Raises:
        FoldError: there are none, or the file is not valid.
    """
    return Folds.from_json(files.read_json(workspace.folds, error=FoldError), str(workspace.folds))


def _require_cases(dataset: Dataset, fold: Fold, workspace: Workspace) -> None:
    gone = sorted({*fold.training, *fold.validation} - {case.name for case in dataset.cases})
    if gone:
        raise FoldError(
            f"{workspace.folds}: names {len(gone)} cases that the dataset no longer has: {', '.join(gone[:10])}. "
            "Run autoseg_plan again: it takes them out of the folds"
        )


def _with_settings(
    plan: Plan, configuration: str, epochs: int | None, iterations: int | None, seed: int | None, settings: Mapping[str, Any] | None
) -> Plan:
    short = {"training.epochs": epochs, "training.iterations": iterations, "training.seed": seed}
    wanted = {**(settings or {}), **{key: value for key, value in short.items() if value is not None}}
    try:
        plan.configuration(configuration)
        return override(plan, wanted, configuration) if wanted else plan
    except PlanInvalid as error:
        raise PlanError(str(error)) from None


def _default_workers() -> int:
    import os

    return max(1, min(8, (os.cpu_count() or 1) // 2))


class _Run:
    """One fold's training: its folder, its settings, and the three steps begin, learn, finish."""

    def __init__(
        self,
        plan: Plan,
        configuration: str,
        spec: Configuration,
        folds: Folds,
        fold: str,
        chosen: Fold,
        folder: Path,
        prepared: PreparedCases,
        device: torch.device,
    ):
        self.plan, self.configuration, self.spec = plan, configuration, spec
        self.folds, self.fold, self.chosen = folds, fold, chosen
        self.folder, self.prepared, self.device = folder, prepared, device
        self.weights = folder / "model.safetensors"
        self.run_file = folder / "run.json"
        self.document: dict[str, Any] = {}

    @property
    def training(self) -> Any:
        return self.spec.training

    def begin(self, *, restart: bool, threads: int | None) -> None:
        """Reads or starts the run's record; refuses to go on with something else."""
        if restart:
            checkpoint.remove(self.folder)
            for name in ("run.json", "summary.json", "logbook.jsonl", "model.safetensors"):
                (self.folder / name).unlink(missing_ok=True)
        identity = self._identity()
        if self.run_file.exists():
            self.document = files.read_json(self.run_file)
            changed = _differences(self.document["identity"], identity)
            if changed and self.finished:
                logger.warning("fold %s is finished, but was trained with other %s; train it anew with --restart", self.fold, changed)
                return
            if changed:
                raise TrainingError(
                    f"{self.folder}: was begun with other {changed}. Give the same settings to go on, or --restart to start over"
                )
            before = self.document["epochs"]
            if self.training.epochs != before:
                self._change_epochs(before)
        else:
            count = threads or torch.get_num_threads()
            self.document = {
                "schema": RUN_SCHEMA,
                "identity": identity,
                "epochs": self.training.epochs,
                "finished_epochs": 0,
                "device": self.device.type,
                "precision": choose_precision(self.device),
                "threads": count,
                "versions": software_versions(),
            }
        self._refuse_other_siblings(identity)
        if self.document["device"] != self.device.type:
            logger.warning(
                "fold %s was begun on %s and goes on on %s: the weights will not be bit-identical",
                self.fold,
                self.document["device"],
                self.device.type,
            )
            self.document |= {"device": self.device.type, "precision": choose_precision(self.device)}
        if threads and threads != self.document["threads"]:
            logger.warning(
                "fold %s goes on with the %d compute threads it was begun with: they take part in the exact result",
                self.fold,
                self.document["threads"],
            )
        files.write_json(self.run_file, self.document)

    @property
    def finished(self) -> bool:
        return self.document.get("finished_epochs", 0) >= self.training.epochs

    def learn(self, workers: int) -> None:
        """Trains from the checkpoint to the last epoch; leaves the final weights."""
        if self.finished and self.weights.exists():
            return
        torch.set_num_threads(self.document["threads"])
        state, loss = self._state(), segmentation_loss(self.training.loss, self._levels())
        if checkpoint.load(self.folder, state):
            logger.info("fold %s: going on from epoch %d, iteration %d", self.fold, state.progress.epoch, state.progress.iteration)
        logbook = Logbook(self.folder / "logbook.jsonl", state.progress.epoch)
        self._announce(state.model)
        source = SampleSource(self.prepared.folder, tuple(self.chosen.training), self.spec, self.training.seed, self.fold)
        batches = SegmentationBatches(source, tuple(self.chosen.validation), workers)
        schedule = Schedule(
            epochs=self.training.epochs,
            iterations=self.training.iterations,
            lr_at=lambda epoch: learning_rate(self.training.schedule, self.training.optimiser.lr, epoch, self.training.epochs),
            gradient_clip=self.training.gradient_clip,
        )
        labels = self.plan.foreground_labels
        with StopRequest() as stop, loader_deaths(stop), _bar(self.training, state.progress) as tick:
            fit(
                state,
                loss,
                batches,
                lambda: PatchDice(labels),
                schedule,
                device=self.device,
                precision=self.document["precision"],
                prepare=_mover(self.device, self.spec.dimension),
                save=lambda s: checkpoint.save(self.folder, s) and None,
                record=_Recorder(logbook, self.folder / "progress.png", self.fold, self.training),
                after_iteration=lambda: tick() or stop(),
            )
        write_learning_curve(logbook.rows, self.folder / "progress.png", title=f"fold {self.fold}")
        weights = {name: tensor.detach().cpu() for name, tensor in state.model.state_dict().items()}
        files.write_bytes(self.weights, checkpoint.serialise(weights, {"fold": self.fold, "epochs": self.training.epochs}))
        self.document |= {"finished_epochs": self.training.epochs}
        files.write_json(self.run_file, self.document)

    def finish(self, dataset: Dataset, workspace: Workspace, workers: int) -> FoldResult:
        """Predicts and scores the held-out cases with the final weights, unless that is done."""
        summary = self.folder / "summary.json"
        if summary.exists() and self.document.get("validated_epochs") == self.document["finished_epochs"]:
            logger.info("fold %s is finished: %s", self.fold, self.folder)
            return FoldResult(self.folder, files.read_json(summary))
        publish_fold(dataset, self.plan, self.configuration, self.folds.scheme, self.folder, workspace.fingerprint)
        result = predict_out_of_fold(dataset, self.folder, self.fold, self.chosen.validation, device=str(self.device), workers=workers)
        publish_fold(dataset, self.plan, self.configuration, self.folds.scheme, self.folder, workspace.fingerprint)
        self.document |= {"validated_epochs": self.document["finished_epochs"]}
        files.write_json(self.run_file, self.document)
        return FoldResult(self.folder, result)

    def _identity(self) -> dict[str, Any]:
        """All that the weights depend on, but for the number of epochs, which may grow."""
        spec = self.spec.model_dump(mode="json")
        spec["training"].pop("epochs")
        spec.pop("inference")
        return {
            "configuration": files.sha256_json(spec),
            "seed": self.training.seed,
            "training cases": files.sha256_json({name: self.prepared.keys[name] for name in sorted(self.chosen.training)}),
            "labels": files.sha256_json(self.plan.labels),
        }

    def _refuse_other_siblings(self, identity: Mapping[str, Any]) -> None:
        """The folds of one model folder are ensembled, so they must share the network and its settings."""
        for path in sorted(self.folder.parent.glob("fold_*/run.json")):
            if path != self.run_file and files.read_json(path)["identity"]["configuration"] != identity["configuration"]:
                raise TrainingError(
                    f"{path.parent.name} was trained with other settings than fold {self.fold} is asked for, and a model's folds are ensembled. "
                    "Give the same --set values, plan under another --name, or remove that fold's folder"
                )

    def _change_epochs(self, before: int) -> None:
        epochs, done = self.training.epochs, self.document["finished_epochs"]
        if epochs < before and done >= epochs:
            raise TrainingError(
                f"fold {self.fold} is already trained for {done} epochs; --epochs {epochs} asks for fewer. Use --restart to start over"
            )
        logger.warning(
            "fold %s: %d epochs now, %d before: the learning-rate schedule is recomputed over %d epochs from where training stands",
            self.fold,
            epochs,
            before,
            epochs,
        )
        self.document["epochs"] = epochs

    def _levels(self) -> int:
        return len(self.spec.network.features) - 1 if self.spec.network.deep_supervision else 1

    def _state(self) -> TrainState:
        network = build_network(
            self.spec.network, len(self.plan.channels), len(self.plan.labels), self.spec.dimension, seed=self.training.seed
        )
        network = _mover(self.device, self.spec.dimension)(network)
        sgd = self.training.optimiser
        optimiser = torch.optim.SGD(
            network.parameters(), lr=sgd.lr, momentum=sgd.momentum, nesterov=sgd.nesterov, weight_decay=sgd.weight_decay
        )
        scaler = torch.amp.GradScaler(self.device.type) if self.document["precision"] == "fp16" else None
        return TrainState(network, optimiser, scaler)

    def _announce(self, model: nn.Module) -> None:
        parameters = sum(p.numel() for p in model.parameters())
        elements = element_count(self.spec.network, self.spec.patch_size, len(self.plan.channels), len(self.plan.labels))
        width = 4 if self.document["precision"] == "fp32" else 2
        memory = elements * self.spec.batch_size * width * 3 + parameters * 4 * 4
        require_disk(self.folder, parameters * 4 * 6, "a fold's checkpoints and weights")
        logger.info(
            "fold %s of %s (%s): %d training and %d held-out cases; %.1f M parameters, patch %s, batch %d, %s on %s; about %.1f GB of "
            "memory and %.2f GB of disk. The time needed is told after the first iterations",
            self.fold,
            self.configuration,
            self.folds.scheme,
            len(self.chosen.training),
            len(self.chosen.validation),
            parameters / 1e6,
            "x".join(map(str, self.spec.patch_size)),
            self.spec.batch_size,
            self.document["precision"],
            self.device,
            memory / 1e9,
            parameters * 4 * 6 / 1e9,
        )


class PatchDice:
    """Dice of each foreground label over all voxels of the validation patches of an epoch (the learning curve; it chooses nothing)."""

    def __init__(self, labels: tuple[int, ...]):
        self.labels = labels
        self._counts: list[Tensor] = []

    def update(self, outputs: Any, targets: Tensor) -> None:
        logits = outputs[0] if isinstance(outputs, list | tuple) else outputs
        predicted = logits.argmax(1)
        rows = []
        for label in self.labels:
            p, t = predicted == label, targets == label
            rows.append(torch.stack([(p & t).sum(), p.sum(), t.sum()]))
        self._counts.append(torch.stack(rows))

    def result(self) -> dict[str, Any]:
        """`dice` {label: value or None where the label never occurred}."""
        if not self._counts:
            return {}
        totals = torch.stack(self._counts).sum(0).tolist()
        return {
            "dice": {str(label): 2 * both / (p + t) if p + t else None for label, (both, p, t) in zip(self.labels, totals, strict=True)}
        }


class _Recorder:
    """Writes an epoch's row to the logbook, the log and, now and then, the learning curve."""

    def __init__(self, logbook: Logbook, picture: Path, fold: str, training: Any):
        self.logbook, self.picture, self.fold, self.training = logbook, picture, fold, training
        self._drawn = 0.0

    def __call__(self, row: dict[str, Any]) -> None:
        self.logbook.append(row)
        left = (self.training.epochs - row["epoch"] - 1) * (self.logbook.seconds_per_epoch() or 0.0)
        dice = " ".join("-" if v is None else f"{v:.3f}" for v in row.get("dice", {}).values())
        logger.info(
            "fold %s epoch %d/%d: loss %.4f, patch Dice %s, lr %.5f, %.1f s, waiting for data %.0f %%, %s left",
            self.fold,
            row["epoch"] + 1,
            self.training.epochs,
            row["loss"],
            dice or "n/a",
            row["lr"],
            row["seconds"] + row["validation_seconds"],
            100 * row["data_wait"],
            duration(left),
        )
        if time.monotonic() - self._drawn > CURVE_EVERY_SECONDS:
            write_learning_curve(self.logbook.rows, self.picture, title=f"fold {self.fold}")
            self._drawn = time.monotonic()


@contextlib.contextmanager
def _bar(training: Any, progress: Any) -> Iterator[Callable[[], None]]:
    """A progress bar over all iterations that tells once, early, how long training will take."""
    from tqdm import tqdm

    total = training.epochs * training.iterations
    done = progress.epoch * training.iterations + progress.iteration
    started, count = time.monotonic(), 0

    with tqdm(total=total, initial=done, unit="it", disable=None, leave=False) as bar:

        def tick() -> None:
            nonlocal count, started
            count += 1
            bar.update()
            if count == 1:
                started = time.monotonic()  # the first one pays for start-up
            if count == 4:
                each = (time.monotonic() - started) / 3
                logger.info("about %.2f s an iteration: %s for the %d left", each, duration(each * (total - done)), total - done)

        yield tick


def duration(seconds: float) -> str:
    """Seconds as "45 s", "12 min" or "3 h 20 min"."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def software_versions() -> dict[str, str]:
    """Versions of what takes part in a result."""
    found = {"python": platform.python_version()}
    for package in ("autoseg", "torch", "numpy", "SimpleITK"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _mover(device: torch.device, dimension: int) -> Callable[[Any], Any]:
    return lambda thing: thing.to(device=device, memory_format=channels_last(dimension))


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    return ", ".join(key for key in now if before.get(key) != now[key])
