"""Out-of-fold masks of pairs: each case is predicted by every member's fold that held it out, and the probabilities of two are averaged.

Nothing needs to be kept from training for this. Each network sees a case once, whatever the number of pairs; the probabilities lie on the
disk only while their case is worked on. What is done is recorded, so that an interrupted run goes on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from autoseg import files
from autoseg.choosing.members import Member
from autoseg.dataset.case import Case
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.workspace import require_disk
from autoseg.durations import duration
from autoseg.errors import AutosegError, CasesFailed
from autoseg.images import read_header, reorientation_for, write_mask
from autoseg.inference.records import Record, Records, hash_inputs

if TYPE_CHECKING:
    import torch

    from autoseg.inference.ensemble import Ensemble
    from autoseg.networks.precision import Precision

logger = logging.getLogger(__name__)

SIGN = "+"


@dataclass(frozen=True)
class Pair:
    """Two members that segment together, and what they made of each case out of fold."""

    members: tuple[Member, Member]
    masks: Mapping[str, Path]

    @property
    def name(self) -> str:
        return pair_name(self.members)


def pair_name(members: Sequence[Member]) -> str:
    """The members' names, joined."""
    return SIGN.join(member.name for member in members)


def predict_pairs(dataset: Dataset, members: Sequence[Member], cases: Sequence[str], folder: Path, *, device: str = "auto") -> list[Pair]:
    """Every pair of members with its out-of-fold masks, which go to `folder`/PAIR/masks; those that are there and intact are kept.

    Args:
        cases: that all members have out of fold.
        device: "auto", "cpu", "cuda" or "cuda:i".

    Raises:
        ResourceError: the disk has no room for the masks and one case's probabilities.
        CasesFailed: some cases could not be predicted; the others are done.
    """
    from autoseg.networks.precision import choose_device, choose_precision

    pairs = list(combinations(members, 2))
    _announce(dataset, members, cases, len(pairs), folder)
    where = choose_device(device)
    work = _Work(dataset, tuple(members), folder, where, choose_precision(where), len(cases))
    for folds, named in _by_folds(members, cases).items():
        work.predict(folds, named)
    if work.failures:
        raise CasesFailed(work.failures, len(cases) - len(work.failures))
    ending = members[0].model.plan.file_ending
    return [Pair(pair, {case: folder / pair_name(pair) / "masks" / f"{case}{ending}" for case in cases}) for pair in pairs]


def _by_folds(members: Sequence[Member], cases: Sequence[str]) -> dict[tuple[str, ...], list[str]]:
    """The cases by which fold of each member held them out."""
    found: dict[tuple[str, ...], list[str]] = {}
    for case in cases:
        found.setdefault(tuple(member.fold_of[case] for member in members), []).append(case)
    return found


def _announce(dataset: Dataset, members: Sequence[Member], cases: Sequence[str], pairs: int, folder: Path) -> None:
    """Says what it takes before it starts."""
    plan = members[0].model.plan
    largest = max(prod(read_header(dataset.case(case).images[0].path, case=case).geometry.shape) for case in cases)
    scratch = len(members) * plan.label_scheme.heads * 2 * largest
    require_disk(folder, scratch, "one case's probabilities")
    logger.info(
        "%d pairs on %d cases: each case is predicted once by each of %d models, %d predictions in all; at most %.2f GB of disk for the "
        "probabilities of one case at a time. Masks that are there are kept",
        pairs,
        len(cases),
        len(members),
        len(members) * len(cases),
        scratch / 1e9,
    )


class _Work:
    """Predicts cases fold by fold."""

    def __init__(self, dataset: Dataset, members: tuple[Member, ...], folder: Path, device: torch.device, precision: Precision, total: int):
        self.dataset, self.members, self.folder = dataset, members, folder
        self.device, self.precision, self.total = device, precision, total
        self.places = list(combinations(range(len(members)), 2))
        self.records = [Records(folder / pair_name([members[i], members[j]]) / "masks") for i, j in self.places]
        self.failures: list[str] = []
        self.done = 0
        self.seconds: list[float] = []
        for records in self.records:
            records.folder.mkdir(parents=True, exist_ok=True)

    def predict(self, folds: tuple[str, ...], cases: Sequence[str]) -> None:
        """The cases that these folds of the members held out."""
        from autoseg.inference.ensemble import Ensemble
        from autoseg.inference.stages import Stage

        stages = [
            Stage(member.model, [fold], device=self.device, precision=self.precision)
            for member, fold in zip(self.members, folds, strict=True)
        ]
        keys = [files.sha256_json(Ensemble((stages[i], stages[j])).settings) for i, j in self.places]
        for name in cases:
            case = self.dataset.case(name)
            started = time.monotonic()
            try:
                new = self._predict_case(Ensemble(tuple(stages)), keys, case)
            except (AutosegError, OSError, MemoryError) as error:
                self.failures.append(str(error))
                if self.done + len(self.failures) < self.total:  # else the list of all that failed, which comes next, tells it
                    logger.error("%s", error)
                continue
            self.done += 1
            if new:
                self._tell(name, time.monotonic() - started)

    def _predict_case(self, ensemble: Ensemble, keys: Sequence[str], case: Case) -> bool:
        """Whether there was something to do."""
        from autoseg.inference.case_images import read_case_images
        from autoseg.inference.ensemble import average
        from autoseg.inference.memory import check_fits

        plan = self.members[0].model.plan
        mask = f"{case.name}{plan.file_ending}"
        missing = [index for index, records in enumerate(self.records) if records.complete(case, keys[index], [mask]) is None]
        if not missing:
            return False
        geometry = read_header(case.images[0].path, case=case.name).geometry
        geometry = reorientation_for(geometry, plan.orientation).apply_geometry(geometry)
        check_fits(ensemble.estimate(geometry.shape, geometry.spacing), case.name)
        ready = ensemble.prepare(read_case_images(case, plan))
        scheme = plan.label_scheme
        with ensemble.probabilities(ready, case.name, self.folder) as parts:
            for index in missing:
                first, second = self.places[index]
                drawn = average([parts[first], parts[second]], scheme.painted_values, regions=scheme.has_regions)
                path = self.records[index].folder / mask
                write_mask(path, drawn, ready.geometry)
                self.records[index].add(Record(case.name, keys[index], hash_inputs(case), {mask: files.sha256_file(path)}, ready.notes))
        return True

    def _tell(self, case: str, seconds: float) -> None:
        self.seconds.append(seconds)
        left = (self.total - self.done) * sum(self.seconds) / len(self.seconds)
        logger.info("case %s: %.1f s; %d of %d cases, about %s left", case, seconds, self.done, self.total, duration(left))
