"""Networks applied to prepared cases: a mask on the image's own grid, in one pass, by slabs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import nn

from autoseg.durations import duration
from autoseg.inference.agreement import Agreement
from autoseg.inference.memory import activation_bytes
from autoseg.inference.restore import certain_background, label_dtype, logits_taps, restore_labels
from autoseg.inference.sliding_window import Window, slide
from autoseg.networks.precision import Precision, choose_precision
from autoseg.preprocessing.prepare import CaseProperties, network_view
from planners.plan import Plan

logger = logging.getLogger(__name__)

GPU_HEADROOM = 1.25
"""A CUDA device keeps the slab where this times the estimate is free; else the slab lies in the machine's memory."""


@dataclass(frozen=True)
class Segmenter:
    """Networks with all that is needed to apply them to prepared cases.

    Attributes:
        plan, configuration: what the networks were trained with; `configuration` is a name.
        networks: one a fold, in evaluation mode, on `device`; their logits are averaged.
        window: how images are covered.
        device, precision: where and in what the networks compute.
    """

    plan: Plan
    configuration: str
    networks: tuple[nn.Module, ...]
    window: Window
    device: torch.device
    precision: Precision

    @staticmethod
    def of(
        plan: Plan,
        configuration: str,
        networks: Sequence[nn.Module],
        *,
        device: torch.device | str = "cpu",
        mirroring: bool = True,
        step: float | None = None,
        precision: Precision | None = None,
    ) -> Segmenter:
        """A segmenter for networks in memory; `precision` None chooses by the device's capability.

        Raises:
            ValueError: `step` is outside (0, 1].
        """
        if step is not None and not 0 < step <= 1:
            raise ValueError(f"step must be above 0 and at most 1, found {step}")
        device = torch.device(device)
        window = Window.of(plan.configuration(configuration), mirroring=mirroring, step=step)
        return Segmenter(plan, configuration, tuple(networks), window, device, precision or choose_precision(device))

    @property
    def label_values(self) -> tuple[int, ...]:
        """The value that each network output paints into a mask."""
        return self.plan.label_scheme.painted_values

    @property
    def has_regions(self) -> bool:
        """Whether outputs are regions, which may overlap."""
        return self.plan.label_scheme.has_regions

    def passes(self, shape: Sequence[int]) -> int:
        """How many times a network runs for a prepared image of `shape`."""
        return self.window.passes(shape, len(self.networks))

    def segment(
        self,
        data: np.ndarray,
        properties: CaseProperties,
        *,
        probabilities: np.ndarray | None = None,
        name: str = "",
        agreement: Agreement | None = None,
    ) -> np.ndarray:
        """The mask of a prepared case on the grid of its image as read, (z, y, x), uint8 or uint16.

        Args:
            data: float32 (channels, ...network order), as `prepare` makes it or `open_case` maps it.
            properties: of the same case.
            probabilities: float array (classes, *image shape) that is filled, or None; may be a memory map.
            name: for the log.
            agreement: is told how folds or flips agree.

        Raises:
            ModelError: a network gives values that are not finite.
        """
        rule = self.plan.configuration(self.configuration).resampling
        taps = logits_taps(data.shape[1:], properties.shape_after_crop, properties.new_spacing, properties.spacing, rule)
        values = self.label_values
        mask = np.zeros(properties.image_geometry().shape, label_dtype(values))
        with _TileProgress(self, data.shape[1:], name) as tick:
            blocks = slide(
                self.networks,
                data,
                len(values),
                self.window,
                device=self.device,
                precision=self.precision,
                slab_device=self._slab_device(data.shape[1:]),
                progress=tick,
                agreement=agreement,
            )
            target = None
            if probabilities is not None:
                certain_background(probabilities, self.has_regions)
                target = network_view(probabilities, properties)
            restore_labels(blocks, taps, network_view(mask, properties), values=values, regions=self.has_regions, probabilities=target)
        return mask

    def _slab_device(self, shape: Sequence[int]) -> torch.device:
        if self.device.type != "cuda":
            return self.device
        settings = self.plan.configuration(self.configuration)
        classes = len(self.label_values)
        slab = 2 * classes * 4 * min(self.window.patch[0], shape[0]) * prod(shape[1:])
        needed = slab + activation_bytes(settings, self.plan.input_channels(self.configuration), classes)
        free, _ = torch.cuda.mem_get_info(self.device)
        reusable = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return self.device if needed * GPU_HEADROOM < free + reusable else torch.device("cpu")


class _TileProgress:
    """A bar over tiles, and one log line about the time needed after the first tile."""

    def __init__(self, segmenter: Segmenter, shape: Sequence[int], name: str):
        self.total = len(segmenter.window.grid(shape))
        self.views = segmenter.passes(shape) // self.total
        self.name = name
        self.done = 0
        self.started = 0.0
        self._bar: Any = None

    def __enter__(self) -> Callable[[], None]:
        from tqdm import tqdm

        self._bar = tqdm(total=self.total, unit="tile", desc=self.name or None, disable=None, leave=False)
        self.started = time.monotonic()
        return self._tick

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def _tick(self) -> None:
        self.done += 1
        self._bar.update()
        if self.done == 1 and self.total > 1:
            seconds = time.monotonic() - self.started
            logger.info(
                "%s: %d tiles x %d passes of the network, %.2f s a tile: about %s",
                self.name or "image",
                self.total,
                self.views,
                seconds,
                duration(seconds * self.total),
            )
