"""What a feature is: its name, unit, group and definition, and its code in the IBSI manual where it has one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Group = Literal["volume", "image"]

EMPTY_MASK = "empty_mask"
NO_PRIMARY = "no_primary"
NO_NODES = "no_nodes"
PET_NOT_SUV = "pet_not_suv"
NO_PET = "no_pet"
NO_CT = "no_ct"

FLAGS = {
    EMPTY_MASK: "the mask holds no tumour at all: no feature has a value",
    NO_PRIMARY: "the mask holds nodes but no primary tumour: features of the primary have no value",
    NO_NODES: "the mask holds no node: nodal volumes and counts are 0, nodal uptake has no value",
    PET_NOT_SUV: "the PET image does not look like SUV: features of the PET have no value",
    NO_PET: "there is no PET image: features of the PET have no value",
    NO_CT: "there is no CT image: features of the CT have no value",
}
"""Every flag that a case may carry, and what it means for its row."""


@dataclass(frozen=True)
class Feature:
    """One column of the feature table.

    Attributes:
        name: the column's.
        unit: "ml", "mm", "SUV", "g", "1" for a plain number, ...
        group: "volume" for plain tumour volumes, which are a control of their own; "image" for all else.
        family: which module works it out: volume, uptake, nodal, shape or first_order.
        definition: in a line.
        ibsi: the code in the IBSI reference manual; "" where the manual has no such feature.
        channel: "CT" or "PET" where it needs that image's values, else "".
    """

    name: str
    unit: str
    group: Group
    family: str
    definition: str
    ibsi: str = ""
    channel: str = ""


def registered(features: Iterable[Feature]) -> Mapping[str, Feature]:
    """Name -> feature, in the given order.

    Raises:
        ValueError: two have the same name.
    """
    found: dict[str, Feature] = {}
    for feature in features:
        if feature.name in found:
            raise ValueError(f"two features are called {feature.name!r}")
        found[feature.name] = feature
    return found
