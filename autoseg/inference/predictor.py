"""`Predictor`: a model loaded once that segments images, one by one or a whole list while the next is being read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.dataset.case import Case
from autoseg.errors import ModelError
from autoseg.images import Geometry, reorientation_for
from autoseg.inference.agreement import Agreement
from autoseg.inference.case_images import CaseImages, check_channels, take_images
from autoseg.inference.case_list import CaseList, CaseResult, raise_failures
from autoseg.inference.choice import Members, open_members
from autoseg.inference.ensemble import PROBABILITY, Ensemble, ReadyCase
from autoseg.inference.memory import MemoryEstimate, check_fits
from autoseg.inference.model_folder import ModelFolder
from autoseg.inference.outputs import refuse_foreign_masks, refuse_to_overwrite, writable_folder
from autoseg.inference.records import NAME as RECORDS_NAME
from autoseg.inference.review import Review
from autoseg.inference.segmenter import Segmenter
from autoseg.inference.shift import ShiftCheck
from autoseg.inference.stages import Stage
from autoseg.networks.precision import Precision, choose_device, choose_precision
from planners.span import Finding

logger = logging.getLogger(__name__)

WORTH_TELLING = 1 << 30
"""Bytes of memory from which on an estimate is logged."""


@dataclass(frozen=True)
class Prediction:
    """The result for one image.

    Attributes:
        mask: label values on the image's own grid, (z, y, x), uint8 or uint16.
        geometry: that grid.
        notes: what was found on the way, for people.
        probabilities: float16 (classes, z, y, x) on the same grid where asked for, else None: with labels the background's first, and they
            sum to 1; with regions one a region, each by itself.
        review: how much it is to be trusted.
    """

    mask: np.ndarray
    geometry: Geometry
    notes: tuple[str, ...] = ()
    probabilities: np.ndarray | None = None
    review: Review | None = None


@dataclass(frozen=True)
class Waiting:
    """A case that waits for the networks, and what lies outside what training has seen."""

    ready: ReadyCase
    findings: tuple[Finding, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found on the way, for people."""
        return tuple(dict.fromkeys((*self.ready.notes, *(finding.text for finding in self.findings))))


