"""autoseg_train: train one fold, resume it, and predict its held-out cases."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autoseg.commands.entry import add_set_option, add_shared_options, at_least_one, parser, run
from autoseg.commands.several_gpus import add_gpus_option, run_in_ranks


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script."""
    options = parser(
        "autoseg_train", "Train a fold to its end and predict its held-out cases. An interrupted fold goes on where it stopped."
    )
    options.add_argument("fold", metavar="FOLD", help="a fold's number, a centre's name under loco, all, or two folds at once as 0+1")
    add_shared_options(options)
    options.add_argument(
        "-c", "--configuration", metavar="NAME", help="which configuration of the plan (default: 3d_fullres, 2d for 2-D data)"
    )
    options.add_argument(
        "--epochs", type=at_least_one, metavar="N", help="short for --set training.epochs=N; larger than before continues a finished fold"
    )
    options.add_argument("--iterations", type=at_least_one, metavar="N", help="iterations an epoch; short for --set training.iterations=N")
    options.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:i")
    add_gpus_option(options)
    options.add_argument(
        "--threads", type=at_least_one, metavar="N", help="compute threads on a CPU (default: all cores); kept on resuming"
    )
    options.add_argument(
        "--deterministic",
        action="store_true",
        help="CUDA kernels that give the same bits every time; short for --set training.deterministic=true (a CPU's always do)",
    )
    options.add_argument("--seed", type=int, metavar="N", help="short for --set training.seed=N")
    options.add_argument(
        "--tensorboard", action="store_true", help="also write the learning curve for TensorBoard (pip install 'autoseg[tensorboard]')"
    )
    options.add_argument(
        "--init", type=Path, metavar="MODEL", help="begin from a trained model (folder or zip) in place of random weights: fine-tuning"
    )
    options.add_argument(
        "--init-fold", metavar="FOLD", help="which of its folds (default: the one of the same name, else all, else the first)"
    )
    options.add_argument(
        "--init-despite-leak",
        action="store_true",
        help="begin from it though it was trained on cases that this fold holds out; they then count as not held out",
    )
    options.add_argument("--restart", action="store_true", help="forget what this fold has learned so far")
    add_set_option(options)
    options.set_defaults(given=list(sys.argv[1:] if arguments is None else arguments))
    sys.exit(run(_train, options, arguments))


def _train(parsed: argparse.Namespace) -> dict[str, Any] | None:
    def work() -> Any:
        from autoseg.training.segmentation import train

        return train(
            parsed.dataset,
            parsed.fold,
            configuration=parsed.configuration,
            epochs=parsed.epochs,
            iterations=parsed.iterations,
            settings=dict(parsed.settings) | ({"training.deterministic": True} if parsed.deterministic else {}),
            device=parsed.device,
            seed=parsed.seed,
            restart=parsed.restart,
            work=parsed.work,
            name=parsed.name,
            workers=parsed.workers,
            threads=parsed.threads,
            tensorboard=parsed.tensorboard,
            init=parsed.init,
            init_fold=parsed.init_fold,
            init_despite_leak=parsed.init_despite_leak,
        )

    result = run_in_ranks(parsed, "autoseg.commands.train", work)
    return None if result is None else {"folder": result.folder, "summary": result.summary}


if __name__ == "__main__":
    main()
