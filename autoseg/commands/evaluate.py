"""autoseg_evaluate: how good predicted masks are against reference masks."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg.commands.entry import add_shared_options, parser, run

if TYPE_CHECKING:
    from autoseg.evaluation import Evaluation
    from autoseg.evaluation.answers_scored import Answers
    from autoseg.evaluation.challenges import ChallengeScores
    from autoseg.evaluation.names import Names

CHALLENGES = ("hecktor2022", "hecktor2025", "hecktor2026")
ANSWERS = {"rfs": "recurrence-free survival", "hpv": "the HPV status", "t-stage": "the T stage", "n-stage": "the N stage"}
"""What a challenge may ask for besides masks."""

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script."""
    options = parser("autoseg_evaluate", "Compare predicted masks with reference masks: per case, label, centre and overall.")
    options.add_argument("reference", type=Path, metavar="REFERENCE", help="folder of reference masks")
    options.add_argument("prediction", type=Path, metavar="PREDICTION", help="folder of predicted masks, named as the reference's")
    options.add_argument(
        "-d",
        "--dataset",
        type=Path,
        metavar="DIR",
        help="the dataset (or model) folder that names classes and centres, and has the images for --pictures (default: the current folder "
        "where it is one, else the folder that holds REFERENCE)",
    )
    add_shared_options(options, dataset=False)
    options.add_argument("--nsd-tolerance", type=float, default=2.0, metavar="MM", help="tolerance of the normalised surface Dice")
    options.add_argument(
        "--lesion-iou",
        type=float,
        metavar="IOU",
        help="what the overlap of two lesions must exceed to match (default: 0.1, and the challenge's 0.3 with --scores)",
    )
    options.add_argument("--connectivity", type=int, choices=(6, 18, 26), default=26, help="neighbours within a lesion")
    options.add_argument("--geometry-tolerance", type=float, default=0.1, metavar="VOXELS", help="how far two grids' corners may lie apart")
    options.add_argument("--csv", type=Path, metavar="FILE", help="also write a row a case and label to FILE")
    options.add_argument("--summary", type=Path, metavar="FILE", help="also write nnU-Net's summary.json shape to FILE")
    options.add_argument("--pictures", type=Path, metavar="DIR", help="also draw each case's image with both masks into DIR")
    _add_challenge(options)
    sys.exit(run(_evaluate, options, arguments))


def _add_challenge(options: argparse.ArgumentParser) -> None:
    group = options.add_argument_group("a challenge's own figures")
    group.add_argument("--scores", choices=CHALLENGES, help="also print the figures by which this challenge ranks")
    for name, what in ANSWERS.items():
        group.add_argument(
            f"--{name}",
            type=Path,
            metavar="TABLE",
            help=f"predictions of {what}: PatientID,Prediction, or a folder of a container's outputs with one folder a patient",
        )
    group.add_argument("--sense", choices=("risk", "time"), help="what a higher prediction of --rfs means; needed with it")
    group.add_argument("--outcomes", type=Path, metavar="TABLE", help="what is known: PatientID or case, and Relapse, RFS, HPV Status, ...")


def _evaluate(parsed: argparse.Namespace) -> dict[str, Any]:
    from autoseg.errors import AutosegError, CasesFailed, DatasetError
    from autoseg.evaluation import evaluate
    from autoseg.evaluation.names import names_for

    challenge = _Challenge.of(parsed)
    names = names_for(parsed.reference, parsed.dataset, are_labels_known=challenge is not None)
    if challenge:
        challenge.require_labels(names)
        challenge.check(parsed.reference)
    if parsed.pictures and names.folder is None:
        raise DatasetError("--pictures needs the images: name the dataset folder with -d DIR")
    masks = challenge.masks(parsed.prediction) if challenge else parsed.prediction
    lesion_iou = 0.1 if parsed.lesion_iou is None else parsed.lesion_iou
    try:
        evaluation = evaluate(
            parsed.reference,
            masks,
            labels=challenge.labels if challenge else names.labels,
            centres=names.centres,
            tolerance_mm=parsed.nsd_tolerance,
            lesion_iou=challenge.lesion_iou if challenge else lesion_iou,
            connectivity=parsed.connectivity,
            geometry_tolerance=parsed.geometry_tolerance,
            missing_is_empty=challenge is not None,
            workers=parsed.workers,
            progress="evaluate",
        )
    except ValueError as error:
        raise AutosegError(str(error)) from error
    _write(parsed, evaluation, masks)
    print(evaluation.table())
    result, failures = evaluation.to_dict(), list(evaluation.failures.values())
    if challenge:
        scores = challenge.score(evaluation)
        print(f"\n{scores.text()}")
        result["challenge"], failures = scores.to_dict(), [*failures, *scores.failures]
    if names.folder and parsed.pictures:
        _draw(parsed, evaluation, names.folder, masks)
    if failures:
        done = sum(case.case not in evaluation.failures for case in evaluation.cases)
        raise CasesFailed(failures, done, result, reported=True)
    return result


