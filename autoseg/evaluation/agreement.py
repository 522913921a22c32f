"""How often predicted classes agree with known ones: balanced accuracy, and each class's own share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Agreement:
    """Known against predicted classes.

    Attributes:
        recall: class -> share of its patients that were called so; the classes that some patient has, sorted.
        patients: class -> how many patients have it.
    """

    recall: Mapping[str, float]
    patients: Mapping[str, int]

    @staticmethod
    def of(known: Sequence[str], predicted: Sequence[str]) -> Agreement:
        """The agreement of two equally long lists of classes.

        Raises:
            ValueError: their lengths differ.
        """
        pairs = list(zip(known, predicted, strict=True))
        patients = {name: sum(one == name for one in known) for name in sorted(set(known))}
        right = {name: sum(one == other == name for one, other in pairs) for name in patients}
        return Agreement({name: right[name] / count for name, count in patients.items()}, patients)

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that some patient has; nan for no patient. A predicted class that nobody has is only a miss.

        Source: Brodersen et al., "The balanced accuracy and its posterior distribution", ICPR 2010, for any number of classes.
        """
        return math.fsum(self.recall.values()) / len(self.recall) if self.recall else math.nan
