"""What a network learns from a mask's values: exclusive labels, or regions that may overlap; and which value says nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Values = int | tuple[int, ...]

IGNORE = "ignore"
"""The name of the label whose voxels teach and score nothing."""


@dataclass(frozen=True)
class LabelScheme:
    """The one place that knows of regions and of the ignore label.

    With labels each voxel has one class and the network one output (softmax) a class, background included, by ascending value. With
    regions (at least one class is several values) each foreground class has an output of its own (sigmoid), in the order of declaration,
    and a mask is painted from them: region after region, each with its value of `region_order`, so that later ones cover earlier ones.

    Attributes:
        labels: name -> its value in the masks, or the values that make up a region; the background's is 0.
        region_order: the value that each region is painted with; empty for labels.
    """

    labels: Mapping[str, Values]
    region_order: tuple[int, ...] = ()

    @property
    def has_regions(self) -> bool:
        """Whether classes may overlap."""
        return any(not isinstance(value, int) for value in self.labels.values())

    @property
    def ignore(self) -> int | None:
        """The value of voxels that say nothing; None where all do."""
        return next((value for name, value in self.labels.items() if name == IGNORE and isinstance(value, int)), None)

    @property
    def foreground(self) -> dict[str, tuple[int, ...]]:
        """Class -> the mask values that belong to it: labels by ascending value, regions as declared; without background and ignore."""
        found = {name: _values(value) for name, value in self.labels.items() if name != IGNORE and _values(value) != (0,)}
        return found if self.has_regions else dict(sorted(found.items(), key=lambda item: item[1]))

    @property
    def classes(self) -> dict[str, Values]:
        """As `foreground`, with a plain number for a class of one value, as it is declared."""
        return {name: values[0] if len(values) == 1 else values for name, values in self.foreground.items()}

    @property
    def heads(self) -> int:
        """Outputs of a network."""
        return len(self.foreground) + (0 if self.has_regions else 1)

    @property
    def mask_values(self) -> tuple[int, ...]:
        """The values that a reference mask may hold, ascending: background and ignore included."""
        return tuple(sorted({0} | {v for value in self.labels.values() for v in _values(value)}))

    @property
    def painted_values(self) -> tuple[int, ...]:
        """The value that each output paints into a predicted mask, output by output: with labels the background's 0 first."""
        return self.region_order if self.has_regions else (0, *(values[0] for values in self.foreground.values()))

    @property
    def meaning(self) -> dict[str, Any]:
        """What the outputs of a network mean, as JSON: equal for schemes that can share weights. For labels the names and values alone;
        regions have an order too."""
        if not self.has_regions:
            return dict(self.labels)
        return {"regions": [[name, list(values)] for name, values in self.foreground.items()], "order": list(self.region_order)} | (
            {} if self.ignore is None else {IGNORE: self.ignore}
        )

    def painted(self, value: int) -> int:
        """What a mask shows in the end where the truth is `value` and every region is found."""
        shown = 0
        for paint, values in zip(self.painted_values[0 if self.has_regions else 1 :], self.foreground.values(), strict=True):
            shown = paint if value in values else shown
        return shown

    def misshown(self) -> tuple[tuple[str, int, int], ...]:
        """(class, value, shown) wherever a mask that is painted right shows `shown` for `value`, and only one of them is of the class."""
        truths = [value for value in self.mask_values if value not in (0, self.ignore)]
        return tuple(
            (name, value, self.painted(value))
            for name, values in self.foreground.items()
            for value in truths
            if (value in values) != (self.painted(value) in values)
        )


def scheme_problems(labels: Mapping[str, Values], region_order: Sequence[int] = ()) -> list[str]:
    """What is wrong with regions, their order and the ignore label; empty where all is well, and for plain labels.

    Each problem is a text "field: what is wrong"; the fields are those of dataset.json.
    """
    scheme = LabelScheme(labels, tuple(region_order))
    problems = [*_ignore_problems(scheme)]
    if scheme.has_regions:
        shapes = [*_region_problems(scheme)]
        problems += shapes or [*_order_problems(scheme)]
    elif region_order:
        problems.append("regions_class_order: stands without a region: no class of 'labels' is a list of values. Leave it out")
    return problems


def _ignore_problems(scheme: LabelScheme) -> Iterator[str]:
    for name, value in scheme.labels.items():
        if name != IGNORE and name.strip().lower() == IGNORE:
            yield f"labels.{name}: the label whose voxels count for nothing must be called {IGNORE!r}, in small letters"
        elif name == IGNORE and not isinstance(value, int):
            yield f"labels.{IGNORE}: must be one value, found {list(value)}"
    others = {v for name, value in scheme.labels.items() if name != IGNORE for v in _values(value)}
    if scheme.ignore is not None and others and scheme.ignore != max(others) + 1:
        yield f"labels.{IGNORE}: must be the highest value, found {scheme.ignore} beside {sorted(others)}"


def _region_problems(scheme: LabelScheme) -> Iterator[str]:
    seen: dict[frozenset[int], str] = {}
    for name, values in scheme.foreground.items():
        field = f"labels.{name}"
        if not values:
            yield f"{field}: a region needs at least one value, found an empty list"
            continue
        if len(set(values)) < len(values):
            yield f"{field}: names a value twice: {list(values)}"
        if 0 in values:
            yield f"{field}: holds 0, which is the background and belongs to no region; found {list(values)}"
        if scheme.ignore is not None and scheme.ignore in values:
            yield f"{field}: holds {scheme.ignore}, the value of {IGNORE!r}, whose voxels belong to no region; found {list(values)}"
        other = seen.setdefault(frozenset(values), name)
        if other != name:
            yield f"{field}: is the same region as {other!r}, {sorted(set(values))}. Leave one of them out"


def _order_problems(scheme: LabelScheme) -> Iterator[str]:
    field, order, regions = "regions_class_order", scheme.region_order, scheme.foreground
    if len(order) != len(regions):
        yield (
            f"{field}: must give each of the {len(regions)} classes ({', '.join(regions)}; in this order, without background and ignore) "
            f"the value that it is painted with, found {list(order) or 'none'}"
        )
        return
    strangers = [
        f"{name!r} is painted with {paint}, which is none of its values {list(values)}"
        for paint, (name, values) in zip(order, regions.items(), strict=True)
        if paint not in values
    ]
    if strangers:
        yield f"{field}: {'; '.join(strangers)}: a mask could not be read back as these regions"
        return
    for paint in sorted({paint for paint in order if order.count(paint) > 1}):
        same = " and ".join(repr(name) for name, own in zip(regions, order, strict=True) if own == paint)
        yield f"{field}: {same} are painted with the same value {paint}, so that a mask could not tell them apart"
    lost = [(name, value) for name, value, _ in scheme.misshown()]
    for name, values in regions.items():
        if all((name, value) in lost for value in values):
            yield (
                f"{field}: regions that are painted later cover all of {name!r}, so that no mask would ever show it. Declare the larger "
                "regions first, in 'labels' as in the order"
            )


def _values(value: Values) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value)
