"""A model's networks as ONNX files with the contract of all that goes before and after them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg import files
from autoseg.errors import AutosegError, ModelError
from autoseg.inference.model_documents import FOLD_PREFIX, PREVIOUS_NAME
from autoseg.inference.model_folder import ModelFolder
from autoseg.inference.model_metadata import INTENDED_USE

if TYPE_CHECKING:
    from torch import nn

CONTRACT_NAME, PAGE_NAME = "contract.json", "contract.md"
TOLERANCE = 1e-4
"""How far onnxruntime's logits may lie from torch's, as a share of the largest logit (of 1 where that is smaller). Measured: 2e-6."""


@dataclass(frozen=True)
class OnnxExport:
    """The networks that were written. `networks`: as the contract lists them."""

    folder: Path
    networks: tuple[dict[str, Any], ...]

    def text(self) -> str:
        """For a person."""
        lines = [
            f"{self.folder / network['file']}: largest difference to torch {network['largest_difference']:.1e} at logits up to "
            f"{network['largest_logit']:.3g}"
            for network in self.networks
        ]
        return "\n".join([*lines, f"what goes before and after: {self.folder / PAGE_NAME}, {CONTRACT_NAME}", INTENDED_USE])

    def to_dict(self) -> dict[str, Any]:
        """For a machine."""
        return {"folder": str(self.folder), "networks": list(self.networks)}


def export_onnx(model: str | Path, folder: str | Path, *, folds: Iterable[str | int] | None = None) -> OnnxExport:
    """Writes each fold's network of one patch as ONNX (float32, free batch), and the contract, into a new folder: all or nothing.

    Each file is read back by onnxruntime, and its logits for one patch of random numbers are compared with torch's.

    Args:
        model: a model folder, or an archive of one.
        folder: must not be there, or be empty.
        folds: None means all finished ones.

    Raises:
        AutosegError: the extra `onnx` is not installed, or the folder is there already.
        ModelError: the model is damaged, continues from a previous stage, segments together with others or by rules, has an operation that
            is not translated, or the logits differ.
    """
    _require_onnx()
    from autoseg.inference.onnx_contract import contract, markdown

    opened = ModelFolder.open(model, folds)
    if opened.configuration.previous_stage:
        raise ModelError(
            f"{model}: {opened.dataset.configuration} continues from the masks of {opened.configuration.previous_stage}; the "
            f"contract tells of one stage. Export a model that starts from the images, such as the first stage: {model}/{PREVIOUS_NAME}"
        )
    if opened.ensemble is not None:
        raise ModelError(
            f"{model}: segments by {opened.ensemble.text()}; the contract tells of one model. Export each model by itself, from its "
            "own folder"
        )
    with files.new_folder(folder) as fresh:
        networks = tuple(_write_network(opened, fold, fresh) for fold in opened.folds)
        document = contract(opened.plan, opened.dataset, networks, TOLERANCE)
        files.write_json(fresh / CONTRACT_NAME, document)
        files.write_text(fresh / PAGE_NAME, markdown(document))
    return OnnxExport(Path(folder), networks)


def largest_difference(network: nn.Module, data: bytes, channels: int, patch: Iterable[int]) -> tuple[float, float]:
    """(how far onnxruntime's logits lie from torch's at most, the largest logit) for one patch of standard normal numbers.

    Args:
        network: in evaluation mode, on the CPU.
        data: the ONNX file of the same network.
    """
    import numpy as np
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).standard_normal((1, channels, *patch), dtype=np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(image)).numpy()
    (found,) = session.run(None, {session.get_inputs()[0].name: image})
    difference = np.abs(found - expected)
    return float(difference.max()) if np.isfinite(difference).all() else float("inf"), float(np.abs(expected).max())


def _write_network(opened: ModelFolder, fold: str, folder: Path) -> dict[str, Any]:
    from autoseg.inference.onnx_graph import onnx_model

    network = opened.load_network(fold)
    channels, patch = opened.plan.input_channels(opened.dataset.configuration), opened.configuration.patch_size
    facts = {"model": opened.dataset.name, "fold": fold, "weights_sha256": opened.hashes[fold], "intended_use": INTENDED_USE}
    data = onnx_model(network, channels, patch, name=f"{FOLD_PREFIX}{fold}", facts=facts).SerializeToString()
    difference, largest = largest_difference(network, data, channels, patch)
    if not difference <= TOLERANCE * max(1.0, largest):
        raise ModelError(
            f"{opened.folder}: fold {fold} gives other logits in onnxruntime than in torch: they differ by {difference:.1e} at logits up "
            f"to {largest:.3g}; {TOLERANCE:g} of that is allowed. Nothing was written; report it with the versions of both"
        )
    name = f"{FOLD_PREFIX}{fold}.onnx"
    files.write_bytes(folder / name, data)
    return {
        "file": name,
        "fold": fold,
        "sha256": hashlib.sha256(data).hexdigest(),
        "largest_difference": difference,
        "largest_logit": largest,
    }


def _require_onnx() -> None:
    missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise AutosegError(f"exporting to ONNX needs {' and '.join(missing)}. Install the extra: pip install 'autoseg[onnx]'")