@dataclass(frozen=True)
class _Challenge:
    """What --scores asks for."""

    name: str
    answers: Answers

    @staticmethod
    def of(parsed: argparse.Namespace) -> _Challenge | None:
        """None without --scores; what cannot be meant is told before masks are read."""
        from autoseg.errors import DatasetError
        from autoseg.evaluation.answers_scored import Answers
        from autoseg.evaluation.challenges import SETTINGS, challenge_of

        places = {name: place for name in ANSWERS if (place := getattr(parsed, name.replace("-", "_"))) is not None}
        if parsed.scores is None:
            unused = [*places, *(name for name in ("sense", "outcomes") if getattr(parsed, name) is not None)]
            if unused:
                raise DatasetError(f"--{unused[0]}: belongs to a challenge; name it with --scores")
            return None
        if parsed.lesion_iou not in (None, SETTINGS.lesion_iou):
            raise DatasetError(f"--lesion-iou {parsed.lesion_iou:g}: {parsed.scores} detects lesions above {SETTINGS.lesion_iou:g}")
        answers = Answers(places, parsed.outcomes, parsed.sense)
        challenge_of(parsed.scores, answers)
        return _Challenge(parsed.scores, answers)

    @property
    def labels(self) -> Mapping[str, int]:
        from autoseg.evaluation.challenges import LABELS

        return LABELS

    @property
    def lesion_iou(self) -> float:
        from autoseg.evaluation.challenges import SETTINGS

        return SETTINGS.lesion_iou

    def require_labels(self, names: Names) -> None:
        """Raises DatasetError where the masks' dataset gives the challenge's labels other values."""
        from autoseg.evaluation.challenges import require_labels

        require_labels(names.labels, str(names.folder))

    def check(self, reference: Path) -> None:
        """Raises DatasetError where a table cannot be used, before masks are read."""
        from autoseg.evaluation import find_masks
        from autoseg.evaluation.challenges import check_answers

        check_answers(self.name, self.answers, find_masks(reference, "reference"))

    def masks(self, prediction: Path) -> Any:
        """The folder itself, or the masks in a folder of a container's outputs."""
        from autoseg.evaluation.challenges import container_masks

        return container_masks(prediction) or prediction

    def score(self, evaluation: Evaluation) -> ChallengeScores:
        from autoseg.evaluation.challenges import score_challenge

        return score_challenge(evaluation, self.name, self.answers)


def _write(parsed: argparse.Namespace, evaluation: Evaluation, masks: Any) -> None:
    from autoseg import files
    from autoseg.evaluation import find_masks

    if parsed.csv:
        files.write_text(parsed.csv, evaluation.to_csv())
    if parsed.summary:
        references, predictions = find_masks(parsed.reference), find_masks(masks)
        pairs = {case.case: (references[case.case], predictions[case.case]) for case in evaluation.cases if case.case in predictions}
        # NaN as a bare word, as nnU-Net writes and reads it
        files.write_text(parsed.summary, json.dumps(evaluation.to_nnunet_summary(pairs, keep_nan=True), indent=4) + "\n")


def _draw(parsed: argparse.Namespace, evaluation: Evaluation, dataset: Path, masks: Any) -> None:
    from autoseg.evaluation.pictures import draw_cases

    drawn = draw_cases(evaluation, parsed.reference, masks, dataset, parsed.pictures)
    print(f"pictures of {len(drawn)} cases: {parsed.pictures}")


if __name__ == "__main__":
    main()
