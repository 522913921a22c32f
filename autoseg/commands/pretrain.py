"""autoseg_pretrain: a network learns from images without labels, to be fine-tuned with autoseg_train --init."""

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
        "autoseg_pretrain",
        "Pretrain a plan's network on the dataset's images without labels (imagesUn, and those of imagesTr without a mask) as a masked "
        "autoencoder. An interrupted run goes on where it stopped.",
    )
    add_shared_options(options)
    options.add_argument(
        "-c", "--configuration", metavar="NAME", help="which configuration of the plan (default: 3d_fullres, 2d for 2-D data)"
    )
    options.add_argument("--images", nargs="+", type=Path, default=[], metavar="DIR", help="further folders of images to learn from")
    options.add_argument(
        "--with-fold", metavar="FOLD", help="learn from this fold's training images too; the result is for that fold alone"
    )
    options.add_argument("--epochs", type=at_least_one, metavar="N", help="short for --set pretraining.epochs=N")
    options.add_argument("--iterations", type=at_least_one, metavar="N", help="short for --set pretraining.iterations=N")
    options.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:i")
    add_gpus_option(options)
    options.add_argument(
        "--threads", type=at_least_one, metavar="N", help="compute threads on a CPU (default: all cores); kept on resuming"
    )
    options.add_argument("--seed", type=int, metavar="N", help="short for --set training.seed=N")
    options.add_argument("--restart", action="store_true", help="forget what was pretrained so far")
    add_set_option(options, "pretraining.masked_share=0.6")
    options.set_defaults(given=list(sys.argv[1:] if arguments is None else arguments))
    sys.exit(run(_pretrain, options, arguments))


def _pretrain(parsed: argparse.Namespace) -> dict[str, Any] | None:
    def work() -> Any:
        from autoseg.training.pretraining import pretrain

        return pretrain(
            parsed.dataset,
            configuration=parsed.configuration,
            images=parsed.images,
            with_fold=parsed.with_fold,
            epochs=parsed.epochs,
            iterations=parsed.iterations,
            settings=dict(parsed.settings),
            device=parsed.device,
            seed=parsed.seed,
            restart=parsed.restart,
            work=parsed.work,
            name=parsed.name,
            workers=parsed.workers,
            threads=parsed.threads,
        )

    result = run_in_ranks(parsed, "autoseg.commands.pretrain", work)
    return None if result is None else {"folder": result.folder, "cases": result.cases, "errors": result.errors}


if __name__ == "__main__":
    main()
