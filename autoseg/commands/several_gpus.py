"""What commands share that train in several processes, a GPU each."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from autoseg.commands.entry import INTERRUPTED, at_least_one


def add_gpus_option(options: argparse.ArgumentParser) -> None:
    """--gpus N; `run_in_ranks` needs the arguments too, as `given`."""
    options.add_argument(
        "--gpus",
        type=at_least_one,
        default=1,
        metavar="N",
        help="share each batch among N processes, a GPU each; with --device cpu so many without (default: 1)",
    )


def run_in_ranks(parsed: argparse.Namespace, module: str, work: Callable[[], Any]) -> Any:
    """What `work` returns, told to the user; None in a process that is not to tell anything.

    Args:
        parsed: with `gpus`, `device`, `given` (the command's arguments) and `json`.
        module: the command's, which is started in each of the processes where several are asked for.
        work: trains in this process, alone or as one of the ranks; None on ranks other than 0, else it has a `text`.
    """
    from autoseg.training.distributed import RankLost, launched, rank_of_this_process

    if parsed.gpus > 1 and not launched():
        return _start_ranks(parsed, module)
    from autoseg.training.interrupt import Stopped

    try:
        result = work()
    except RankLost:
        parsed.json = None  # the rank that ended first writes why
        raise
    except Stopped:
        if rank_of_this_process() > 0:  # rank 0 says it
            sys.exit(INTERRUPTED)
        raise
    if result is None:
        parsed.json = None
    else:
        print(result.text())
    return result


def _start_ranks(parsed: argparse.Namespace, module: str) -> None:
    from autoseg.training.launch import launch, require_gpus

    require_gpus(parsed.gpus, parsed.device)
    status = launch(parsed.gpus, ["-m", module, *parsed.given])
    parsed.json = None  # rank 0, or the one that failed, has written it
    if status:
        sys.exit(status)
