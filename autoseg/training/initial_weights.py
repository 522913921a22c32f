"""What a fold begins from in place of random weights: trained ones, adapted to its channels and labels; and which cases they have seen.

The adapted weights are the run's first checkpoint, so that going on needs nothing but the fold's folder.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from autoseg.dataset.case import Case, list_names
from autoseg.errors import ModelError, TrainingError
from autoseg.inference.trained_on import TrainedOn, image_marks, trained_on
from autoseg.networks.adaptation import Ends, adapt, misfits, outer_layers
from autoseg.networks.build import build_network
from autoseg.preprocessing.content import ContentHashes
from autoseg.training import checkpoint
from autoseg.training.beginning import FIELD, Beginning, read_beginning
from autoseg.training.optimisers import build_optimiser
from autoseg.training.pretrained_folder import NAME as PRETRAINED_NAME
from autoseg.training.pretrained_folder import open_pretrained
from autoseg.training.record import RunRecord
from autoseg.training.state import TrainState
from autoseg.training.weight_source import WeightSource, network_ends, open_model_weights
from planners.plan import Configuration, Plan

logger = logging.getLogger(__name__)

KEY = "initial weights"
"""In a run's identity: the hash of what it began from."""

SHOWN = 5


def images_seen(folder: Path, training: Iterable[Case], hashes: ContentHashes) -> TrainedOn:
    """What a fold's weights were trained on: the images of its training cases, and what its initial weights had seen."""
    own, beginning = trained_on(training, hashes), read_beginning(folder)
    return own.after(beginning.trained_on) if beginning else own


@dataclass(frozen=True)
class Start:
    """How a run starts, decided before anything is written.

    Attributes:
        beginning: what run.json is to say.
        network: with the weights that it begins with; None where the run has a checkpoint and goes on.
    """

    beginning: Beginning
    network: nn.Module | None

    @property
    def identity(self) -> dict[str, str]:
        """What the run's weights depend on besides the rest."""
        return {KEY: self.beginning.identity}

    def write(self, record: RunRecord, spec: Configuration) -> None:
        """Brings run.json up to date, and writes the first checkpoint where there is none yet."""
        if record.outdated:
            return
        record.update(**{FIELD: self.beginning.to_dict()})
        if self.network is not None:
            optimiser = build_optimiser(spec.training.optimiser, self.network.parameters())
            checkpoint.save(record.path.parent, TrainState(self.network, optimiser))


def plan_start(
    folder: Path,
    plan: Plan,
    configuration: str,
    held_out: Iterable[Case],
    hashes: ContentHashes,
    *,
    fold: str,
    init: str | Path | None = None,
    init_fold: str | None = None,
    despite_leak: bool = False,
    restart: bool = False,
) -> Start | None:
    """What a fold begins from; None for random weights.

    Args:
        folder: the fold's; a run that is there goes on with what it began from.
        plan: with the run's settings.
        held_out: the cases that the fold holds out.
        hashes: of the dataset's files.
        fold: the fold's name.
        init: a model folder, or an archive of one.
        init_fold: which of its folds, see `open_weights`.
        despite_leak: go on though the weights were trained on held-out cases; these are then not out of fold, and the summary says so.
        restart: what the folder holds does not count.

    Raises:
        ModelError: the model is not sound, or its network is another one than the plan's.
        TrainingError: the weights were trained on held-out cases, and `despite_leak` is not set.
    """
    recorded = None if restart else read_beginning(folder)
    begun = not restart and any((folder / name).exists() for name in checkpoint.NAMES)
    if init is None and recorded is None:
        if init_fold is not None:
            raise TrainingError("--init-fold names a fold of the model that --init names: give both")
        return None
    source = None
    if init is not None:
        source = open_weights(init, init_fold, fold)
        beginning = Beginning(source.identity, source.to_dict(), source.trained_on)
    else:
        assert recorded is not None
        beginning = recorded
        source = None if begun else _again(recorded)
    network = None if source is None or begun else starting_network(source, plan, configuration)
    accepted = despite_leak or bool(recorded and recorded.accepted)
    beginning = replace(beginning, accepted=accepted, leaked=_seen(beginning, list(held_out), hashes))
    _require_unseen(beginning)
    return Start(beginning, network)


def open_weights(path: str | Path, init_fold: str | None, fold: str) -> WeightSource:
    """The weights of a trained model's fold (see `open_model_weights`), or those that pretraining left in a folder.

    Raises:
        ModelError: there is neither, or it is damaged, or it has no such fold.
    """
    path = Path(path).absolute()
    if not (path / PRETRAINED_NAME).is_file():
        return open_model_weights(path, init_fold, fold)
    if init_fold is not None:
        raise ModelError(f"{path}: is a pretrained network and has no folds: leave --init-fold out")
    return open_pretrained(path)


