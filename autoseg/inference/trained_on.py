"""Which images weights were trained on, carried inside the weights' file: so that fine-tuning can see that a held-out case is none.

The safetensors header of a fold's weights lists the images as the first 16 hexadecimal digits of their files' SHA-256: someone who has an
image can find it there, and nobody else learns a name, a number of visits or anything of the image. A file that was converted or packed
anew in between is another file, and is not recognised.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg.dataset.case import Case
from autoseg.preprocessing.content import ContentHashes

KEY = "autoseg_trained_on"
SCHEMA = "autoseg-trained-on/1"
DIGITS = 16

LARGEST_HEADER = 100_000_000
"""Bytes; safetensors allows no more."""


@dataclass(frozen=True)
class TrainedOn:
    """The images that went into weights, also into those that they began from.

    Attributes:
        images: marks of image files, see `image_marks`.
        complete: false where the weights began from others that do not tell theirs.
    """

    images: frozenset[str]
    complete: bool = True

    def after(self, earlier: TrainedOn | None) -> TrainedOn:
        """What weights were trained on that began from others; `earlier` is what those tell, None for nothing."""
        if earlier is None:
            return TrainedOn(self.images, complete=False)
        return TrainedOn(self.images | earlier.images, self.complete and earlier.complete)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"schema": SCHEMA, "images": sorted(self.images), "complete": self.complete}

    @staticmethod
    def from_dict(document: Any) -> TrainedOn | None:
        """What such a document says; None where it is none of this schema."""
        if not isinstance(document, dict) or document.get("schema") != SCHEMA or not isinstance(document.get("images"), list):
            return None
        return TrainedOn(frozenset(map(str, document["images"])), document.get("complete") is True)

    def metadata(self) -> dict[str, str]:
        """What is written into a safetensors header."""
        return {KEY: json.dumps(self.to_dict(), separators=(",", ":"))}


def read_trained_on(path: Path) -> TrainedOn | None:
    """What a safetensors file says; None for weights that do not tell: imported ones, and those of early releases."""
    try:
        with open(path, "rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(min(length, LARGEST_HEADER)))
        return TrainedOn.from_dict(json.loads(header["__metadata__"][KEY]))
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return None


def image_marks(case: Case, hashes: ContentHashes) -> frozenset[str]:
    """The marks of a case's image files; its mask's file takes no part.

    Raises:
        OSError: a file cannot be read.
    """
    return frozenset(hashes.of(source.path)[:DIGITS] for source in case.images)


def trained_on(cases: Iterable[Case], hashes: ContentHashes) -> TrainedOn:
    """What a fold's weights were trained on that learned from these cases."""
    return TrainedOn(frozenset().union(*(image_marks(case, hashes) for case in cases)))
