"""Starting a training on several GPUs of this machine, by torch's own launcher."""

from __future__ import annotations

import logging
import secrets
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from autoseg.errors import DeviceError, WorkerError


def launch(processes: int, command: Sequence[str]) -> int:
    """The exit status of `python COMMAND`, run in so many processes that are the ranks of one training; 130 where it was interrupted.

    The first rank that fails ends all of them. A signal to this process goes on to them; those that do not end within
    TORCH_ELASTIC_SHUTDOWN_TIMEOUT seconds (30) are killed.

    Raises:
        WorkerError: a rank was killed by a signal, which it cannot tell of itself.
    """
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    _quiet()
    with _own_signal_handlers(), tempfile.TemporaryDirectory(prefix="autoseg-ranks-") as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=secrets.token_hex(8),
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,  # a restart would hide the reason; the same command again goes on from the checkpoint
            monitor_interval=0.1,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            elastic_launch(config, sys.executable)(*command)
        except SignalException:
            return 130
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            if failure.exitcode >= 0:
                return failure.exitcode
            raise WorkerError(
                f"rank {rank} (process {failure.pid}) was killed by {signal.Signals(-failure.exitcode).name}, and the others were ended. "
                "Most often the system kills for lack of memory: close other programs, or start fewer ranks or --workers. Training goes on "
                "from its last checkpoint with the same command"
            ) from None
    return 0


def require_gpus(processes: int, device: str) -> None:
    """Raises DeviceError unless this machine has a GPU for each of so many processes; on the CPU any number will do."""
    if device == "cpu":
        return
    import torch

    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if processes > found:
        raise DeviceError(
            f"--gpus {processes}: this machine shows {found} CUDA devices to torch. Give at most so many, or --device cpu for processes "
            "without a GPU"
        )


@contextmanager
def _own_signal_handlers() -> Iterator[None]:
    """Context after which the handlers of signals that the launcher takes are again what they were."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    taken = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)}
    try:
        yield
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)


def _quiet() -> None:
    """Silences the launcher's own account of a failure: the rank that failed has told its reason."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(("torch.distributed.elastic", "torch.distributed.launcher")):
            logging.getLogger(name).setLevel(logging.CRITICAL)
