"""What a network learns from a mask's values: exclusive labels, or regions that may overlap; and which value says nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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


def _values(value: Values) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value)
