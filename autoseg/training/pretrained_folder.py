"""What pretraining leaves: weights that `autoseg_train --init` begins from, with the plan that they belong to and a manifest.

plan.json  pretrained.json  model.safetensors  manifest.json
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from autoseg import files
from autoseg.errors import ModelError
from autoseg.inference import model_manifest as manifest
from autoseg.inference.model_documents import PLAN_NAME, WEIGHTS_NAME, parse_plan
from autoseg.inference.model_writing import json_bytes, pack_weights
from autoseg.inference.trained_on import TrainedOn, read_trained_on
from autoseg.networks.adaptation import Ends
from autoseg.training.weight_source import WeightSource, read_weights
from planners.plan import Plan, PlanInvalid

NAME = "pretrained.json"
SCHEMA = "autoseg-pretrained/1"
DOCUMENTS = (PLAN_NAME, NAME, WEIGHTS_NAME)


def write_pretrained(folder: Path, plan: Plan, configuration: str, cases: int, weights: Mapping[str, Tensor], seen: TrainedOn) -> None:
    """Puts a pretrained network in place; the folder's lock is held by whoever calls."""
    document = {"schema": SCHEMA, "configuration": configuration, "channels": list(plan.channels), "cases": cases}
    contents = {PLAN_NAME: plan.to_json().encode(), NAME: json_bytes(document), WEIGHTS_NAME: pack_weights(weights, seen)}
    there = [name for name in DOCUMENTS if (folder / name).exists()]
    manifest.replace_files(folder, manifest.settled(folder, there), contents)


def open_pretrained(folder: Path) -> WeightSource:
    """The pretrained weights in a folder, after its files were found intact.

    Raises:
        ModelError: a file is missing, damaged, or not what it should be.
    """
    entries = manifest.read_entries(folder)
    found = {name: manifest.damage(folder / name, entries.get(name)) for name in DOCUMENTS}
    problems = [f"{name} {problem}" for name, (_, problem) in found.items() if problem]
    if problems:
        raise ModelError(f"{folder}: not what {manifest.NAME} says: {'; '.join(problems)}. Copy the folder again")
    document = files.read_json(folder / NAME, error=ModelError)
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise ModelError(f"{folder / NAME}: 'schema' must be '{SCHEMA}'. This is not what autoseg_pretrain writes, or of another release")
    plan = parse_plan((folder / PLAN_NAME).read_bytes(), str(folder / PLAN_NAME))
    try:
        configuration = plan.configuration(str(document.get("configuration")))
    except PlanInvalid as error:
        raise ModelError(f"{folder / NAME}: {error}") from None
    path = folder / WEIGHTS_NAME
    ends = Ends(plan.channels, plan.channels, "none")
    return WeightSource(folder, "", found[WEIGHTS_NAME][0], read_weights(path), ends, configuration, plan.transpose, read_trained_on(path))
