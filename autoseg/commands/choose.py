"""autoseg_choose: which trained configuration, or which two together, segment new images, and what is done to their masks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from autoseg.commands.entry import add_shared_options, parser, run


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script."""
    options = parser(
        "autoseg_choose",
        "Compare the trained configurations and their pairs on the cases that they had not learned from, choose one, find its "
        "postprocessing, and write what autoseg_predict uses from then on.",
    )
    add_shared_options(options, several_plans=True)
    options.add_argument("-c", "--configuration", nargs="+", metavar="NAME", help="compare only these (default: all with a finished fold)")
    options.add_argument("--no-pairs", action="store_true", help="no averaged probabilities of two: nothing is predicted anew")
    options.add_argument("--no-postprocessing", action="store_true", help="look for no rules of postprocessing")
    options.add_argument("--take", metavar="CANDIDATE", help="take this one, such as 2d+3d_fullres, whatever the rule says")
    options.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:i; for the pairs")
    sys.exit(run(_choose, options, arguments))


def _choose(parsed: argparse.Namespace) -> dict[str, Any]:
    from autoseg.choosing.choose import choose

    result = choose(
        parsed.dataset,
        names=parsed.name,
        work=parsed.work,
        configurations=parsed.configuration,
        pairs=not parsed.no_pairs,
        postprocessing=not parsed.no_postprocessing,
        take=parsed.take,
        device=parsed.device,
        workers=parsed.workers,
    )
    print(result.text())
    return result.to_dict()


if __name__ == "__main__":
    main()
