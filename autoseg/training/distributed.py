"""Several processes (ranks), a GPU each, that train one network together: each takes some samples of every batch.

The planned batch is that of all ranks together. Every rank works out the whole batch's loss, because the sums in it run over all ranks,
but differentiates it with respect to its own samples only; so the sum of the ranks' gradients is the gradient of the batch, whatever
number of samples each rank has. Where torch.distributed averages gradients, ranks with unequal shares would weigh the same.

Started by torchrun, or by `launch`; a process that neither started is alone.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from autoseg.errors import AutosegError, DeviceError, TrainingError, WorkerError
from autoseg.networks.precision import choose_device
from autoseg.training.interrupt import Stopped

logger = logging.getLogger(__name__)

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""The environment by which torchrun tells a process its place."""

PREPARATION = timedelta(days=7)
"""How long ranks wait for rank 0 to prepare the cases. Should it die, the launcher ends them."""

PATIENCE = timedelta(hours=2)
"""How long a rank waits for the others in training: longer than anything that one does alone meanwhile (a compiler, a checkpoint on a slow
disk). One that has ended is noticed at once."""

LAST_WORD_SECONDS = 5.0
"""How long a rank that noticed another's end outlives it, so that the launcher finds that one first and tells its reason."""


class RankLost(WorkerError):
    """Another rank has ended, or does not answer; its own message tells why."""


