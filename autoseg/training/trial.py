"""Whether a batch fits into the device's memory, found before training starts; and into how many micro-batches to cut it where it does not.

On a GPU one real step is tried out. On a CPU, where the system kills a process that takes too much, an estimate is compared with what is
available. Either way a batch is cut into halves, then quarters and so on, so that the same room always gives the same answer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from autoseg.errors import ResourceError
from autoseg.networks.precision import Precision
from autoseg.resources import available_memory
from autoseg.training.distributed import ALONE, Ranks
from autoseg.training.state import TrainState
from autoseg.training.step import Step
from planners.memory import training_bytes
from planners.plan import Configuration

logger = logging.getLogger(__name__)

GB = 1e9
CPU_SHARE = 0.9
"""Share of the available memory that a step on the CPU may be estimated to take; the rest is for loaders and pages of files."""


LACK_OF_MEMORY = ("out of memory", "ALLOC_FAILED")
"""What errors say where memory is asked for beside torch's allocator: CUDA's own, cuBLAS's and cuDNN's handles and workspaces, NCCL's."""

OPTIMISER_COPIES = {"sgd": 1, "adamw": 2}
"""Numbers that an optimiser keeps for each weight from its first step on."""


def fit_into_memory(
    step: Step,
    state: TrainState,
    spec: Configuration,
    channels: int,
    heads: int,
    blank: Callable[[], tuple[Any, Any]],
    ranks: Ranks = ALONE,
) -> Step:
    """The step with so many micro-batches that the planned batch fits into its device's memory.

    Args:
        step: with as many as are asked for, or as the run was begun with; exchanges nothing with other ranks.
        state: what is to be trained; comes out as it went in.
        spec: the configuration, with the run's settings.
        channels: images' and, in a cascade, masks' channels.
        heads: the network's outputs a voxel.
        blank: makes inputs and targets like those of a batch, for the trial; what they hold does not matter.
        ranks: the processes that share each batch: each tries its own part, and all take the most micro-batches that one of them needs.

    Raises:
        ResourceError: see `settle_accumulation`.
    """

    def trial(parts: int) -> bool:
        inputs, targets = blank()
        cut = replace(step, accumulation=parts)
        copies = OPTIMISER_COPIES[spec.training.optimiser.kind]
        return try_out(lambda: cut.gradient(state, inputs, targets), state, step.device, optimiser_copies=copies)

    parts = settle_accumulation(
        len(ranks.part(spec.batch_size)),
        step.accumulation,
        step.device,
        estimate=lambda samples: step_bytes(spec, channels, heads, step.precision, samples),
        trial=trial,
        free=lambda device: free_memory(device) // (ranks.local_world if device.type == "cpu" else 1),
    )
    agreed = ranks.largest(parts)
    if agreed > parts:
        logger.warning("another rank has less memory: its part of the batch, and so every rank's, is computed in %d parts", agreed)
    return replace(step, accumulation=agreed)


def step_bytes(spec: Configuration, channels: int, heads: int, precision: Precision, samples: int) -> int:
    """Estimate of the memory that a training step takes with so many samples computed at once."""
    copies = 3 + OPTIMISER_COPIES[spec.training.optimiser.kind] + bool(spec.training.ema)  # weight, gradient, what kernels rearrange
    return training_bytes(
        spec.network,
        spec.patch_size,
        channels,
        heads,
        samples=samples,
        value_bytes=4 if precision == "fp32" else 2,
        weight_copies=copies,
    )


def settle_accumulation(
    batch: int,
    begun: int,
    device: torch.device,
    *,
    estimate: Callable[[int], int],
    trial: Callable[[int], bool],
    free: Callable[[torch.device], int] | None = None,
) -> int:
    """Into how many micro-batches a batch is cut so that a step fits into the device's memory.

    Args:
        batch: samples of a batch.
        begun: micro-batches that are asked for, or that the run was begun with; fewer are never taken.
        estimate: samples computed at once -> bytes that a step takes.
        trial: micro-batches -> whether a step that is tried out fits; asked on devices other than the CPU.
        free: the device -> bytes that are left on it; None: `free_memory`.

    Raises:
        ResourceError: not even one sample at a time fits; tells the estimate, what is free and the remedies.
    """
    begun = min(begun, batch)
    room = (free or free_memory)(device)

    def fits(parts: int) -> bool:
        return estimate(-(-batch // parts)) <= CPU_SHARE * room if device.type == "cpu" else trial(parts)

    parts = micro_batches(batch, begun, fits)
    if parts is None:
        raise ResourceError(_too_large(device, estimate(1), room))
    if parts != begun:
        logger.warning(
            "a batch of %d samples in %d parts does not fit into the %.1f GB that are free on %s: it is computed in %d parts. The batch "
            "stays the same, and but for rounding the result; run.json keeps the number",
            batch,
            begun,
            room / GB,
            device,
            parts,
        )
    return parts


def micro_batches(batch: int, begun: int, fits: Callable[[int], bool]) -> int | None:
    """The first of `begun`, 2 x `begun`, 4 x `begun` … up to `batch` parts that fits; None where not even single samples do."""
    parts = begun
    while not fits(parts):
        if parts >= batch:
            return None
        parts = min(2 * parts, batch)
    return parts


def try_out(gradient: Callable[[], Any], state: TrainState, device: torch.device, *, optimiser_copies: int = 0) -> bool:
    """Whether computing a gradient fits into the device's memory: it is computed and thrown away.

    Weights, buffers, the optimiser's memory, the loss scale and the random state are afterwards as they were.

    Args:
        gradient: leaves gradients at the state's parameters.
        optimiser_copies: numbers a weight that the optimiser will keep from its first step on; their room is held meanwhile, unless it
            has them already.
    """
    training = state.model.training
    buffers = [buffer.clone() for buffer in state.model.buffers()]
    held: list[Tensor] = []
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            if not state.optimiser.state:
                held = [torch.empty_like(weight) for weight in state.model.parameters() for _ in range(optimiser_copies)]
            state.model.train()
            gradient()
            fits = True
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            fits = False
        finally:
            held.clear()
            state.optimiser.zero_grad(set_to_none=True)
            state.model.train(training)
            with torch.no_grad():
                for buffer, before in zip(state.model.buffers(), buffers, strict=True):
                    buffer.copy_(before)
    if device.type == "cuda":
        torch.cuda.empty_cache()  # blocks cut for a batch that did not fit would be in the way of the next try
    return fits


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device had too little memory: told by torch's allocator, by CUDA itself, or by one of its libraries."""
    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in LACK_OF_MEMORY)


@contextmanager
def lack_of_memory(device: torch.device) -> Iterator[None]:
    """Context in which a device that runs out of memory during training, where the trial step had fitted, becomes a ResourceError."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0]
        raise ResourceError(
            f"{device} has run out of memory, though a step had fitted before training began: another program may have taken some since "
            f"({reason}). The same command goes on from the last epoch's checkpoint and tries again what fits; "
            "--set training.accumulation=N computes each batch in N parts"
        ) from error


def free_memory(device: torch.device) -> int:
    """Bytes that are left on a device."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else available_memory()


def _too_large(device: torch.device, needed: int, room: int) -> str:
    elsewhere = "take a machine with more memory" if device.type == "cpu" else "train with --device cpu"
    return (
        f"a training step does not fit into the memory of {device}, even with one sample at a time: it is estimated at {needed / GB:.1f} "
        f"GB, {room / GB:.1f} GB are free. Close what else takes memory there, plan for less with autoseg_plan --memory GB (and --replan "
        f"or another --name), plan with a smaller --preset, or {elsewhere}"
    )
