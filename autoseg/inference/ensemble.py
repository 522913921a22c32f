"""Models that segment together: each one's probabilities on the image's own grid, their mean, the winning label, the rules after that.

One model without rules is the simplest ensemble: its mask is its own. With several, the probabilities of each lie in a file without a
name on the disk, as float16, and are averaged plane by plane: classes x image is never in memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import reduce
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from autoseg import files
from autoseg.errors import ResourceError
from autoseg.images import Geometry
from autoseg.inference.agreement import Agreement
from autoseg.inference.case_images import CaseImages
from autoseg.inference.memory import MemoryEstimate
from autoseg.inference.postprocessing import Rule, postprocess
from autoseg.inference.restore import label_dtype
from autoseg.inference.stages import Ready, Stage

PROBABILITY = np.dtype(np.float16)


@dataclass(frozen=True)
class ReadyCase:
    """A case that waits for the networks, prepared for each model."""

    geometry: Geometry
    notes: tuple[str, ...]
    parts: tuple[Ready, ...]


@dataclass(frozen=True)
class Ensemble:
    """Models on a device, and what is done with their mask.

    Attributes:
        stages: one a model, each with the stage before it where there is one; all of the same channels and labels.
        rules: of postprocessing, applied to the mask on the image's own grid.
    """

    stages: tuple[Stage, ...]
    rules: tuple[Rule, ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """All that a mask depends on besides the images, as JSON; of one model without rules, that model's own."""
        if len(self.stages) == 1 and not self.rules:
            return self.stages[0].settings
        return {"models": [stage.settings for stage in self.stages], "postprocessing": [rule.to_dict() for rule in self.rules]}

    def estimate(self, shape: Sequence[int], spacing: Sequence[float], value_bytes: int = 4) -> MemoryEstimate:
        """As `Stage.estimate`: the images are read once, all models' prepared ones wait, the networks take turns."""
        return reduce(lambda before, after: after.after(before), (stage.estimate(shape, spacing, value_bytes) for stage in self.stages))

    def prepare(self, case: CaseImages) -> ReadyCase:
        """The case on the grid and scale of each model."""
        parts = tuple(stage.prepare(case) for stage in self.stages)
        return ReadyCase(parts[0].geometry, tuple(dict.fromkeys(note for part in parts for note in part.notes)), parts)

    def segment(
        self,
        ready: ReadyCase,
        case: str,
        probabilities: np.ndarray | None = None,
        scratch: Path | None = None,
        agreement: Agreement | None = None,
    ) -> np.ndarray:
        """The mask of a case on its image's own grid, after the rules.

        Args:
            case: its name, for messages.
            probabilities: float array (classes, *image shape) that is filled, or None; rules leave it as it is.
            scratch: a folder for what several models give; None means the system's for temporary files.
            agreement: is told how the folds of each model agree, or None.

        Raises:
            ResourceError: memory or disk did not suffice.
            ModelError: a network gives values that are not finite.
        """
        scheme = self.stages[0].model.plan.label_scheme
        if len(self.stages) == 1:
            mask = self.stages[0].segment(ready.parts[0], case, probabilities, agreement)
        else:
            with self.probabilities(ready, case, scratch, agreement) as parts:
                mask = average(parts, scheme.painted_values, regions=scheme.has_regions, mean=probabilities)
        return postprocess(mask, self.rules, ready.geometry.spacing, scheme)

    @contextmanager
    def probabilities(
        self, ready: ReadyCase, case: str, scratch: Path | None = None, agreement: Agreement | None = None
    ) -> Iterator[list[np.ndarray]]:
        """Each model's probabilities, float16 (classes, *image shape), on the disk until the block ends; raises as `segment`."""
        with ExitStack() as held:
            parts = []
            for stage, part in zip(self.stages, ready.parts, strict=True):
                array = held.enter_context(scratch_array((len(stage.segmenter.label_values), *ready.geometry.shape), PROBABILITY, scratch))
                stage.segment(part, case, array, agreement)
                parts.append(array)
            yield parts


def average(parts: Sequence[np.ndarray], values: Sequence[int], *, regions: bool = False, mean: np.ndarray | None = None) -> np.ndarray:
    """The mask that the mean of several models' probabilities gives, plane by plane.

    Args:
        parts: one array a model, (outputs, z, y, x).
        values: the value that each output paints.
        regions: outputs are regions: each whose mean is above 1/2 is painted, one after another. Else the largest mean wins, the first
            output where several are.
        mean: gets the mean, or None.

    Returns:
        uint8 or uint16 (z, y, x).
    """
    shape = parts[0].shape[1:]
    lookup = np.asarray(values, label_dtype([0, *values]))
    mask = np.zeros(shape, lookup.dtype)
    for index in range(shape[0]):
        plane = np.zeros((len(values), *shape[1:]), np.float32)
        for part in parts:
            plane += part[:, index]
        plane /= len(parts)
        if regions:
            for region, value in zip(plane, lookup, strict=True):
                mask[index][region > 0.5] = value
        else:
            mask[index] = lookup[plane.argmax(0)]
        if mean is not None:
            mean[:, index] = plane
    return mask


@contextmanager
def scratch_array(shape: Sequence[int], dtype: np.dtype, folder: Path | None = None) -> Iterator[np.ndarray]:
    """An array on the disk, without a name there, so that nothing is left of it after a kill.

    Raises:
        ResourceError: the disk has no room for it.
    """
    size = prod(shape) * dtype.itemsize
    place = folder or Path(tempfile.gettempdir())
    with tempfile.TemporaryFile(dir=place) as file:
        try:
            files.allocate(file.fileno(), size)
        except OSError as error:
            raise ResourceError(
                f"{place}: the probabilities of several models need {size / 1e9:.2f} GB on the disk for each ({error.strerror}). Free some "
                "space, or predict with one configuration (-c)"
            ) from None
        yield np.memmap(file, dtype, mode="r+", shape=tuple(shape))
