"""Whether a case is like what a model was trained on: measured as the training cases were, judged by `planners.shift`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from autoseg import files
from autoseg.dataset.case import Case
from autoseg.errors import ModelError, ShiftError
from autoseg.inference.case_images import CaseImages
from autoseg.inference.model_folder import ModelFolder
from autoseg.preprocessing.case_fingerprint import measure_images
from planners.fingerprint import CaseFingerprint, Fingerprint
from planners.partial_fingerprint import PartialFingerprint, SeenInPart
from planners.plan import CTNormalisation, Plan, Region
from planners.shift import Seen
from planners.span import Finding

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Training:
    """What is known of the training cases that some networks share.

    Attributes:
        names: of the networks.
        plan: says how a case is measured.
        known: of the training cases.
        windows: channel -> between which values nearly all their labelled voxels lie, of channels in absolute units; counts where they
            are known in part.
    """

    names: tuple[str, ...]
    plan: Plan
    known: Fingerprint | PartialFingerprint
    windows: Mapping[int, tuple[float, float]]

    @staticmethod
    def of(name: str, model: ModelFolder) -> _Training | None:
        """None where a model tells nothing of its training cases."""
        known = model.fingerprint or model.partial
        if known is None:
            return None
        schemes = enumerate(model.configuration.normalisation)
        windows = {channel: (scheme.lower, scheme.upper) for channel, scheme in schemes if isinstance(scheme, CTNormalisation)}
        training = _Training((name,), model.plan, known, windows)
        if isinstance(known, PartialFingerprint) and isinstance(training.seen, SeenInPart) and not training.seen.judged:
            return None
        return training

    def shared(self, other: _Training) -> bool:
        """Whether other networks were trained on just these, and measure a case alike."""
        return (_measuring(self.plan), self.known, self.windows) == (_measuring(other.plan), other.known, other.windows)

    @cached_property
    def seen(self) -> Seen | SeenInPart:
        """Judges a case."""
        as_stored = self.plan.orientation == "as_stored"
        if isinstance(self.known, Fingerprint):
            return Seen.of(self.known, as_stored=as_stored)
        return SeenInPart(self.plan.channels, self.known, self.windows, as_stored=as_stored)

    @property
    def key(self) -> list[Any]:
        """All that findings depend on besides the case, as JSON."""
        orientation, region, channels = _measuring(self.plan)
        way = [orientation, None if region is None else region.model_dump(mode="json"), list(channels)]
        return [list(self.names), way, self.known.to_json(), sorted(self.windows.items())]

    @property
    def called(self) -> str:
        """The networks, for people."""
        return " and ".join(self.names)

    @property
    def remark(self) -> str:
        """What is not judged, for people; "" where all is."""
        if isinstance(self.seen, Seen):
            return ""
        judged, unjudged = self.seen.judged, self.seen.unjudged
        return (
            f"{self.called}: only part of what its training images were like is known ({self.known.source}). Cases are "
            f"judged by: {', '.join(judged) or 'nothing'}. Not judged: {', '.join(unjudged)}"
        )


class ShiftCheck:
    """What the training cases of all networks that segment together showed: of each model, and of the stages before it.

    A model that tells nothing of them (imported by an early release, or of which nnU-Net left nothing) has nothing judged by it.

    Args:
        models: what each is called -> opened.

    Attributes:
        remarks: what is not judged and why, for people.
    """

    def __init__(self, models: Mapping[str, ModelFolder]):
        self._untold = []
        self._trainings: list[_Training] = []
        for name, model in _networks(models):
            training = _Training.of(name, model)
            if training is None:
                self._untold.append(model.folder)
                continue
            place = next((place for place, known in enumerate(self._trainings) if known.shared(training)), None)
            if place is None:
                self._trainings.append(training)
            else:
                known = self._trainings[place]
                self._trainings[place] = replace(known, names=(*known.names, name))
        untold = [f"{folder}: has no fingerprint.json: whether cases are like its training images is not judged" for folder in self._untold]
        self.remarks = (*untold, *(remark for training in self._trainings if (remark := training.remark)))
        for remark in self.remarks:
            logger.info("%s", remark)

    @cached_property
    def key(self) -> str:
        """A hash of all that findings depend on besides the case."""
        return files.sha256_json([training.key for training in self._trainings])

    @property
    def unlabelled(self) -> float | None:
        """Share of the training cases in which nothing was labelled, the smallest of all models'; None where none of them tells."""
        shares = []
        for training in self._trainings:
            if not isinstance(training.known, Fingerprint):
                continue
            cases = training.known.cases
            shares.append(sum(not any(case.label_voxels.values()) for case in cases) / len(cases))
        return min(shares, default=None)

    def check_strict(self) -> None:
        """ModelError where a model tells nothing of its training cases, so that refusing unlike ones cannot be promised.

        Where it tells part, a warning says what is not judged.
        """
        if self._untold:
            raise ModelError(
                f"{self._untold[0]}: has no fingerprint.json, so that nothing tells what it was trained on, and --strict cannot be kept. "
                "Predict without --strict, or import a model of nnU-Net again, its dataset_fingerprint.json beside plans.json"
            )
        for training in self._trainings:
            if isinstance(training.seen, SeenInPart):
                logger.warning("--strict refuses no case for its %s: not known of %s", ", ".join(training.seen.unjudged), training.called)

    def judge(self, images: CaseImages, case: str, *, strict: bool = False) -> tuple[Finding, ...]:
        """What of a case lies outside of what any of the models has seen; takes about a second for two channels of 512x512x200 voxels.

        Args:
            strict: refuse a case of which anything does.

        Raises:
            ShiftError: it is refused.
        """
        measured: dict[tuple[object, ...], CaseFingerprint] = {}
        found: dict[tuple[str, str], list[tuple[_Training, Finding]]] = {}
        for known in self._trainings:
            way = _measuring(known.plan)
            if way not in measured:
                measured[way] = measure_images(Case(case, ()), images.images, known.plan)
            for finding in known.seen.judge(measured[way]):
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


def _measuring(plan: Plan) -> tuple[str, Region | None, tuple[str, ...]]:
    """What of a plan decides how a case is measured."""
    return plan.orientation, plan.region_of_interest, plan.channels
