"""How the device computes a network: compiled or as written, by its fastest kernels or by those that give the same bits every time."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import torch

from autoseg.training.state import TrainState
from autoseg.training.step import Step, call_network
from autoseg.training.trial import OPTIMISER_COPIES, try_out
from planners.plan import Training

logger = logging.getLogger(__name__)

COMPILED = "compiled"
EAGER = "eager"
OLDEST_CAPABILITY = (7, 0)
"""CUDA capability from which on Triton, which compiled networks need, makes kernels."""


def why_eager(training: Training, device: torch.device, *, platform: str = sys.platform) -> str:
    """Why a network is not to be compiled on a device; empty where it is to be tried."""
    if training.compile is False:
        return "training.compile is false"
    if training.deterministic:
        return "a compiler may choose kernels by timing them, and training.deterministic is set"
    if training.compile == "auto":
        if device.type != "cuda":
            return "training.compile is auto, which compiles for CUDA only"
        if platform == "win32":
            return "training.compile is auto, which does not compile on Windows"
        if torch.cuda.get_device_capability(device) < OLDEST_CAPABILITY:
            return "training.compile is auto, and the GPU is older than CUDA capability 7.0"
    return ""


def compiled_where_possible(
    step: Step,
    state: TrainState,
    training: Training,
    blank: Callable[[], tuple[Any, Any]],
    compiler: Callable[..., Callable[..., Any]] = torch.compile,
) -> tuple[Step, str]:
    """(the step with the network compiled, "compiled"); where that cannot be, (the step as it is, "eager: REASON"), and the reason is told.

    A compiler does its work at the first call, and fails there: so a gradient and a judgement of a whole batch are tried out now. Weights,
    their names and all else in `state` stay as they are, since it is the call that is compiled and not the network.

    Args:
        step: exchanges nothing with other ranks.
        state: what is to be trained.
        blank: makes inputs and targets like those of a batch.
        compiler: torch.compile, or what stands in for it.
    """
    reason = why_eager(training, step.device)
    if not reason:
        logger.info("compiling the network: takes some minutes")
        try:
            candidate = replace(step, call=compiler(call_network, dynamic=False))
            copies = OPTIMISER_COPIES[training.optimiser.kind]
            if try_out(lambda: _use(candidate, state, *blank()), state, step.device, optimiser_copies=copies):
                return candidate, COMPILED
            reason = "the compiled step does not fit into the memory"
        except Exception as error:  # compilers raise all kinds
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "") or type(error).__name__
    if training.compile is True or step.device.type == "cuda":
        logger.warning("the network is not compiled, which changes nothing but the speed: %s", reason)
    return step, f"{EAGER}: {reason}"


def _use(step: Step, state: TrainState, inputs: Any, targets: Any) -> None:
    step.gradient(state, inputs, targets)
    step.outputs(state.judged, inputs)


@contextmanager
def cuda_kernels(choice: Literal["fastest", "deterministic"], device: torch.device) -> Iterator[None]:
    """Context in which CUDA takes kernels that give the same bits every time, or those that were fastest when first timed.

    Where an operation has no deterministic kernel, torch warns and goes on. On a CPU nothing changes: there training is exact anyway.
    """
    if device.type != "cuda":
        yield
        return
    deterministic = choice == "deterministic"
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA's matrix library is first used
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.backends.cudnn.benchmark = not deterministic
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = benchmark