def starting_network(source: WeightSource, plan: Plan, configuration: str) -> nn.Module:
    """The plan's network with the source's weights, adapted at stem and heads; what these lack is drawn by the seed.

    Raises:
        ModelError: a layer between stem and heads does not fit; names the first of them.
    """
    spec = plan.configuration(configuration)
    target = network_ends(plan, configuration)
    network = build_network(spec.network, len(target.inputs), len(target.outputs), spec.dimension, seed=spec.training.seed)
    fresh = network.state_dict()
    layers = outer_layers(spec.network)
    wrong = misfits(source.weights, fresh, layers)
    if wrong:
        raise ModelError(_unfit(source, spec, wrong, len(fresh)))
    _tell(source, target, spec, plan.transpose)
    network.load_state_dict(adapt(source.weights, fresh, layers, source.ends, target))
    return network


def _again(recorded: Beginning) -> WeightSource:
    """The weights of a run that was stopped before its first checkpoint."""
    path, fold = recorded.source["path"], recorded.source["fold"]
    try:
        source = open_weights(path, fold or None, fold)
    except ModelError as error:
        raise TrainingError(f"the fold was begun from {path}, and stopped before it had a checkpoint: {error}. Give --init again") from None
    if source.identity != recorded.identity:
        raise TrainingError(
            f"the fold was begun from {path}, which holds other weights now, and stopped before it had a checkpoint. "
            "Begin anew with --restart"
        )
    return source


def _seen(beginning: Beginning, held_out: list[Case], hashes: ContentHashes) -> tuple[str, ...]:
    if beginning.trained_on is None or not beginning.trained_on.complete:
        logger.warning(
            "%s does not tell %s images it was trained on. If held-out cases were among them, their scores are too good, and nothing here "
            "can see it",
            beginning.source["path"],
            "which" if beginning.trained_on is None else "all the",
        )
    images = beginning.trained_on.images if beginning.trained_on else frozenset()
    return tuple(sorted(case.name for case in held_out if images & image_marks(case, hashes)))


def _require_unseen(beginning: Beginning) -> None:
    if not beginning.leaked:
        return
    where = beginning.source["path"] + (f", fold {beginning.source['fold']}" if beginning.source["fold"] else "")
    found = f"{where}: was trained on {len(beginning.leaked)} of the cases that this fold holds out: {list_names(beginning.leaked)}"
    if not beginning.accepted:
        raise TrainingError(
            f"{found}. Their masks would not be out of fold, and their scores too good. Begin from the fold of that model that held "
            "them out (--init-fold), or from a model of other images; or go on with --init-despite-leak: the fold's summary then says that "
            "they were not held out, and prognosis leaves them out"
        )
    logger.warning("%s. Their masks are not out of fold: summary and run.json say so", found)


def _unfit(source: WeightSource, spec: Configuration, wrong: list[str], layers: int) -> str:
    own, other = spec.network, source.configuration.network
    kinds = (
        f"it is a {other.kind} of {len(other.features)} stages, the plan's a {own.kind} of {len(own.features)}"
        if (own.kind, len(own.features)) != (other.kind, len(other.features))
        else "both are of one kind, but their kernels, strides or widths differ"
    )
    more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    return (
        f"{source.path}: its network is not the plan's: {kinds}. {len(wrong)} weights do not fit (the plan's network has {layers}): "
        f"{'; '.join(wrong[:SHOWN])}{more}. Only the first convolution and the heads can be adapted. Plan with the model's "
        f"architecture, beside the plan that stands: autoseg_plan --like {shlex.quote(str(source.path))} --name fine-tuned"
    )


def _tell(source: WeightSource, target: Ends, spec: Configuration, transpose: tuple[int, int, int]) -> None:
    """What of the weights is taken, and where the data differ from what they were trained on."""
    known = {name.casefold() for name in source.ends.inputs}
    channels = [name for name in target.inputs if name.casefold() not in known]
    same = source.ends.activation == target.activation
    classes = [name for name in target.outputs if not same or name not in source.ends.outputs]
    logger.info(
        "beginning from %s%s: stem %s, head %s",
        source.path,
        f", fold {source.fold}" if source.fold else "",
        f"adapted for {', '.join(channels)}" if channels else "taken",
        f"fresh for {', '.join(classes)}" if classes else "taken",
    )
    if source.transpose != transpose and spec.dimension == 3:
        logger.warning(
            "the weights were trained with axis order (transpose) %s, the plan has %s: they meet other axes. autoseg_plan --like takes the "
            "model's",
            list(source.transpose),
            list(transpose),
        )
    theirs = source.configuration
    if theirs.spacing != spec.spacing:
        logger.warning("the weights were trained on voxels of %s mm, the plan has %s mm (network order)", theirs.spacing, spec.spacing)
    kinds = [tuple(scheme.kind for scheme in each.normalisation) for each in (theirs, spec)]
    if kinds[0] != kinds[1]:
        logger.warning("the weights were trained with normalisation %s, the plan has %s", *(", ".join(kind) for kind in kinds))
