"""Whether a case is like what a model was trained on: measured as the training cases were, judged by `planners.shift`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from autoseg.dataset.case import Case
from autoseg.errors import ModelError, ShiftError
from autoseg.inference.case_images import CaseImages
from autoseg.inference.model_folder import ModelFolder
from autoseg.preprocessing.case_fingerprint import measure_images
from planners.fingerprint import Fingerprint
from planners.plan import Plan
from planners.shift import Seen, Told
from planners.span import Finding

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Training:
    """What was measured of the training cases that some networks share.

    Attributes:
        names: of the networks.
        plan: says how a case is measured.
        fingerprint, seen: of the training cases.
    """

    names: tuple[str, ...]
    plan: Plan
    fingerprint: Fingerprint
    seen: Seen

    def shared(self, model: ModelFolder) -> bool:
        """Whether a model was trained on just these, and measures a case alike."""
        return _measuring(model.plan) == _measuring(self.plan) and model.fingerprint == self.fingerprint


class ShiftCheck:
    """What the training cases of all networks that segment together showed: of each model, and of the stages before it.

    A model without a fingerprint (imported ones) tells nothing, and nothing is judged by it.

    Args:
        models: what each is called -> opened.
    """

    def __init__(self, models: Mapping[str, ModelFolder]):
        self._untold = []
        self._trainings: list[_Training] = []
        for name, model in _networks(models):
            if model.fingerprint is None:
                logger.info("%s: has no fingerprint.json: whether cases are like its training cases is not judged", model.folder)
                self._untold.append(model.folder)
                continue
            place = next((place for place, known in enumerate(self._trainings) if known.shared(model)), None)
            if place is None:
                seen = Seen.of(model.fingerprint, as_stored=model.plan.orientation == "as_stored")
                self._trainings.append(_Training((name,), model.plan, model.fingerprint, seen))
            else:
                known = self._trainings[place]
                self._trainings[place] = replace(known, names=(*known.names, name))

    @property
    def unlabelled(self) -> float | None:
        """Share of the training cases in which nothing was labelled, the smallest of all models'; None where none of them tells."""
        shares = []
        for known in self._trainings:
            cases = known.fingerprint.cases
            shares.append(sum(not any(case.label_voxels.values()) for case in cases) / len(cases))
        return min(shares, default=None)

    def check_strict(self) -> None:
        """ModelError where a model tells nothing of its training cases, so that refusing unlike ones cannot be promised."""
        if self._untold:
            raise ModelError(
                f"{self._untold[0]}: has no fingerprint.json, so that nothing tells what it was trained on, and --strict cannot be kept. "
                "Predict without --strict"
            )

    def judge(self, images: CaseImages, case: str, *, strict: bool = False) -> tuple[Finding, ...]:
        """What of a case lies outside of what any of the models has seen; takes about a second for two channels of 512x512x200 voxels.

        Args:
            strict: refuse a case of which anything does.

        Raises:
            ShiftError: it is refused.
        """
        measured: dict[tuple[object, ...], Told] = {}
        found: dict[tuple[str, str], list[tuple[_Training, Finding]]] = {}
        for known in self._trainings:
            way = _measuring(known.plan)
            if way not in measured:
                measured[way] = Told.of(measure_images(Case(case, ()), images.images, known.plan))
            for finding in known.seen.findings(measured[way]):
                found.setdefault((finding.measure, finding.channel), []).append((known, finding))
        findings = tuple(self._together(several) for several in found.values())
        if strict and findings:
            listed = "\n".join(f"  - {finding.text}" for finding in findings)
            raise ShiftError(f"case {case}: unlike the training images, refused as --strict asks:\n{listed}")
        return findings

    def _together(self, several: list[tuple[_Training, Finding]]) -> Finding:
        """One finding where several models make it; it names them where others have seen such cases."""
        finding = several[0][1]
        if len(several) == len(self._trainings):
            return finding
        names = dict.fromkeys(name for known, _ in several for name in known.names)
        return replace(finding, text=f"for {' and '.join(names)}, {finding.text}")


def _networks(models: Mapping[str, ModelFolder]) -> Iterator[tuple[str, ModelFolder]]:
    """The models and the stages before them, which are called by their configurations."""
    for name, model in models.items():
        yield name, model
        while model.previous is not None:
            model = model.previous
            yield model.dataset.configuration, model


def _measuring(plan: Plan) -> tuple[object, ...]:
    """What of a plan decides how a case is measured."""
    return plan.orientation, plan.region_of_interest, plan.channels
