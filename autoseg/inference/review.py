"""What of a prediction a person should look at first: a score a case, its reasons, and the list of all cases by urgency."""

from __future__ import annotations

import csv
import io
from collections.abc import Container, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from autoseg import files
from autoseg.inference.agreement import Agreement
from planners.span import Finding

NAME = "review.csv"

AGREE_AT_LEAST = 0.7
"""Where folds or flips agree less (pairwise Dice), a case is listed for review."""

STALE = "failed in the last run: this mask is of an earlier one"

RARELY_EMPTY = 0.05
"""A mask without anything is a reason where at most this share of the training cases had nothing labelled."""


@dataclass(frozen=True)
class Review:
    """How much of a case's mask is to be trusted.

    The score is a ranking without units: agreement (confidence where there is one rater; the share of training cases without any label
    where the mask is empty) / (1 + number of findings). It was not calibrated: 0.8 does not promise a Dice of 0.8.

    Attributes:
        score: 0 (look at it first) to 1.
        agreement, confidence: see `Agreement`; None where not told.
        reasons: why a person should look at it; () where none is known.
        findings: what lies outside what training has seen; each is a reason.
    """

    score: float
    agreement: float | None
    confidence: float | None
    reasons: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()

    @staticmethod
    def of(agreement: Agreement, findings: tuple[Finding, ...], *, found: bool, unlabelled: float | None) -> Review:
        """The review of a finished case.

        Args:
            agreement: after the last tile.
            found: whether the mask has anything.
            unlabelled: share of the training cases in which nothing was labelled; None where that is not known.
        """
        return Review._of(agreement.agreement, agreement.confidence, findings, found, unlabelled)

    def judged_anew(self, findings: tuple[Finding, ...], *, found: bool, unlabelled: float | None) -> Review:
        """The review of the same mask by what models now tell of their training cases; arguments as `of`."""
        return Review._of(self.agreement, self.confidence, findings, found, unlabelled)

    @staticmethod
    def _of(agreed: float | None, sure: float | None, findings: tuple[Finding, ...], found: bool, unlabelled: float | None) -> Review:
        reasons = [finding.text for finding in findings]
        quality = agreed if agreed is not None else sure
        if not found:
            quality = unlabelled
            if unlabelled is None:
                reasons.append("nothing was found; whether training images were without anything labelled is not known")
            elif unlabelled <= RARELY_EMPTY:
                reasons.append("nothing was found; of the training images nearly all have something labelled")
        elif agreed is not None and agreed < AGREE_AT_LEAST:
            reasons.append(f"folds or flips disagree: the Dice of their masks among each other is {agreed:.2f}")
        return Review((quality or 0.0) / (1 + len(findings)), agreed, sure, tuple(reasons), findings)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"reasons": list(self.reasons), "findings": [_finding_dict(finding) for finding in self.findings]}

    @staticmethod
    def from_dict(document: Mapping[str, Any] | None) -> Review | None:
        """The review in plain JSON values; None from None.

        Raises:
            KeyError, TypeError: it is none.
        """
        if document is None:
            return None
        findings = tuple(Finding(**item | {"range": tuple(item["range"]) if item["range"] else None}) for item in document["findings"])
        return Review(document["score"], document["agreement"], document["confidence"], tuple(document["reasons"]), findings)


def by_urgency(reviews: Mapping[str, Review]) -> list[str]:
    """The cases, those with reasons first, each part by rising score."""
    return sorted(reviews, key=lambda case: (not reviews[case].reasons, reviews[case].score, case))


def write_review(folder: Path, reviews: Mapping[str, Review], stale: Container[str] = ()) -> Path:
    """Writes OUT/review.csv: a line a case, by urgency; its path.

    Args:
        stale: cases that failed now, so that a mask that is there is of an earlier run: a reason to look at them.
    """
    reviews = {case: replace(review, reasons=(STALE, *review.reasons)) if case in stale else review for case, review in reviews.items()}
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["case", "score", "agreement", "confidence", "reasons"])
    for case in by_urgency(reviews):
        review = reviews[case]
        table.writerow([case, *map(_number, (review.score, review.agreement, review.confidence)), " | ".join(review.reasons)])
    files.write_text(folder / NAME, text.getvalue())
    return folder / NAME


def to_review(reviews: Mapping[str, Review]) -> list[str]:
    """A line for each case that there is a reason to look at, the most urgent first."""
    cases = [case for case in by_urgency(reviews) if reviews[case].reasons]
    return [f"{case} (score {reviews[case].score:.2f}): {'; '.join(reviews[case].reasons)}" for case in cases]


def known(reviews: Iterable[tuple[str, Review | None]]) -> dict[str, Review]:
    """The cases that have a review: those of earlier releases have none."""
    return {case: review for case, review in reviews if review is not None}


def _finding_dict(finding: Finding) -> dict[str, Any]:
    return asdict(finding) | {"range": list(finding.range) if finding.range else None}


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
