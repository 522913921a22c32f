"""Checkpoints: one file of tensors and JSON, no clock or host name in it, written atomically, verified on reading, two kept.

Layout: the safetensors format, whose metadata holds the JSON (schema, progress, hash). The SHA-256 covers every tensor's name, type,
shape and bytes and the JSON, because the format itself does not notice a flipped bit.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor

from autoseg import files
from autoseg.errors import CheckpointError
from autoseg.training.state import Chosen, Progress, TrainState

logger = logging.getLogger(__name__)

SCHEMA = "autoseg-checkpoint/1"
METADATA = "autoseg"
NAMES = ("checkpoint-a.safetensors", "checkpoint-b.safetensors")


def serialise(tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> bytes:
    """One file's bytes: the tensors, and the JSON document with its hash as metadata."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    text = json.dumps(document, sort_keys=True)
    # one key, because safetensors writes several in no fixed order
    return dump_tensors(plain, metadata={METADATA: json.dumps({"document": text, "sha256": _digest(plain, text)}, sort_keys=True)})


def deserialise(data: bytes, source: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, document) of such bytes.

    Raises:
        CheckpointError: not such a file, cut short, or its content does not match its hash.
    """
    try:
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][METADATA])
        tensors = load_tensors(data)
        document = json.loads(metadata["document"])
    except Exception as error:  # safetensors raises its own, undocumented types
        raise CheckpointError(f"{source}: is not a readable checkpoint ({type(error).__name__}: {error})") from None
    if _digest(dict(sorted(tensors.items())), metadata["document"]) != metadata.get("sha256"):
        raise CheckpointError(f"{source}: its content does not match its SHA-256: the file was damaged after it was written")
    return tensors, document


def save(folder: Path, state: TrainState) -> Path:
    """Writes the state over the older of the two checkpoints; the path written."""
    document = {"schema": SCHEMA, "progress": asdict(state.progress), "optimiser": _groups(state.optimiser)}
    if state.scaler is not None:
        document["scaler"] = state.scaler.state_dict()
    if state.chosen is not None:
        document["chosen"] = {"epoch": state.chosen.epoch, "score": state.chosen.score}
    path = folder / NAMES[state.progress.epoch % 2] if state.progress.iteration == 0 else _older(folder)
    files.write_bytes(path, serialise(_tensors(state), document))
    return path


def load(folder: Path, state: TrainState) -> bool:
    """Whether a checkpoint was found and put into `state`: the furthest one that is intact; a damaged newer one is reported.

    Raises:
        CheckpointError: there are checkpoints and none is intact.
    """
    found, problems = [], []
    for name in NAMES:
        path = folder / name
        if not path.exists():
            continue
        try:
            tensors, document = deserialise(path.read_bytes(), str(path))
            if document.get("schema") != SCHEMA:
                raise CheckpointError(f"{path}: schema is {document.get('schema')!r}, this release reads {SCHEMA!r}")
            found.append((Progress(**document["progress"]), tensors, document, path))
        except CheckpointError as error:
            problems.append(str(error))
    if not found:
        if problems:
            raise CheckpointError("no intact checkpoint is left: " + "; ".join(problems) + ". Start over with --restart")
        return False
    progress, tensors, document, path = max(found, key=lambda item: (item[0].epoch, item[0].iteration))
    for problem in problems:
        logger.warning("%s. Falling back to %s (epoch %d, iteration %d)", problem, path.name, progress.epoch, progress.iteration)
    _restore(state, tensors, document)
    state.progress = progress
    return True


def remove(folder: Path) -> None:
    """Deletes both checkpoints."""
    for name in NAMES:
        (folder / name).unlink(missing_ok=True)


def _older(folder: Path) -> Path:
    """Where a checkpoint in mid-epoch goes: over the one that is further behind, or over a damaged one."""
    standing = []
    for name in NAMES:
        path = folder / name
        if not path.exists():
            return path
        try:
            progress = deserialise(path.read_bytes(), str(path))[1]["progress"]
            standing.append((progress["epoch"], progress["iteration"], path))
        except CheckpointError:
            return path
    return min(standing)[2]


def _tensors(state: TrainState) -> dict[str, Tensor]:
    tensors = {f"model.{name}": tensor for name, tensor in state.model.state_dict().items()}
    if state.average is not None:
        tensors |= {f"average.{name}": tensor for name, tensor in state.average.model.state_dict().items()}
    if state.chosen is not None:
        tensors |= {f"chosen.{name}": tensor for name, tensor in state.chosen.weights.items()}
    for index, parameter in enumerate(_parameters(state.optimiser)):
        for key, value in state.optimiser.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"optimiser.{index}.{key}"] = value
    return tensors


def _restore(state: TrainState, tensors: dict[str, Tensor], document: dict[str, Any]) -> None:
    try:
        state.model.load_state_dict(_part(tensors, "model"))
        if state.average is not None:  # of a run that was begun without an average, it begins here
            state.average.model.load_state_dict(_part(tensors, "average") or _part(tensors, "model"))
    except RuntimeError as error:
        raise CheckpointError(f"the checkpoint does not fit the plan's network: {error}. Start over with --restart") from None
    if "chosen" in document:
        state.chosen = Chosen(**document["chosen"], weights=_part(tensors, "chosen"))
    memory: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimiser."):
            _, index, key = name.split(".", 2)
            memory.setdefault(int(index), {})[key] = tensor
    parameters = _parameters(state.optimiser)
    state.optimiser.state.clear()
    for index, values in memory.items():
        like = parameters[index]
        state.optimiser.state[like] = {key: torch.empty_like(like).copy_(v) if v.shape == like.shape else v for key, v in values.items()}
    for group, saved in zip(state.optimiser.param_groups, document["optimiser"], strict=True):
        group.update(saved)
    if state.scaler is not None and "scaler" in document:
        state.scaler.load_state_dict(document["scaler"])


def _part(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{part}."): tensor for name, tensor in tensors.items() if name.startswith(f"{part}.")}


def _parameters(optimiser: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]


def _groups(optimiser: torch.optim.Optimizer) -> list[dict[str, Any]]:
    plain = (bool, int, float, str, type(None))
    return [{k: v for k, v in group.items() if k != "params" and isinstance(v, plain)} for group in optimiser.param_groups]


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()
