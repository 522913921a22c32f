"""prognosis: from masks and a clinical table to models, predictions and what may be said of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from autoseg.commands.entry import parser, run
from prognosis.commands import challenge, features, fit, predict, report, stage

SUBCOMMANDS = {"features": features, "fit": fit, "stage": stage, "predict": predict, "report": report, "challenge": challenge}
"""Each module adds its options (`add`) and does the work (`call`); none imports anything heavy before `call`."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script."""
    options = parser("prognosis", "Recurrence-free survival, HPV status and other targets from masks and a clinical table.")
    subcommands = options.add_subparsers(dest="subcommand", metavar="SUB", required=True)
    for module in SUBCOMMANDS.values():
        module.add(subcommands)
    for subparser in subcommands.choices.values():
        subparser.epilog, subparser.formatter_class = options.epilog, options.formatter_class
    sys.exit(run(lambda parsed: SUBCOMMANDS[parsed.subcommand].call(parsed), options, arguments))


if __name__ == "__main__":
    main()
