"""A model's networks put to work on one image; where they continue from the masks of a previous stage, that stage's networks first.

A cascade is a chain of stages, each with its own plan, grid and folds. All stages use the same folds, so that a case that the last stage's
fold held out was held out by every stage before it too.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from autoseg.errors import ResourceError
from autoseg.images import Geometry
from autoseg.inference.agreement import Agreement
from autoseg.inference.case_images import CaseImages
from autoseg.inference.memory import MemoryEstimate, memory_estimate
from autoseg.inference.model_folder import ModelFolder
from autoseg.inference.restore import certain_background, label_dtype
from autoseg.inference.segmenter import Segmenter
from autoseg.networks.precision import Precision
from autoseg.preprocessing.prepare import CaseProperties, prepare
from autoseg.preprocessing.previous_stage import onto_network_grid

logger = logging.getLogger(__name__)

LESS_MEMORY = "Close other programs, use --device cpu, fewer folds, or a machine with more memory"


@dataclass(frozen=True)
class Ready:
    """A case that waits for the networks; `data` is None where there is nothing to see. `previous`: the case for the stage before."""

    geometry: Geometry
    notes: tuple[str, ...]
    data: np.ndarray | None
    properties: CaseProperties | None
    previous: Ready | None = None


class WithMasks:
    """An image's channels and the masks of a label map's classes as one array, float32 (channels + classes, z, y, x).

    The masks exist only in the pieces that are asked for: the label map takes a byte a voxel, as channels they would take four each.

    Args:
        image: float32 (channels, z, y, x).
        labels: integers (z, y, x).
        classes: the label values of each class.
    """

    def __init__(self, image: np.ndarray, labels: np.ndarray, classes: Sequence[Sequence[int]]):
        assert image.shape[1:] == labels.shape, f"image {image.shape} and labels {labels.shape} lie on different grids"
        self.image, self.labels, self.classes = image, labels, classes
        self.shape = (len(image) + len(classes), *labels.shape)

    def __getitem__(self, index: tuple[slice, slice, slice, slice]) -> np.ndarray:
        """All channels of a box: `index` is (slice(None), z, y, x)."""
        assert index[0] == slice(None)
        labels = self.labels[index[1:]]
        masks = [np.isin(labels, values)[None] for values in self.classes]
        return np.concatenate([self.image[index], *masks]).astype(np.float32, copy=False)


class Stage:
    """The chosen folds of a model on a device, and the stage before them where there is one.

    Args:
        model: opened.
        folds: which of its folds are ensembled, in every stage; None means all opened ones.
        device, mirroring, step, precision: as `Segmenter.of`; each stage has its own plan's step and mirror axes.

    Raises:
        ModelError: a fold that is asked for is not there, or its weights do not fit.
    """

    def __init__(
        self,
        model: ModelFolder,
        folds: Sequence[str | int] | None = None,
        *,
        device: torch.device,
        mirroring: bool = True,
        step: float | None = None,
        precision: Precision,
    ):
        self.model = model
        self.folds = model.choose_folds(folds)
        self.previous: Stage | None = None
        if model.previous is not None:
            self.previous = Stage(model.previous, self.folds, device=device, mirroring=mirroring, step=step, precision=precision)
        self.segmenter = Segmenter.of(
            model.plan,
            model.dataset.configuration,
            [model.load_network(fold, device) for fold in self.folds],
            device=device,
            mirroring=mirroring,
            step=step,
            precision=precision,
        )
        logger.info(
            "model %s, %s: %s, %s on %s, %s, step %g",
            model.dataset.name,
            model.dataset.configuration,
            folds_text(self.folds),
            precision,
            device,
            f"mean of {1 << len(axes)} flips" if (axes := self.segmenter.window.mirror_axes) else "no flips",
            self.segmenter.window.step,
        )

    @property
    def settings(self) -> dict[str, Any]:
        """All that a mask depends on besides the images, as JSON: a hash of what these folds apply, window, precision, the stage before."""
        window = self.segmenter.window
        own = {
            "model": self.model.key(self.folds),
            "folds": list(self.folds),
            "step": window.step,
            "mirror_axes": list(window.mirror_axes),
            "precision": self.segmenter.precision,
            "device": self.segmenter.device.type,
        }
        return own | ({"previous_stage": self.previous.settings} if self.previous else {})

    def estimate(self, shape: Sequence[int], spacing: Sequence[float], value_bytes: int = 4) -> MemoryEstimate:
        """The memory that predicting an image takes, in this stage and those before it.

        Args:
            shape, spacing: voxels and mm, (z, y, x) in the plan's orientation.
            value_bytes: bytes a voxel of a channel as read; 0 for images that are in memory already.
        """
        order = self.model.plan.transpose
        own_shape, own_spacing = [shape[axis] for axis in order], [spacing[axis] for axis in order]
        estimate = memory_estimate(self.model.plan, self.model.dataset.configuration, own_shape, own_spacing, value_bytes=value_bytes)
        return estimate if self.previous is None else estimate.after(self.previous.estimate(shape, spacing, value_bytes))

    def prepare(self, case: CaseImages) -> Ready:
        """The case on the grid and scale of this stage and of those before it."""
        geometry, plan = case.images[0].geometry, self.model.plan
        if case.is_blank:
            return Ready(geometry, case.notes, None, None)
        prepared = prepare(case.images, None, plan, self.model.dataset.configuration)
        notes = (*case.notes, *prepared.properties.notes)
        previous = self.previous.prepare(case) if self.previous else None
        return Ready(geometry, tuple(dict.fromkeys(notes)), prepared.data, prepared.properties, previous)

    def segment(self, ready: Ready, case: str, probabilities: np.ndarray | None = None, agreement: Agreement | None = None) -> np.ndarray:
        """The mask of a case on its image's own grid.

        Args:
            case: its name, for messages.
            probabilities: float array (classes, *image shape) that is filled, or None.
            agreement: is told how folds or flips agree, or None.

        Raises:
            ResourceError: the memory did not suffice.
            ModelError: a network gives values that are not finite.
        """
        if ready.data is None or ready.properties is None:
            if probabilities is not None:
                certain_background(probabilities, self.segmenter.has_regions)
            return np.zeros(ready.geometry.shape, label_dtype(self.segmenter.label_values))
        data: Any = ready.data
        if self.previous is not None and ready.previous is not None:
            rule = self.model.configuration.resampling
            seen = onto_network_grid(self.previous.segment(ready.previous, f"{case}, previous stage"), ready.properties, rule)
            data = WithMasks(ready.data, seen, tuple(self.model.plan.label_scheme.foreground.values()))
        try:
            return self.segmenter.segment(data, ready.properties, probabilities=probabilities, name=case, agreement=agreement)
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "memory" not in str(error).lower():
                raise
            raise ResourceError(f"case {case}: the memory did not suffice ({_first_line(error)}). {LESS_MEMORY}") from None


def folds_text(folds: Sequence[str]) -> str:
    """The folds, for people."""
    return f"fold{'' if len(folds) == 1 else 's'} {', '.join(folds)}"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
