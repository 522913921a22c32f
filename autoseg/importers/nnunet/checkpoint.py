"""nnU-Net's checkpoints, read without running anything that stands in them.

A .pth file is a pickle. torch's restricted unpickler makes tensors, containers, numbers and texts of it and nothing else; beside these, a
checkpoint holds numpy numbers in its training log, which nobody needs here: their types stand on a short list and become empty objects.
A file that asks for any other type is refused, and that type is named.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg.errors import ModelError
from autoseg.importers.nnunet.section import Section

if TYPE_CHECKING:
    from torch import Tensor

CHECKPOINTS = {"final": "checkpoint_final.pth", "best": "checkpoint_best.pth", "latest": "checkpoint_latest.pth"}
"""What a user asks for -> the file's name in a fold's folder."""

INERT_TYPES = (
    "numpy.dtype",
    "numpy.ndarray",
    "numpy.core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
)
"""Types of a training log, as numpy 1 and 2 name them. None of them is ever called: each becomes an `_Inert`."""


@dataclass(frozen=True)
class Checkpoint:
    """What of a checkpoint a prediction needs.

    Attributes:
        path: the file.
        weights: name in nnU-Net's network -> tensor; mapped from the file, which must stay while they are used.
        trainer: the trainer class' name.
        configuration: the plan's configuration that was trained.
        mirror_axes: axes over whose flips a prediction is averaged, network order; empty where there are none.
    """

    path: Path
    weights: Mapping[str, Tensor]
    trainer: str
    configuration: str
    mirror_axes: tuple[int, ...]


class _Inert:
    """Takes the place of an object that nobody needs: made from anything, holds nothing."""

    def __init__(self, *arguments: Any) -> None:
        del arguments

    def __setstate__(self, state: Any) -> None:
        del state


def read_checkpoint(path: Path) -> Checkpoint:
    """The weights in a file that nnU-Net v2 saved, and how they are applied.

    Raises:
        ModelError: there is no such file, it is none that torch.save writes, it is damaged, asks for a type that is not on the list
            (named), or lacks one of nnU-Net's entries.
    """
    document = Section.of(_load(path), str(path))
    weights = document.section("network_weights").values
    strange = [str(name) for name, value in weights.items() if not _is_tensor(value)]
    if strange or not weights:
        raise ModelError(f"{path}: 'network_weights' must hold tensors, found {', '.join(strange[:3]) or 'none'} of another kind")
    return Checkpoint(
        path,
        weights,
        document.text("trainer_name"),
        document.section("init_args").text("configuration"),
        _mirror_axes(document),
    )


def _load(path: Path) -> Any:
    import torch

    _check_container(path)
    allowed = [(_Inert, name) for name in INERT_TYPES]
    with torch.serialization.safe_globals(allowed):  # type: ignore[arg-type]
        try:
            # Mapped, so that the optimiser's state, twice as large as the weights, is never read.
            return torch.load(str(path), map_location="cpu", weights_only=True, mmap=True)
        except MemoryError:
            raise
        except Exception as error:  # a damaged or forged pickle fails in many ways, all about the file's content
            if foreign := _foreign_types(path):
                raise ModelError(
                    f"{path}: asks for the type {', '.join(foreign[:5])}, which no checkpoint of nnU-Net's own trainers needs. Objects of "
                    "unknown types can run code when they are read, so the file is refused"
                ) from None
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelError(f"{path}: is damaged, or no checkpoint that nnU-Net v2 saved: {reason}") from None


def _check_container(path: Path) -> None:
    """Only what torch.save writes: a zip file that compresses nothing, so that it takes no more memory than its own size."""
    if not path.is_file():
        raise ModelError(f"{path}: there is no such file")
    try:
        with zipfile.ZipFile(path) as opened:
            compressed = [entry.filename for entry in opened.infolist() if entry.compress_type != zipfile.ZIP_STORED]
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise ModelError(f"{path}: is damaged, or no checkpoint that nnU-Net v2 saved: {error}") from None
    if compressed:
        raise ModelError(f"{path}: holds the compressed entry {compressed[0]!r}, which torch.save never writes; refused")


def _foreign_types(path: Path) -> list[str]:
    """Types that the file asks for and that are not on the list; empty where that cannot be told."""
    import torch

    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except Exception:  # the file is damaged in another way, which the caller tells
        return []


def _is_tensor(value: Any) -> bool:
    import torch

    return type(value) in (torch.Tensor, torch.nn.Parameter)


def _mirror_axes(document: Section) -> tuple[int, ...]:
    axes = document.take("inference_allowed_mirroring_axes", None)
    if axes is None:
        return ()
    if not isinstance(axes, list | tuple) or not all(type(axis) is int and axis >= 0 for axis in axes):
        raise document.wrong("inference_allowed_mirroring_axes", "a list of axes, or none", axes)
    return tuple(dict.fromkeys(axes))
