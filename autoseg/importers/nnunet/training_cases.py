"""What nnU-Net left of its training cases beside a model: grids case by case, intensities of the labelled voxels pooled."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np

from autoseg import files
from autoseg.errors import ModelError
from autoseg.importers.nnunet.section import Section
from autoseg.importers.nnunet.source import FINGERPRINT, PLANS, TrainedModel
from planners.fingerprint import FingerprintInvalid
from planners.intensity import IntensityStatistics
from planners.partial_fingerprint import PartialFingerprint, Triple

logger = logging.getLogger(__name__)

Grids = tuple[tuple[Triple, ...], tuple[tuple[int, int, int], ...]]

STATISTICS = {"minimum": "min", "maximum": "max"}
"""Fields of ours that nnU-Net calls otherwise."""


def partial_fingerprint(trained: TrainedModel, plans: Section, channels: tuple[str, ...]) -> PartialFingerprint:
    """What plans.json and, where it is there and fits, dataset_fingerprint.json tell of the training cases.

    Nothing in a mask depends on it: what cannot be read is left out, and a warning says so.
    """
    foreground = _foreground(plans, len(channels))
    grids: Grids = ((), ())
    source = f"nnU-Net's {PLANS} alone, without {FINGERPRINT}"
    path = trained.folder / FINGERPRINT
    if path.is_file():
        try:
            grids = _grids(Section.of(files.read_json(path, error=ModelError), f"{trained.shown}/{FINGERPRINT}"), plans)
            source = f"nnU-Net's {PLANS} and {FINGERPRINT}"
        except (ModelError, FingerprintInvalid) as error:
            logger.warning("%s: %s is not used to judge new cases: %s", trained.shown, FINGERPRINT, error)
    try:
        return PartialFingerprint(source, channels, *grids, foreground)
    except FingerprintInvalid as error:
        logger.warning("%s: %s is not used to judge new cases: %s", trained.shown, FINGERPRINT, error)
        return PartialFingerprint(f"nnU-Net's {PLANS} alone", channels, foreground=foreground)


def _grids(document: Section, plans: Section) -> Grids:
    """Spacing and shape without the empty margin of each case; ModelError where the file is of other cases than the plans."""
    spacings = [_triple(row, document, "spacings", float) for row in document.sequence("spacings")]
    shapes = [_triple(row, document, "shapes_after_crop", int) for row in document.sequence("shapes_after_crop")]
    if not spacings or len(spacings) != len(shapes):
        raise ModelError(f"{document.where}: has {len(spacings)} spacings and {len(shapes)} shapes")
    order = [int(axis) for axis in plans.sequence("transpose_forward", 3)]
    for field, rows, slack in (
        ("original_median_spacing_after_transp", spacings, 1e-3),
        ("original_median_shape_after_transp", shapes, 1.0),
    ):
        if field not in plans:
            continue
        expected, found = plans.numbers(field, 3), np.median(np.asarray(rows, dtype=float), axis=0)[order]
        if not np.allclose(found, expected, rtol=1e-3, atol=slack):
            raise ModelError(f"{document.where}: is of other cases: their {field} is {found.tolist()}, that of {PLANS} {list(expected)}")
    return tuple(spacings), tuple(shapes)


def _foreground(plans: Section, channels: int) -> tuple[IntensityStatistics | None, ...]:
    """A channel's pooled labelled voxels; None where plans.json does not tell all of them."""
    named = "foreground_intensity_properties_per_channel"
    found = plans.take(named if named in plans else "foreground_intensity_properties_by_modality", {})
    return tuple(_statistics(found.get(str(channel)) if isinstance(found, dict) else None) for channel in range(channels))


def _statistics(document: Any) -> IntensityStatistics | None:
    names = ("mean", "median", "std", "minimum", "maximum", "percentile_00_5", "percentile_99_5")
    try:
        values = {name: float(document[STATISTICS.get(name, name)]) for name in names}
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return IntensityStatistics(**values) if all(map(math.isfinite, values.values())) else None


def _triple(row: Any, section: Section, name: str, kind: type) -> Any:
    try:
        values = tuple(kind(float(value)) for value in row)
    except (TypeError, ValueError, OverflowError):
        values = ()
    if len(values) != 3:
        raise section.wrong(name, "a list of three numbers a case", row)
    return values
