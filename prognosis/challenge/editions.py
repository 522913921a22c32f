"""What each edition's container must write, and where.

Sources: the challenges' submission pages and container templates (HECKTOR 2025 and 2026), as described in docs/challenge.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Output = Literal["mask", "rfs", "hpv", "t-stage", "n-stage"]


@dataclass(frozen=True)
class Edition:
    """One edition.

    Attributes:
        paths: output -> its file, relative to the output folder.
    """

    name: str
    paths: Mapping[Output, str]


EDITIONS: Mapping[str, Edition] = {
    edition.name: edition
    for edition in (
        Edition(
            "2025",
            {"mask": "images/tumor-lymph-node-segmentation/output.mha", "rfs": "rfs.json", "hpv": "hpv-status.json"},
        ),
        Edition(
            "2026",
            {
                "mask": "images/head-neck-tumor-segmentation/output.mha",
                "t-stage": "t-stage.json",
                "n-stage": "n-stage.json",
                "rfs": "rfs.json",
            },
        ),
    )
}
LABELS: Mapping[str, int] = {"GTVp": 1, "GTVn": 2}
"""In the mask."""
