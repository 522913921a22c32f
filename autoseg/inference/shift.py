"""Whether a case is like what a model was trained on: measured as the training cases were, judged by `planners.shift`."""

from __future__ import annotations

import logging

from autoseg.dataset.case import Case
from autoseg.errors import ModelError, ShiftError
from autoseg.inference.case_images import CaseImages
from autoseg.inference.model_folder import ModelFolder
from autoseg.preprocessing.case_fingerprint import measure_images
from planners.shift import Seen, Told
from planners.span import Finding

logger = logging.getLogger(__name__)


class ShiftCheck:
    """What a model's training cases showed; a model without a fingerprint (imported ones) tells nothing, and nothing is judged.

    Args:
        model: opened.
    """

    def __init__(self, model: ModelFolder):
        self.plan = model.plan
        self.folder = model.folder
        known = model.fingerprint
        self.seen = None if known is None else Seen.of(known, as_stored=model.plan.orientation == "as_stored")
        self.unlabelled = 0.0
        if known is None:
            logger.info("%s: has no fingerprint.json: whether cases are like its training cases is not judged", model.folder)
        if known is not None:
            self.unlabelled = sum(not any(case.label_voxels.values()) for case in known.cases) / len(known.cases)

    def judge(self, images: CaseImages, case: str, *, strict: bool = False) -> tuple[Finding, ...]:
        """What of a case lies outside; takes about a second for two channels of 512x512x200 voxels.

        Args:
            strict: refuse a case of which anything does.

        Raises:
            ShiftError: it is refused.
            ModelError: `strict` is asked for, and the model tells nothing of its training cases.
        """
        if self.seen is None:
            if strict:
                raise ModelError(
                    f"{self.folder}: has no fingerprint.json, so that nothing tells what it was trained on, and --strict cannot be kept. "
                    "Predict without --strict"
                )
            return ()
        found = self.seen.findings(Told.of(measure_images(Case(case, ()), images.images, self.plan)))
        if strict and found:
            listed = "\n".join(f"  - {finding.text}" for finding in found)
            raise ShiftError(f"case {case}: unlike the training images, refused as --strict asks:\n{listed}")
        return found
