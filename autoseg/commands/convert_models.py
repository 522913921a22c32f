"""The kinds of autoseg_convert that pass models on: one zip out and in, and ONNX."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_model_kinds(kinds: Any) -> None:
    """Adds export-model, import-model and onnx to the kinds of autoseg_convert."""
    exported = _kind(
        kinds,
        "export-model",
        "pack a model into one zip, with the SHA-256 of every file",
        "Pack a model folder's documents and weights into one zip that autoseg_predict -m and import-model read.",
    )
    _add_model(exported, "a model folder, a zip of one, or the chosen.json of autoseg_choose with all models that it names")
    exported.add_argument("output", type=Path, metavar="OUT.zip", help="the archive to write; nothing is replaced")
    exported.add_argument(
        "--metadata",
        dest="settings",
        action="append",
        default=[],
        type=_field,
        metavar="FIELD=TEXT",
        help="what only the model's authors know: version, description, authors, copyright, license, data_source or references",
    )
    imported = _kind(
        kinds,
        "import-model",
        "unpack a model that was received as a zip, whole or not at all",
        "Check an archive of a model, and unpack it into a new model folder only if everything in it is in order.",
    )
    imported.add_argument("archive", type=Path, metavar="FILE.zip", help="the archive")
    imported.add_argument("output", type=Path, metavar="FOLDER", help="the model folder to make; nothing is replaced")
    onnx = _kind(
        kinds,
        "onnx",
        "write a model's networks as ONNX, with a contract of all that goes before and after them",
        "Write each fold's network of one patch as ONNX, checked with onnxruntime, and a contract from which the whole prediction can be "
        "rebuilt without autoseg. Needs the extra onnx.",
    )
    _add_model(onnx)
    onnx.add_argument("output", type=Path, metavar="OUT", help="the folder to make; nothing is replaced")


def _kind(kinds: Any, name: str, short: str, description: str) -> argparse.ArgumentParser:
    kind: argparse.ArgumentParser = kinds.add_parser(name, help=short, description=description)
    kind.add_argument("--verbose", action="store_true", help="tell more, and show the traceback of an error")
    kind.add_argument("--json", type=Path, metavar="FILE", help="also write the result to FILE as JSON")
    return kind


def _add_model(kind: argparse.ArgumentParser, what: str = "a model folder, or a zip of one") -> None:
    kind.add_argument("model", type=Path, metavar="MODEL", help=what)
    kind.add_argument("-f", "--folds", nargs="+", metavar="FOLD", help="which folds (default: all finished ones)")


def _field(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not value.strip():
        raise argparse.ArgumentTypeError(f"must be FIELD=TEXT, found {text!r}")
    return name.strip(), value.strip()


def _export(parsed: argparse.Namespace) -> dict[str, Any]:
    from autoseg.inference.model_exchange import export_model

    result = export_model(parsed.model, parsed.output, folds=parsed.folds, settings=dict(parsed.settings))
    print(result.text())
    return result.to_dict()


def _import(parsed: argparse.Namespace) -> dict[str, Any]:
    from autoseg.inference.model_exchange import import_model

    result = import_model(parsed.archive, parsed.output)
    print(result.text())
    return result.to_dict()


def _onnx(parsed: argparse.Namespace) -> dict[str, Any]:
    from autoseg.inference.onnx_export import export_onnx

    result = export_onnx(parsed.model, parsed.output, folds=parsed.folds)
    print(result.text())
    return result.to_dict()


RUN_MODELS = {"export-model": _export, "import-model": _import, "onnx": _onnx}
