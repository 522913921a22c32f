"""prognosis challenge: the entry point of a container for the HECKTOR challenges."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

EDITIONS = ("2025", "2026")
OUTPUTS = ("mask", "rfs", "hpv", "t-stage", "n-stage")


def add(subparsers: Any) -> None:
    """Adds `challenge` to the subcommands of `prognosis`."""
    text = "Predict the one patient of a challenge's input folder and write what its rules ask for; needs no network."
    options = subparsers.add_parser("challenge", help=text, description=text)
    options.add_argument("--edition", choices=EDITIONS, required=True, help="of HECKTOR")
    options.add_argument("--input", type=Path, default=Path("/input"), metavar="DIR", help="with images/ct, images/pet and ehr.json")
    options.add_argument("--output", type=Path, default=Path("/output"), metavar="DIR", help="where the outputs go")
    options.add_argument(
        "--models", type=Path, default=Path("/opt/ml/model"), metavar="DIR", help="with segmentation and prognosis/TARGET/model.json"
    )
    options.add_argument("--sense", choices=("risk", "time"), help="what rfs.json is to hold; needed where it is asked for")
    options.add_argument(
        "--outputs", nargs="+", choices=OUTPUTS, metavar="NAME", help=f"which of {', '.join(OUTPUTS)} (default: the edition's)"
    )
    options.add_argument(
        "--onto",
        metavar="CT|PT|MM[,MM,MM]",
        help="the grid that the networks were trained on (default: as models/import.json says, else CT)",
    )
    options.add_argument(
        "--fallback",
        action="store_true",
        help="where a model does not speak of this patient, write what it says of one of whom nothing is known, and say so",
    )
    options.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:i")
    options.add_argument("--no-mirroring", action="store_true", help="no test-time flips: up to eight times faster")
    options.add_argument("--step", type=float, metavar="SHARE", help="step of the sliding window as a share of the patch")
    options.add_argument("--verbose", action="store_true", help="tell more, and show the traceback of an error")
    options.add_argument("--json", type=Path, metavar="FILE", help="also write the result to FILE as JSON")


def call(parsed: argparse.Namespace) -> dict[str, Any]:
    """Writes the outputs, prints what became of each, and returns it for --json.

    Raises:
        OutputsMissing: some could not be made; the others are written.
    """
    from autoseg.commands.entry import RESEARCH_ONLY
    from prognosis.challenge.run import Settings, run_challenge
    from prognosis.errors import OutputsMissing

    settings = Settings(
        parsed.models,
        sense=parsed.sense,
        onto=parsed.onto,
        fallback=parsed.fallback,
        device=parsed.device,
        mirroring=not parsed.no_mirroring,
        step=parsed.step,
    )
    result = run_challenge(parsed.edition, parsed.input, parsed.output, settings, parsed.outputs)
    for output in result.outputs:
        print(output.text())
    print(RESEARCH_ONLY)
    if result.missing:
        raise OutputsMissing(result.missing, result.to_dict())
    return result.to_dict()