@dataclass(frozen=True)
class Ranks:
    """The processes that share each batch, seen from one of them; the default is one that is alone, for which nothing is exchanged.

    Attributes:
        rank: which one this is, from 0. Rank 0 leads: it alone writes files.
        world: how many there are.
        local_world: how many of them are on this machine.
        patient: the process group for waiting while cases are prepared.
    """

    rank: int = 0
    world: int = 1
    local_world: int = 1
    patient: Any = None

    @property
    def leads(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def part(self, batch_size: int) -> range:
        """Which samples of a batch are this rank's: as even as can be, the first ranks more.

        >>> [list(Ranks(rank, 2).part(7)) for rank in range(2)]
        [[0, 1, 2, 3], [4, 5, 6]]

        Raises:
            TrainingError: there are fewer samples than ranks.
        """
        if batch_size < self.world:
            raise TrainingError(
                f"a batch of {batch_size} samples cannot be shared by {self.world} processes: start at most {batch_size}, "
                "or plan a larger batch (autoseg_plan --set batch_size=N --replan)"
            )
        each, more = divmod(batch_size, self.world)
        first = self.rank * each + min(self.rank, more)
        return range(first, first + each + (self.rank < more))

    def summed(self, x: Tensor) -> Tensor:
        """The sum of all ranks' tensors of one shape; its gradient goes to this rank's own, as it is."""
        return x if self.world == 1 else _Summed.apply(x)

    def mean(self, x: Tensor) -> Tensor:
        """The mean of all elements of all ranks' tensors, which may differ in size; its gradient goes to this rank's own."""
        if self.world == 1:
            return x.mean()
        return self.summed(x.sum()) / self.summed(torch.tensor(x.numel(), device=x.device))

    def joined(self, x: Tensor) -> Tensor:
        """All ranks' one-dimensional tensors of one length, one after the other; its gradient goes to this rank's own."""
        if self.world == 1:
            return x
        found = [torch.empty_like(x) for _ in range(self.world)]
        with _noticing_loss():
            dist.all_gather(found, x.detach().contiguous())
        found[self.rank] = x
        return torch.cat(found)

    def connect(self, parameters: Iterable[Tensor]) -> None:
        """Exchanges once as much as each step will, so that what the connections take of the devices' memory is taken from now on."""
        if self.world > 1:
            message = torch.cat([torch.zeros_like(p).reshape(-1) for p in parameters])
            with _noticing_loss():
                dist.all_reduce(message)

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replaces each parameter's gradient by the sum of all ranks'."""
        if self.world == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        together = torch.cat([gradient.reshape(-1) for gradient in gradients])  # one message in place of hundreds
        with _noticing_loss():
            dist.all_reduce(together)
        for gradient, whole in zip(gradients, together.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(whole.view_as(gradient))

    def largest(self, number: int) -> int:
        """The largest of all ranks' numbers."""
        if self.world == 1:
            return number
        value = torch.tensor(number)  # on the CPU, by gloo: does not wait for a GPU's work
        with _noticing_loss():
            dist.all_reduce(value, dist.ReduceOp.MAX)
        return int(value)

    def any(self, flag: bool) -> bool:
        """Whether any rank says so: all come to the same answer, at the same point."""
        return bool(self.largest(int(flag)))

    def require_same(self, tensors: Iterable[Tensor], what: str) -> None:
        """Raises TrainingError where these float32 tensors are not bit for bit the same on all ranks (by a sum of their bits)."""
        if self.world == 1:
            return
        with torch.no_grad():
            digest = int(sum(t.detach().reshape(-1).view(torch.int32).sum(dtype=torch.int64) for t in tensors))
        if self.largest(digest) != -self.largest(-digest):
            raise TrainingError(f"{what} differ between the ranks. Do all of them see the same folder? Run the same command again")

    def from_leader(self, thing: Any = None) -> Any:
        """What rank 0 gives: its own argument there; the others wait for it, for as long as it prepares."""
        if self.world == 1:
            return thing
        holder = [thing]
        with _noticing_loss():
            dist.broadcast_object_list(holder, src=0, group=self.patient)
        return holder[0]

    def dismiss(self) -> None:
        """Tells the other ranks, which wait for what rank 0 gives, that there is nothing to do."""
        self.from_leader(None)
        self.part_ways()

    def part_ways(self) -> None:
        """Waits until all ranks are here, and ends what joins them: from here on rank 0 works alone."""
        if self.world > 1 and dist.is_initialized():
            self.any(False)
            dist.destroy_process_group()


ALONE = Ranks()


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        whole = x.detach().clone()
        with _noticing_loss():
            dist.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


@contextmanager
def _noticing_loss() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # gloo's and NCCL's errors are of this type, with changing texts
        raise RankLost(f"this rank ends because another one has ended or does not answer ({str(error).splitlines()[0]})") from error


def rank_of_this_process() -> int:
    """This process's rank, by its environment; 0 where it is alone."""
    return int(os.environ["RANK"]) if launched() else 0


def launched() -> bool:
    """Whether torchrun, or `launch`, started this process as one of several."""
    return all(name in os.environ for name in VARIABLES) and int(os.environ["WORLD_SIZE"]) > 1


@contextmanager
def joined_ranks(device: str) -> Iterator[tuple[Ranks, torch.device]]:
    """Context in which this process is one of the ranks that torchrun started, or is alone; gives them and this rank's device.

    Ranks other than 0 log errors only: what all of them know, rank 0 tells. What ends a rank is told with its traceback, unless it is a
    user's to mend, and kept for torchrun's report.

    Args:
        device: "auto", "cpu" or "cuda", where each rank takes the GPU of its local number; alone also "cuda:i".

    Raises:
        DeviceError: it is not there.
    """
    if not launched():
        yield ALONE, _made_current(choose_device(device))
        return
    rank, world, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    package = logging.getLogger("autoseg")
    level = package.level
    if rank > 0:
        package.setLevel(logging.ERROR)
    try:
        where = _made_current(_device_of_rank(device, local, world))
        dist.init_process_group("cpu:gloo,cuda:nccl" if where.type == "cuda" else "gloo", timeout=PATIENCE)
        patient = dist.new_group(backend="gloo", timeout=PREPARATION)
        yield Ranks(rank, world, int(os.environ.get("LOCAL_WORLD_SIZE", world)), patient), where
        if dist.is_initialized():
            dist.destroy_process_group()
    except RankLost:
        with suppress(KeyboardInterrupt):
            time.sleep(LAST_WORD_SECONDS)
        raise
    except (Exception, KeyboardInterrupt) as error:
        _leave_word(error, rank)
        raise
    finally:
        package.setLevel(level)


def _leave_word(error: BaseException, rank: int) -> None:
    if isinstance(error, Stopped | KeyboardInterrupt):
        return
    if not isinstance(error, AutosegError):
        logger.error("rank %d:", rank, exc_info=error)
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    with suppress(OSError):
        get_error_handler().record_exception(error)


def _device_of_rank(name: str, local: int, world: int) -> torch.device:
    if ":" in name:
        raise DeviceError(f"--device {name}: {world} processes train together, each on the GPU of its number. Give auto, cuda or cpu")
    device = choose_device(name)
    return choose_device(f"cuda:{local}") if device.type == "cuda" else device


def _made_current(device: torch.device) -> torch.device:
    """The device, to which what names none goes from now on: else pinned memory would open a context on GPU 0, whoever uses that."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


@contextmanager
def lost_ranks(stopping: Callable[[], bool]) -> Iterator[None]:
    """Context in which the end of another rank becomes `Stopped` where training is being stopped anyway."""
    try:
        yield
    except RankLost:
        if not stopping():
            raise
        raise Stopped("stopped; training goes on from the checkpoint of its last epoch") from None
