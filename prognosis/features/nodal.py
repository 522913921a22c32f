"""Nodes against the primary tumour."""

from __future__ import annotations

import math

from prognosis.features.feature import Feature

FEATURES = (
    Feature("nodal_to_primary_volume", "1", "image", "nodal", "volume of all nodes / volume of the primary; 0 where there is no node"),
    Feature("nodal_to_primary_suv", "1", "image", "nodal", "SUVmax of the nodes / SUVmax of the primary", "", "PET"),
)


def ratio(nodal: float, primary: float) -> float:
    """Nodal over primary; nan where either has no value or the primary is not above 0."""
    return nodal / primary if primary > 0 and not math.isnan(nodal) else math.nan
