"""What a rank does in the tests of training in several processes: `python ranks.py learn|kill FOLDER`, started by `launch`."""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from autoseg.networks.build import build_network
from autoseg.training.distributed import joined_ranks
from autoseg.training.loop import evaluate
from autoseg.training.losses import segmentation_loss, target_regions
from autoseg.training.patch_dice import PatchDice
from autoseg.training.state import TrainState
from autoseg.training.step import Step
from planners.labels import LabelScheme
from planners.plan import CCDiceCELoss, DiceCELoss, DiceFocalLoss, DiceTopKLoss, TverskyCELoss, UNetSpec

NETWORK = UNetSpec(
    features=(4, 8),
    strides=((1, 1), (2, 2)),
    kernels=((3, 3), (3, 3)),
    convs_per_stage=(1, 1),
    convs_per_decoder_stage=(1,),
)
LABELS = LabelScheme({"background": 0, "a": 1, "b": 2})
IGNORING = LabelScheme({"background": 0, "a": 1, "ignore": 2})
STEPS = 10
CASES = {  # name -> loss, labels, micro-batches, samples of a batch
    "batch dice": (DiceCELoss(batch_dice=True), LABELS, 1, 2),
    "batch dice, uneven, accumulated": (DiceCELoss(batch_dice=True), LABELS, 3, 7),
    "each sample, uneven, accumulated": (DiceCELoss(), LABELS, 2, 7),
    "batch tversky, uneven": (TverskyCELoss(batch_dice=True, exponent=0.75), LABELS, 1, 3),
    "top k, uneven": (DiceTopKLoss(percent=60), LABELS, 1, 3),
    "unknown voxels, focal, batch dice": (DiceFocalLoss(batch_dice=True), IGNORING, 1, 3),
    "unknown voxels, components, uneven": (CCDiceCELoss(), IGNORING, 1, 3),
}


def batch(number, size):
    """(inputs, labels) of a whole batch: samples that differ much in what they hold."""
    rng = np.random.default_rng(number)
    labels = (rng.random((size, 12, 12)) < 0.1 * np.arange(1, size + 1)[:, None, None]) * rng.integers(1, 3, (size, 12, 12))
    inputs = labels[:, None] + rng.normal(0, 0.5, (size, 1, 12, 12))
    return torch.from_numpy(inputs).float(), torch.from_numpy(labels)


def learned(name, ranks):
    """(weights after STEPS steps, losses of the steps, what a validation batch gives) on this rank."""
    spec, scheme, accumulation, size = CASES[name]
    network = build_network(NETWORK, 1, scheme.heads, 2, seed=3)
    state = TrainState(network, torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, nesterov=True))
    loss = segmentation_loss(spec, 1, scheme)
    coupled = loss.couples_samples
    step = Step(
        replace(loss, ranks=ranks) if coupled else loss,
        torch.device("cpu"),
        accumulation=accumulation,
        couples_samples=coupled,
        ranks=ranks,
        batch_size=size,
    )
    beside = target_regions(spec, scheme, (1.0, 1.0))

    def own(number):
        part = ranks.part(size)
        inputs, labels = (whole[part.start : part.stop] for whole in batch(number, size))
        if beside is None:
            return inputs, labels
        return inputs, (labels, torch.from_numpy(np.stack([beside(sample) for sample in labels.numpy()])))

    losses = [step(state, *own(number)).item() for number in range(STEPS)]
    found = evaluate(network, step, iter([own(99)]), PatchDice(scheme, ranks))
    return network.state_dict(), [*losses, found["validation_loss"], *found["dice"].values()]


def main(what, folder):
    torch.set_num_threads(1)
    with joined_ranks("cpu") as (ranks, _):
        for number, name in enumerate(CASES):
            weights, figures = learned(name, ranks)
            save_file({**weights, "figures": torch.tensor(figures)}, folder / f"{number}-{ranks.rank}.safetensors")
            if what == "kill" and ranks.rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
        assert ranks.any(ranks.rank == 1)
        assert not ranks.any(False)
        ranks.require_same([torch.ones(3)], "ones")
        try:
            ranks.require_same([torch.full((3,), 1.0 + ranks.rank)], "numbers")
        except Exception as error:
            (folder / f"differ-{ranks.rank}").write_text(f"{type(error).__name__}: {error}")
        if ranks.rank == 1:
            raise ZeroDivisionError("a bug of its own")
        ranks.any(False)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