class Predictor:
    """The networks of a model folder, or of a choice of several, loaded once.

    Args:
        model_folder: an opened model folder, or the path of one, zipped or not; or a chosen.json of autoseg_choose, or what it means.
        folds: which finished folds are ensembled, of every model; None means all.
        device: "auto", "cpu", "cuda" or "cuda:INDEX".
        mirroring: average over the flips that the plan allows.
        step: of the sliding window as a share of the patch; None means the plan's.
        precision: "fp32", "bf16" or "fp16"; None chooses by the device's capability.
        threads: compute threads on a CPU; None leaves torch's setting.

    Raises:
        ModelError: the folder is damaged, or lacks a fold that is asked for, also in the folder of a previous stage.
        DeviceError: there is no such device.
    """

    def __init__(
        self,
        model_folder: str | Path | ModelFolder | Members,
        *,
        folds: Iterable[str | int] | None = None,
        device: str = "auto",
        mirroring: bool = True,
        step: float | None = None,
        precision: Precision | None = None,
        threads: int | None = None,
    ):
        import torch

        chosen = None if folds is None else list(folds)
        members = open_members(model_folder, chosen)
        self.model = members.models[0]
        if step is not None and not 0 < step <= 1:
            raise ModelError(f"--step {step:g}: must be above 0 and at most 1")
        if threads is not None:
            torch.set_num_threads(threads)
        where = choose_device(device)
        values = precision or choose_precision(where)
        stages = [Stage(model, chosen, device=where, mirroring=mirroring, step=step, precision=values) for model in members.models]
        self.ensemble = Ensemble(tuple(stages), members.rules)
        self.stage = stages[0]
        self.folds = self.stage.folds
        self.shift = ShiftCheck(members.called)

    @property
    def plan(self) -> Any:
        """The model's plan; of several, the first one's: they share channels and labels."""
        return self.model.plan

    @property
    def settings(self) -> dict[str, Any]:
        """All that a mask depends on besides the images, as JSON; see `Ensemble.settings`."""
        return self.ensemble.settings

    @property
    def segmenter(self) -> Segmenter:
        """The networks of the last stage; of several models, the first one's."""
        return self.stage.segmenter

    def predict(
        self,
        images: Any,
        *,
        spacing: Sequence[float] | None = None,
        case: str = "image",
        probabilities: bool = False,
        replace_nonfinite: bool = False,
        strict: bool = False,
    ) -> Prediction:
        """The mask of one image, on its own grid.

        Args:
            images: a float array (channels, z, y, x), or (z, y, x) for one channel, with `spacing`; or one image, or a sequence with one a
                channel, each a path, a SimpleITK image or an `autoseg.images.Image`.
            spacing: mm, (z, y, x), for arrays.
            case: its name in messages.
            probabilities: also return each class' probability; classes x image in float16.
            replace_nonfinite: replace NaN and infinite voxels by the channel's smallest value, and note how many, instead of refusing.
            strict: refuse an image that lies outside what training has seen.

        Raises:
            ImageError, GeometryError: the image is broken, not finite, or its channels do not fit each other or the model.
            ShiftError: it is refused as `strict` asks.
            ModelError: `strict` is asked for, and a model tells nothing of its training cases.
            ResourceError: the memory does not suffice; found before starting.
        """
        if strict:
            self.shift.check_strict()
        taken = take_images(images, self.plan, spacing=spacing, case=case, replace_nonfinite=replace_nonfinite)
        check_fits(self.estimate_of(taken[0].geometry, 0, tell=True), case)
        waiting = self.prepare(check_channels(taken, self.plan, case, replace_nonfinite=replace_nonfinite), case, strict)
        del taken
        geometry = waiting.ready.geometry
        target = np.empty((len(self.segmenter.label_values), *geometry.shape), PROBABILITY) if probabilities else None
        mask, review = self.segment(waiting, case, target)
        return Prediction(mask, geometry, waiting.notes, target, review)

    def predict_cases(
        self,
        cases: Sequence[Case],
        folder: str | Path,
        *,
        resume: bool = False,
        save_probabilities: bool = False,
        replace_nonfinite: bool = False,
        strict: bool = False,
        prefetch: bool = True,
        failures: Sequence[str] = (),
        raise_single: bool = True,
        report: Callable[[CaseResult], None] = lambda result: None,
    ) -> tuple[CaseResult, ...]:
        """Predicts cases one after another into `folder`/CASE + the model's file ending, reading the next while the network works.

        Args:
            cases: with their files.
            folder: made where missing; also gets predictions.jsonl, which tells what was predicted from what.
            resume: skip cases that this model, applied in this way, already predicted from the same files, and whose outputs are intact.
            save_probabilities: also write `folder`/CASE.probabilities.npy.
            replace_nonfinite, strict: as in `predict`; with `strict`, resuming judges cases with findings anew.
            prefetch: read and prepare the next case in a thread where memory allows.
            failures: messages about cases that could not even be listed; they count as failed.
            raise_single: raise the own error of a case that was the only one, rather than CasesFailed.
            report: called with each finished case, first with those that were there already.

        Returns:
            One result a case, in order.

        Raises:
            CasesFailed: some cases failed; the others are done.
            AutosegError: the only case failed: its own error.
            DatasetError: a mask would replace one of the input files, or a file that no prediction wrote; nothing is written then.
            ModelError: `strict` is asked for, and a model tells nothing of its training cases; nothing is written then.
        """
        folder = Path(folder)
        if strict:
            self.shift.check_strict()
        run = CaseList(self, folder, save_probabilities, replace_nonfinite, strict)
        outputs = [output for case in cases for output in run.outputs(case)]
        refuse_to_overwrite(cases, outputs)
        refuse_foreign_masks(folder / RECORDS_NAME, outputs)
        writable_folder(folder)
        results, errors = run.predict(cases, resume=resume, prefetch=prefetch, report=report)
        raise_failures(errors, failures, done=len(results), cases=len(cases), raise_single=raise_single)
        return tuple(results[case.name] for case in cases)

    def estimate(self, shape: Sequence[int], spacing: Sequence[float], value_bytes: int = 4) -> MemoryEstimate:
        """The memory that predicting an image takes beyond what the process holds now.

        Args:
            shape, spacing: voxels and mm, (z, y, x) in the plan's orientation.
            value_bytes: bytes a voxel of a channel as read; 0 for images that are in memory already.
        """
        return self.ensemble.estimate(shape, spacing, value_bytes)

    def estimate_of(self, geometry: Geometry, value_bytes: int, *, tell: bool = False) -> MemoryEstimate:
        """As `estimate`, of an image as it is stored; `tell`: in the log too."""
        geometry = reorientation_for(geometry, self.plan.orientation).apply_geometry(geometry)
        estimate = self.estimate(geometry.shape, geometry.spacing, value_bytes)
        if tell:
            level = logging.INFO if estimate.peak > WORTH_TELLING else logging.DEBUG
            logger.log(level, "image of %s voxels: about %s of memory", "x".join(map(str, geometry.shape)), estimate)
        return estimate

    def prepare(self, images: CaseImages, case: str, strict: bool = False) -> Waiting:
        """A case ready for the networks; raises ShiftError where it is refused as `strict` asks."""
        findings = self.shift.judge(images, case, strict=strict)
        return Waiting(self.ensemble.prepare(images), findings)

    def segment(
        self, waiting: Waiting, case: str, probabilities: np.ndarray | None, scratch: Path | None = None
    ) -> tuple[np.ndarray, Review]:
        """The mask of a prepared case on its image's own grid, and how much it is to be trusted; arguments as `Ensemble.segment`."""
        agreement = Agreement(self.segmenter.has_regions)
        mask = self.ensemble.segment(waiting.ready, case, probabilities, scratch, agreement)
        return mask, Review.of(agreement, waiting.findings, found=bool(mask.any()), unlabelled=self.shift.unlabelled)
