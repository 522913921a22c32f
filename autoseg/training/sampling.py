"""Where a training patch is centred: which case, which of its classes, which lesion, which voxel."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg.errors import TrainingError
from autoseg.preprocessing.lesion_locations import lesions_of
from autoseg.preprocessing.store import StoredCase, class_numbers, open_case
from planners.labels import LabelScheme
from planners.plan import Sampling

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClassBalance:
    """Classes drawn by shares, before a case is.

    Attributes:
        numbers: of the classes, as prepared cases number them.
        cumulative: share of each class and of those before it; the last is 1.
        holders: for each class the training cases that hold it.
    """

    numbers: tuple[int, ...]
    cumulative: tuple[float, ...]
    holders: tuple[tuple[str, ...], ...]

    def draw(self, rng: np.random.Generator) -> tuple[int, str]:
        """A class' number by the shares, and one of the cases that hold it, all alike."""
        chosen = _pick(rng, np.asarray(self.cumulative))
        holders = self.holders[chosen]
        return self.numbers[chosen], holders[int(rng.integers(len(holders)))]


@dataclass(frozen=True)
class ForegroundRule:
    """How a sample that is forced onto the foreground finds its centre; as it is, nnU-Net's rule.

    Attributes:
        lesion_exponent: as the plan's `training.sampling`; needs cases that tell their lesions.
        balance: None: a case is drawn first, then one of its classes.
    """

    lesion_exponent: float | None = None
    balance: ClassBalance | None = None

    def voxel(self, rng: np.random.Generator, case: StoredCase, number: int) -> np.ndarray:
        """A voxel (z, y, x) of a class that the case holds."""
        if self.lesion_exponent is None:
            places = case.locations[number]
            return places[int(rng.integers(len(places)))]
        assert case.lesions is not None, f"case {case.name} does not tell its lesions"
        lesions = lesions_of(case.lesions, number)
        chosen = _pick(rng, np.cumsum(lesions.voxels.astype(np.float64) ** self.lesion_exponent))
        return lesions.places[int(rng.integers(lesions.starts[chosen], lesions.stops[chosen]))]


def draw_centre(
    rng: np.random.Generator, foreground: bool, cases: Sequence[str], rule: ForegroundRule, opened: Callable[[str], StoredCase]
) -> tuple[StoredCase, np.ndarray | None]:
    """A case, and the voxel (z, y, x) that its patch is centred on; None: anywhere.

    Without forced foreground, and in a case that has none, the centre lies anywhere; where the dataset has an ignore label, on any
    annotated voxel, since a patch without one teaches nothing.

    Args:
        foreground: whether the sample is forced onto the foreground.
        cases: names of those to draw from, all alike.
        opened: name -> the stored case.
    """
    if foreground and rule.balance is not None:
        number, name = rule.balance.draw(rng)
        case = opened(name)
        return case, rule.voxel(rng, case, number)
    case = opened(cases[int(rng.integers(len(cases)))])
    present = [number for number in sorted(case.locations) if len(case.locations[number])]
    if foreground and present:
        return case, rule.voxel(rng, case, present[int(rng.integers(len(present)))])
    if case.annotated is not None and len(case.annotated):
        return case, case.annotated[int(rng.integers(len(case.annotated)))]
    return case, None


def foreground_rule(sampling: Sampling, scheme: LabelScheme, folder: Path, cases: Sequence[str]) -> ForegroundRule:
    """The rule that a plan asks for, on these prepared training cases.

    Raises:
        TrainingError: no case holds a class that is to be drawn.
        DatasetError: a prepared case is damaged.
    """
    if sampling.classes == "present":
        return ForegroundRule(sampling.lesion_exponent)
    holders: dict[int, list[str]] = {}
    voxels: dict[int, int] = {}
    for name in cases:
        case = open_case(folder, name)
        for number, places in case.locations.items():
            if len(places):
                holders.setdefault(number, []).append(name)
            if sampling.classes == "inverse_frequency" and case.lesions is not None:
                voxels[number] = voxels.get(number, 0) + int(lesions_of(case.lesions, number).voxels.sum())
    wanted = {name: _weight(sampling, name, voxels.get(number, 0)) for name, number in class_numbers(scheme).items()}
    numbers = class_numbers(scheme)
    absent = [name for name, weight in wanted.items() if weight and numbers[name] not in holders]
    if absent:
        logger.warning("no training case of this fold holds %s: patches are shared out among the other classes", ", ".join(absent))
    drawn = {name: weight for name, weight in wanted.items() if weight and name not in absent}
    if not drawn:
        raise TrainingError(
            f"training.sampling.classes: no training case of this fold holds {', '.join(absent)}, and nothing else is to be drawn. "
            "Give other classes a weight, or take another rule"
        )
    shares = np.cumsum(list(drawn.values())) / sum(drawn.values())
    told = ", ".join(f"{name} {weight / sum(drawn.values()):.3g}" for name, weight in drawn.items())
    logger.info("patches with forced foreground are shared out by class: %s", told)
    chosen = tuple(numbers[name] for name in drawn)
    balance = ClassBalance(chosen, tuple(shares.tolist()), tuple(tuple(holders[number]) for number in chosen))
    return ForegroundRule(sampling.lesion_exponent, balance)


def _weight(sampling: Sampling, name: str, voxels: int) -> float:
    if isinstance(sampling.classes, dict):
        return sampling.classes.get(name, 0.0)
    if sampling.classes == "equal":
        return 1.0
    return 1 / max(voxels, 1)


def _pick(rng: np.random.Generator, cumulative: np.ndarray) -> int:
    """An index with a probability in proportion to its step of the cumulative weights."""
    return min(int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right")), len(cumulative) - 1)
