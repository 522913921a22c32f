"""Rules that take components of a predicted mask away: all but the largest, or those that are too small.

A component is what 26 neighbours connect in the image's own grid. The rules know labels and regions alike: what a class is, the plan's
label scheme says.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from autoseg.errors import ModelError
from autoseg.evaluation.lesions import label_components
from autoseg.evaluation.overlap import bounding_box
from planners.labels import LabelScheme

LARGEST, MINIMUM = "largest_component", "minimum_size"


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        kind: "largest_component" keeps the largest component, and all of that size where there are several; "minimum_size" keeps those of
            at least `mm3`.
        classes: names of labels or regions, whose union the components are of.
        mm3: for "minimum_size".
    """

    kind: Literal["largest_component", "minimum_size"]
    classes: tuple[str, ...]
    mm3: float = 0.0

    def removes(self, voxels: np.ndarray, voxel_mm3: float) -> np.ndarray:
        """Which components go, bool (n,); `voxels` are their sizes."""
        if self.kind == LARGEST:
            return voxels < voxels.max(initial=0)
        # The tolerance is for sizes that are the threshold itself but for rounding.
        return voxels * voxel_mm3 < self.mm3 * (1 - 1e-9)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"rule": self.kind, "of": list(self.classes), **({"mm3": self.mm3} if self.kind == MINIMUM else {})}

    @staticmethod
    def from_dict(document: Any, source: str) -> Rule:
        """The rule in such a document; ModelError where it is none."""
        known = isinstance(document, dict) and document.get("rule") in (LARGEST, MINIMUM)
        if not known or set(document) != {"rule", "of", *(["mm3"] if document["rule"] == MINIMUM else [])}:
            raise ModelError(
                f"{source}: {document!r} is no rule of postprocessing: expected {{'rule': '{LARGEST}', 'of': [classes]}} or "
                f"{{'rule': '{MINIMUM}', 'of': [classes], 'mm3': number}}"
            )
        classes, mm3 = document["of"], document.get("mm3", 0.0)
        names = isinstance(classes, list) and classes and all(isinstance(name, str) for name in classes)
        if not names or isinstance(mm3, bool) or not isinstance(mm3, int | float) or not math.isfinite(mm3) or mm3 < 0:
            raise ModelError(f"{source}: {document!r}: 'of' must be a list of class names, and 'mm3' a number, 0 or more")
        return Rule(document["rule"], tuple(classes), float(mm3))

    def __str__(self) -> str:
        what = " and ".join(self.classes)
        together = " together" if len(self.classes) > 1 else ""
        if self.kind == LARGEST:
            return f"only the largest component of {what}{together}"
        return f"no component of {what}{together} below {self.mm3:g} mm3"


@dataclass(frozen=True)
class Components:
    """The components of some classes in a mask.

    Attributes:
        box: slices of the mask that hold all of them.
        numbers: component of each voxel in the box, from 1; 0 for none.
        voxels: size of each, shape (n,).
    """

    box: tuple[slice, ...]
    numbers: np.ndarray
    voxels: np.ndarray


def find_components(mask: np.ndarray, classes: Iterable[str], scheme: LabelScheme) -> Components:
    """The components of the union of these classes.

    Args:
        mask: integers, (z, y, x).
    """
    outer = bounding_box(mask != 0) or (slice(0, 0),) * mask.ndim
    inside = _chosen(mask[outer], classes, scheme)
    inner = bounding_box(inside) or (slice(0, 0),) * mask.ndim
    numbers, count = label_components(inside[inner])
    box = tuple(slice(a.start + b.start, a.start + b.stop) for a, b in zip(outer, inner, strict=True))
    return Components(box, numbers, np.bincount(numbers.ravel(), minlength=count + 1)[1:])


def apply_rule(
    mask: np.ndarray, rule: Rule, spacing: Sequence[float], scheme: LabelScheme, components: Components | None = None
) -> np.ndarray:
    """The mask after one rule; the same object where nothing goes.

    Args:
        components: of this rule's classes in this mask, where they are known already.
    """
    components = components or find_components(mask, rule.classes, scheme)
    gone = np.concatenate([[False], rule.removes(components.voxels, math.prod(spacing))])
    if not gone.any():
        return mask
    result = mask.copy()
    part, there = result[components.box], gone[components.numbers]
    table = np.arange(int(mask.max()) + 1, dtype=mask.dtype)
    for value, remains in replacements(rule.classes, scheme).items():
        if value < len(table):
            table[value] = remains
    part[there] = table[part[there]]
    return result


def postprocess(mask: np.ndarray, rules: Iterable[Rule], spacing: Sequence[float], scheme: LabelScheme) -> np.ndarray:
    """The mask after all rules, one after another.

    Args:
        mask: integers on the image's own grid, (z, y, x).
        spacing: of that grid, mm, (z, y, x).
        scheme: what the values mean.
    """
    for rule in rules:
        mask = apply_rule(mask, rule, spacing, scheme)
    return mask


def replacements(classes: Iterable[str], scheme: LabelScheme) -> dict[int, int]:
    """Mask value -> the value of a voxel that no longer belongs to these classes.

    Exclusive labels become background. A voxel of a region stays in the regions that it is in besides, but for those inside a region that
    goes; where no value says just that, it becomes background.
    """
    foreground = scheme.foreground
    gone = [set(foreground[name]) for name in classes]
    left = {name for name, values in foreground.items() if not any(set(values) <= region for region in gone)}
    member = {value: {name for name, values in foreground.items() if value in values} for values in foreground.values() for value in values}
    painted = scheme.painted_values
    by_choice = sorted(member, key=lambda value: (value not in painted, value))
    found = {}
    for value in sorted(set().union(*gone)):
        stays = member[value] & left
        found[value] = next((other for other in by_choice if member[other] == stays), 0) if stays else 0
    return found


def check_rules(rules: Iterable[Rule], scheme: LabelScheme, source: str) -> None:
    """ModelError where a rule is about a class that the model does not have."""
    for rule in rules:
        unknown = [name for name in rule.classes if name not in scheme.foreground]
        if unknown:
            raise ModelError(f"{source}: a rule is about {', '.join(unknown)}; the model has: {', '.join(scheme.foreground)}")


def rules_text(rules: Sequence[Rule]) -> str:
    """The rules in words."""
    return "; then ".join(map(str, rules)) if rules else "none"


def parse_rules(documents: Any, source: str) -> tuple[Rule, ...]:
    """The rules in a list of documents; ModelError where it is none."""
    if not isinstance(documents, list):
        raise ModelError(f"{source}: 'postprocessing' must be a list of rules")
    return tuple(Rule.from_dict(document, source) for document in documents)


def _chosen(mask: np.ndarray, classes: Iterable[str], scheme: LabelScheme) -> np.ndarray:
    foreground: Mapping[str, tuple[int, ...]] = scheme.foreground
    return np.isin(mask, sorted({value for name in classes for value in foreground[name]}))
