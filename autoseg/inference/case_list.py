"""A list of cases predicted into a folder: resumed, one bad case not stopping the others, the next one read while the network works."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from autoseg import files
from autoseg.dataset.case import Case
from autoseg.errors import AutosegError, CasesFailed, DatasetError
from autoseg.images import Geometry, read_header, read_mask, write_mask
from autoseg.inference.case_images import read_case_images
from autoseg.inference.ensemble import PROBABILITY
from autoseg.inference.lookahead import Lookahead
from autoseg.inference.memory import check_fits
from autoseg.inference.outputs import output_files, probabilities_path
from autoseg.inference.records import NAME as RECORDS_NAME
from autoseg.inference.records import Record, Records, hash_inputs
from autoseg.inference.review import Review
from autoseg.resources import available_memory

if TYPE_CHECKING:
    from autoseg.inference.predictor import Predictor, Waiting

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CaseResult:
    """One case of a list: where its mask lies, what was noted, whether it was there already, and how much it is to be trusted."""

    case: str
    path: Path
    notes: tuple[str, ...]
    seconds: float
    skipped: bool = False
    review: Review | None = None


@dataclass(frozen=True)
class CaseList:
    """How cases are predicted into a folder.

    Attributes:
        predictor: with the networks.
        folder: is there and can be written to.
        save_probabilities, replace_nonfinite, strict: as in `Predictor.predict_cases`.
    """

    predictor: Predictor
    folder: Path
    save_probabilities: bool = False
    replace_nonfinite: bool = False
    strict: bool = False

    def predict(
        self, cases: Sequence[Case], *, resume: bool, prefetch: bool, report: Callable[[CaseResult], None]
    ) -> tuple[dict[str, CaseResult], dict[str, Exception]]:
        """The finished cases, and what went wrong with the others, by name; arguments as in `Predictor.predict_cases`."""
        records = Records(self.folder)
        key = files.sha256_json(self.predictor.settings)
        results: dict[str, CaseResult] = {}
        errors: dict[str, Exception] = {}
        if resume:
            results = self._finished(cases, records, key)
            logger.info("%d of %d cases are predicted already", len(results), len(cases))
            for result in results.values():
                report(result)
        waiting = [case for case in cases if case.name not in results]
        with Lookahead(self._read, self._room_for_next, enabled=prefetch) as lookahead:
            for case, following in zip_longest(waiting, waiting[1:]):
                started = time.monotonic()
                path = self.mask_path(case)
                try:
                    taken = lookahead.take(case)
                    if following is not None:
                        lookahead.start(following)
                    review = self._write(taken, case.name, path)
                    hashes = {file.name: files.sha256_file(file) for file in output_files(path, self.save_probabilities)}
                    records.add(Record(case.name, key, hash_inputs(case), hashes, taken.notes, review, self.predictor.shift.key))
                except (AutosegError, OSError, MemoryError) as error:
                    errors[case.name] = error
                    if following is not None:  # else the list of all that failed, which comes next, tells it
                        logger.error("%s", error)
                    if path.exists():
                        logger.warning("case %s failed: %s, which is there, is not to be taken for its mask", case.name, path)
                    continue
                results[case.name] = CaseResult(case.name, path, taken.notes, time.monotonic() - started, review=review)
                report(results[case.name])
        return results, errors

    def mask_path(self, case: Case) -> Path:
        """Where a case's mask is written."""
        return self.folder / f"{case.name}{self.predictor.plan.file_ending}"

    def outputs(self, case: Case) -> list[Path]:
        """All files that a case's prediction writes."""
        return output_files(self.mask_path(case), self.save_probabilities)

    def _finished(self, cases: Sequence[Case], records: Records, key: str) -> dict[str, CaseResult]:
        done = {}
        for case in cases:
            record = records.complete(case, key, [file.name for file in self.outputs(case)])
            if record is None:
                continue
            if record.review is not None and record.judged != self.predictor.shift.key:
                record = self._judged_anew(case, record, record.review)
                records.add(record)
            refused = self.strict and (record.review is None or record.review.findings)
            if not refused:
                done[case.name] = CaseResult(case.name, self.mask_path(case), record.notes, 0.0, True, record.review)
        return done

    def _judged_anew(self, case: Case, record: Record, before: Review) -> Record:
        """The record of a mask that stands, reviewed by what the models now tell of their training cases."""
        logger.info("case %s: predicted already; reviewed anew, since what is known of the training images has changed", case.name)
        shift = self.predictor.shift
        images = read_case_images(case, self.predictor.plan, replace_nonfinite=True)  # a prediction by these models took them so
        findings = shift.judge(images, case.name)
        found = bool(read_mask(self.mask_path(case), case=case.name).array.any())
        old = {finding.text for finding in before.findings}
        notes = [note for note in record.notes if note not in old] + [finding.text for finding in findings]
        review = before.judged_anew(findings, found=found, unlabelled=shift.unlabelled)
        return replace(record, notes=tuple(dict.fromkeys(notes)), review=review, judged=shift.key)

    def _room_for_next(self, case: Case) -> bool:
        """Whether another case can be prepared while this one is predicted."""
        try:
            estimate = self.predictor.estimate_of(read_header(case.images[0].path).geometry, 4)
        except AutosegError:
            return True  # reading it will say what is wrong
        together = estimate.peak + estimate.prepared + estimate.images + estimate.preparing
        return together < available_memory()

    def _read(self, case: Case) -> Waiting:
        header = read_header(case.images[0].path, case=case.name)
        check_fits(self.predictor.estimate_of(header.geometry, np.dtype(header.dtype).itemsize, tell=True), case.name)
        images = read_case_images(case, self.predictor.plan, replace_nonfinite=self.replace_nonfinite)
        return self.predictor.prepare(images, case.name, self.strict)

    def _write(self, waiting: Waiting, case: str, path: Path) -> Review:
        geometry = waiting.ready.geometry
        if not self.save_probabilities:
            mask, review = self.predictor.segment(waiting, case, None, self.folder)
            self._save(path, mask, geometry)
            return review
        found: list[Review] = []

        def write(temporary: Path) -> None:
            shape = (len(self.predictor.segmenter.label_values), *geometry.shape)
            target = np.lib.format.open_memmap(temporary, mode="w+", dtype=PROBABILITY, shape=shape)
            with open(temporary, "r+b") as stream:
                files.allocate(stream.fileno(), temporary.stat().st_size)
            mask, review = self.predictor.segment(waiting, case, target, self.folder)
            self._save(path, mask, geometry)
            target.flush()
            found.append(review)

        files.replace_with(probabilities_path(path), write)
        return found[0]

    def _save(self, path: Path, mask: np.ndarray, geometry: Geometry) -> None:
        (self.folder / RECORDS_NAME).touch()  # before the first mask: a mask without it is somebody else's, and is not replaced
        write_mask(path, mask, geometry)


def raise_failures(errors: Mapping[str, Exception], failures: Sequence[str], *, done: int, cases: int, raise_single: bool) -> None:
    """Raises what went wrong with a list, where something did.

    Args:
        errors: of cases that were tried, by name.
        failures: messages about cases that could not even be listed.
        done, cases: how many are finished, how many were to be tried.
        raise_single: raise the own error of a case that was the only one, rather than CasesFailed.
    """
    if raise_single and cases + len(failures) == 1 and (errors or failures):
        raise next(iter(errors.values())) if errors else DatasetError(failures[0])
    if errors or failures:
        by_case = {case: str(error) for case, error in errors.items()}
        raise CasesFailed([*failures, *by_case.values()], done, by_case=by_case)
