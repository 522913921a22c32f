"""What every command shares: its options, its log, its exit status. Imports nothing heavy, so that --help answers at once.

Exit status: 0 done, 2 the input is wrong, 3 some cases failed and the rest is done, 1 anything else, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

RESEARCH_ONLY = "For research use only; not a medical device."
INTERRUPTED = 130


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Tells a default only where there is one and the text does not tell it."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        none = action.default is None or action.default is False or action.default == []  # 0 is a default
        if none or "default" in (action.help or ""):
            return action.help
        return super()._get_help_string(action)


def parser(program: str, description: str) -> argparse.ArgumentParser:
    """A parser whose --help ends with the research-use line."""
    return argparse.ArgumentParser(prog=program, description=description, epilog=RESEARCH_ONLY, formatter_class=_Help)


def add_shared_options(options: argparse.ArgumentParser, *, dataset: bool = True, several_plans: bool = False) -> None:
    """The options that every command has; with `several_plans`, --name takes a list."""
    if dataset:
        options.add_argument("-d", "--dataset", type=Path, default=Path("."), metavar="DIR", help="the dataset folder")
        options.add_argument("--work", type=Path, metavar="DIR", help="where everything is written (default: DIR/autoseg-work)")
        if several_plans:
            options.add_argument("--name", nargs="+", default=["default"], metavar="PLAN", help="the plans' names (default: default)")
        else:
            options.add_argument("--name", default="default", metavar="PLAN", help="the plan's name; several live side by side")
    options.add_argument(
        "--workers", type=_count, metavar="N", help="worker processes; 0 = everything in this process (default: by the cores)"
    )
    options.add_argument("--verbose", action="store_true", help="tell more, and show the traceback of an error")
    options.add_argument("--json", type=Path, metavar="FILE", help="also write the result to FILE as JSON")


def add_segmentation_options(options: argparse.ArgumentParser, default: str = "3d_fullres, 2d for 2-D data") -> None:
    """What a command needs that segments new images: what is read, by which model, and how; `default`: what is used without -c."""
    options.add_argument(
        "-i",
        "--input",
        nargs="+",
        type=Path,
        required=True,
        metavar="IN",
        help="a folder in the dataset's channel naming, or the files of one case",
    )
    options.add_argument(
        "-m", "--model", type=Path, metavar="MODEL", help="a model folder, a zip of one, or a chosen.json (default: the dataset's own)"
    )
    options.add_argument(
        "-c",
        "--configuration",
        metavar="NAME",
        help=f"which configuration of the plan (default: {default})",
    )
    options.add_argument("-f", "--folds", nargs="+", metavar="FOLD", help="which folds to ensemble (default: all finished ones)")
    options.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:i")
    options.add_argument(
        "--precision", choices=("fp32", "bf16", "fp16"), help="of the network's arithmetic (default: by what the device can do)"
    )
    options.add_argument("--no-mirroring", action="store_true", help="no test-time flips: up to eight times faster")
    options.add_argument(
        "--step", type=float, metavar="SHARE", help="step of the sliding window as a share of the patch (default: the plan's, 0.5)"
    )
    options.add_argument(
        "--resume", action="store_true", help="skip cases that are already predicted by the same model from the same files"
    )
    options.add_argument(
        "--replace-nonfinite",
        action="store_true",
        help="replace NaN and Inf voxels by the image's minimum, and say so, instead of refusing",
    )


def add_set_option(options: argparse.ArgumentParser, example: str = "training.epochs=50") -> None:
    """--set KEY=VALUE, as often as wanted."""
    options.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        type=_setting,
        metavar="KEY=VALUE",
        help=f"replace a field of the plan, e.g. {example}; once for each field",
    )


def run(main: Callable[[argparse.Namespace], Any], options: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> int:
    """The exit status of a command: parses, runs, reports.

    Args:
        main: does the work; what it returns is written to --json.
    """
    parsed = options.parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)  # so that what is half-written is cleaned up, as for Ctrl-C
    _start_log(parsed.verbose)
    from autoseg.errors import AutosegError

    try:
        result = main(parsed)
        _write_json(parsed.json, {"status": 0, "result": result})
        return 0
    except AutosegError as error:
        return _failed(parsed, error, error.exit_status)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except MemoryError as error:
        return _failed(parsed, RuntimeError(f"out of memory: {error}. Close other programs, or use a machine with more memory"), 1)
    except Exception as error:
        if type(error).__name__ == "Stopped":
            sys.stderr.write(f"{error}\n")
            return INTERRUPTED
        return _failed(parsed, error, 1)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _failed(parsed: argparse.Namespace, error: Exception, status: int) -> int:
    if parsed.verbose:
        logging.getLogger(__name__).error("", exc_info=error)
    known = status in {2, 3} or type(error).__module__.startswith("autoseg")
    name = "" if known else f"{type(error).__name__}: "
    sys.stderr.write(f"error: {name}{getattr(error, 'brief', '') or error}\n")
    if not known and not parsed.verbose:
        sys.stderr.write("(run again with --verbose for the traceback)\n")
    details: dict[str, Any] = {"status": status, "error": str(error), "kind": type(error).__name__}
    if hasattr(error, "failures"):
        details["failures"] = list(error.failures)
    if getattr(error, "result", None) is not None:
        details["result"] = error.result
    try:
        _write_json(parsed.json, details)
    except Exception as second:
        sys.stderr.write(f"error: {parsed.json}: {second}\n")
    return status


def _write_json(path: Path | None, value: Any) -> None:
    if path is not None:
        from autoseg import files

        files.write_text(path, json.dumps(value, indent=1, default=str) + "\n")


def _start_log(verbose: bool) -> None:
    """Line-buffered output, the log on standard error."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s", stream=sys.stderr, force=True)
    for package in ("autoseg", "planners", "prognosis"):
        logging.getLogger(package).setLevel(logging.DEBUG if verbose else logging.INFO)


def at_least_one(text: str) -> int:
    """A whole number of an option that makes no sense below 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, found {text}")
    return value


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number, 0 or more, found {text!r}")
    return int(text)


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"must be KEY=VALUE, found {text!r}")
    try:
        return key.strip(), json.loads(value)
    except ValueError:
        return key.strip(), value
