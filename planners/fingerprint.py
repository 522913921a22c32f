"""What planning knows about a dataset: one small record a case, merged in any order.

Images never come here: `intensity.sketch` reduces one channel of one case to a few dozen numbers, and `intensity.pool` joins such
sketches so that every case weighs the same, however many voxels it has.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from planners.intensity import LEVELS, IntensitySketch, IntensityStatistics, pool, sketch
from planners.labels import Values
from planners.measures import Alignment, ChannelMeasures

__all__ = [
    "LEVELS",
    "CaseFingerprint",
    "CentreFingerprint",
    "Fingerprint",
    "FingerprintInvalid",
    "IntensitySketch",
    "IntensityStatistics",
    "merge",
    "pool",
    "sketch",
]

SCHEMA_NAME = "autoseg-fingerprint"
SCHEMA_VERSION = 3


class FingerprintInvalid(ValueError):  # noqa: N818
    """A fingerprint document breaks the schema, or cases cannot be merged; the message says where."""


@dataclass(frozen=True)
class CaseFingerprint:
    """What one case tells planning.

    Spacing (mm) and shapes (voxels) in array order (z, y, x) after reorientation. `relative_size`: voxels after cropping over voxels
    before. `orientation`: as stored, three letters such as "LPS". `foreground`, `body`: one sketch a channel, of the voxels with a label
    above 0 and of those in the non-zero region; None where there are none. `label_voxels`: label value -> voxels. `lesions`: label value
    -> the volume of each connected component, mm3. Voxels of the ignore label are in none of these. `measures`: noise and sharpness, one
    entry a channel, None where they were not measured; () means the same for all channels.
    """

    case: str
    patient: str
    centre: str
    spacing: tuple[float, float, float]
    shape: tuple[int, int, int]
    shape_after_crop: tuple[int, int, int]
    relative_size: float
    orientation: str
    foreground: tuple[IntensitySketch | None, ...]
    body: tuple[IntensitySketch | None, ...]
    label_voxels: Mapping[int, int]
    lesions: Mapping[int, tuple[float, ...]]
    measures: tuple[ChannelMeasures | None, ...] = ()
    alignment: Alignment | None = None

    @property
    def field_of_view(self) -> tuple[float, float, float]:
        """How far the whole image reaches, mm, (z, y, x)."""
        z, y, x = (n * s for n, s in zip(self.shape, self.spacing, strict=True))
        return z, y, x

    def measured(self, channel: int) -> ChannelMeasures | None:
        """Noise and sharpness of one channel; None where they were not measured."""
        return self.measures[channel] if self.measures else None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        document = asdict(self)
        document["label_voxels"] = {str(label): count for label, count in sorted(self.label_voxels.items())}
        document["lesions"] = {str(label): list(volumes) for label, volumes in sorted(self.lesions.items())}
        return document

    @staticmethod
    def from_dict(document: Mapping[str, Any]) -> CaseFingerprint:
        """The record from plain JSON values.

        Raises:
            FingerprintInvalid: an unknown or missing key, or a value that does not fit.
        """
        known = {field.name for field in fields(CaseFingerprint)}
        case = document.get("case", "?") if isinstance(document, Mapping) else "?"
        if not isinstance(document, Mapping) or set(document) != known:
            found = set(document) if isinstance(document, Mapping) else set()
            raise FingerprintInvalid(f"case {case}: unknown keys {sorted(found - known)}, missing keys {sorted(known - found)}")
        try:
            return CaseFingerprint(
                case=str(document["case"]),
                patient=str(document["patient"]),
                centre=str(document["centre"]),
                spacing=_three(document["spacing"], float),
                shape=_three(document["shape"], int),
                shape_after_crop=_three(document["shape_after_crop"], int),
                relative_size=float(document["relative_size"]),
                orientation=str(document["orientation"]),
                foreground=tuple(_sketch_from(item) for item in document["foreground"]),
                body=tuple(_sketch_from(item) for item in document["body"]),
                label_voxels={int(label): int(count) for label, count in document["label_voxels"].items()},
                lesions={int(label): tuple(float(v) for v in volumes) for label, volumes in document["lesions"].items()},
                measures=tuple(ChannelMeasures.from_dict(item) for item in document["measures"]),
                alignment=Alignment.from_dict(document["alignment"]),
            )
        except (TypeError, ValueError, AttributeError) as error:
            raise FingerprintInvalid(f"case {case}: {error}") from None


@dataclass(frozen=True)
class CentreFingerprint:
    """The cases of one centre: median spacing and its range a (z, y, x) axis, mm; pooled intensities, one entry a channel."""

    cases: int
    spacing: tuple[float, float, float]
    spacing_minimum: tuple[float, float, float]
    spacing_maximum: tuple[float, float, float]
    foreground: tuple[IntensityStatistics | None, ...]
    body: tuple[IntensityStatistics | None, ...]


@dataclass(frozen=True)
class Fingerprint:
    """All cases of a dataset, sorted by name, with what follows from them. Build it with `merge`."""

    channels: tuple[str, ...]
    labels: dict[str, Values]
    cases: tuple[CaseFingerprint, ...]

    @property
    def spacings(self) -> tuple[tuple[float, float, float], ...]:
        """One (z, y, x) a case, mm."""
        return tuple(case.spacing for case in self.cases)

    @property
    def shapes_after_crop(self) -> tuple[tuple[int, int, int], ...]:
        """One (z, y, x) a case, voxels."""
        return tuple(case.shape_after_crop for case in self.cases)

    @cached_property
    def relative_size(self) -> float:
        """Median over cases of voxels after cropping over voxels before."""
        return float(np.median([case.relative_size for case in self.cases]))

    @cached_property
    def foreground(self) -> tuple[IntensityStatistics | None, ...]:
        """Pooled labelled voxels, one entry a channel."""
        return _pool_channels(self.cases, len(self.channels), "foreground")

    @cached_property
    def body(self) -> tuple[IntensityStatistics | None, ...]:
        """Pooled voxels of the non-zero region, one entry a channel."""
        return _pool_channels(self.cases, len(self.channels), "body")

    @cached_property
    def centres(self) -> dict[str, CentreFingerprint]:
        """Each centre by name; a dataset without centres has the one centre ""."""
        names = sorted({case.centre for case in self.cases})
        return {name: _centre([case for case in self.cases if case.centre == name], len(self.channels)) for name in names}

    def to_json(self) -> str:
        """The document: schema, channels, labels and one record a case; sorted, indented, ending in a newline."""
        document = {
            "schema": f"{SCHEMA_NAME}/{SCHEMA_VERSION}",
            "channels": list(self.channels),
            "labels": self.labels,
            "cases": [case.to_dict() for case in self.cases],
        }
        return json.dumps(document, indent=1, allow_nan=False) + "\n"

    @staticmethod
    def from_json(text: str, source: str = "fingerprint") -> Fingerprint:
        """The fingerprint in a JSON text, migrated from older schemas.

        Raises:
            FingerprintInvalid: not JSON, an unknown key, a wrong value, or a schema newer than this release reads.
        """
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise FingerprintInvalid(f"{source}: not valid JSON: {error}") from None
        document = migrate(document, source)
        known = {"schema", "channels", "labels", "cases"}
        if set(document) != known:
            raise FingerprintInvalid(
                f"{source}: unknown keys {sorted(set(document) - known)}, missing keys {sorted(known - set(document))}"
            )
        try:
            return merge(document["channels"], document["labels"], [CaseFingerprint.from_dict(case) for case in document["cases"]])
        except (FingerprintInvalid, TypeError, AttributeError) as error:
            raise FingerprintInvalid(f"{source}: {error}") from None


def merge(channels: Sequence[str], labels: Mapping[str, Values], cases: Iterable[CaseFingerprint]) -> Fingerprint:
    """The fingerprint of some cases, in whatever order they come.

    Args:
        channels: the channels' names.
        labels: name -> value, or a region's values; background included.
        cases: one record a case.

    Raises:
        FingerprintInvalid: no cases, a case twice, or a case with another number of channels.
    """
    ordered = tuple(sorted(cases, key=lambda case: case.case))
    if not ordered:
        raise FingerprintInvalid("there are no cases to plan from")
    twice = sorted({a.case for a, b in zip(ordered, ordered[1:], strict=False) if a.case == b.case})
    if twice:
        raise FingerprintInvalid(f"these cases come twice: {', '.join(twice)}")
    for case in ordered:
        if not len(case.foreground) == len(case.body) == len(channels):
            raise FingerprintInvalid(
                f"case {case.case}: has {len(case.foreground)} foreground and {len(case.body)} body sketches, "
                f"the dataset has {len(channels)} channels"
            )
        if len(case.measures) not in (0, len(channels)):
            raise FingerprintInvalid(
                f"case {case.case}: has measures of {len(case.measures)} channels, the dataset has {len(channels)} channels"
            )
        shapes = (case.shape, case.shape_after_crop)
        if not all(math.isfinite(s) and s > 0 for s in case.spacing) or not all(n >= 1 for shape in shapes for n in shape):
            raise FingerprintInvalid(
                f"case {case.case}: spacing must be positive and shape at least 1, found {case.spacing}, {case.shape} and "
                f"{case.shape_after_crop}"
            )
    plain = {name: value if isinstance(value, int) else tuple(value) for name, value in labels.items()}
    return Fingerprint(tuple(channels), plain, ordered)


def _with(key: str, value: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A migration that tells of each case that something was not measured."""

    def migration(document: dict[str, Any]) -> dict[str, Any]:
        cases = document.get("cases")
        if not isinstance(cases, list):
            return document
        return {**document, "cases": [{**case, key: value} if isinstance(case, dict) else case for case in cases]}

    return migration


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _with("measures", []), 2: _with("alignment", None)}
"""Version n -> a pure function that turns a document of version n into one of version n + 1."""


def migrate(document: Any, source: str = "fingerprint") -> dict[str, Any]:
    """The document in the current schema version; what an older one did not measure is marked so.

    Raises:
        FingerprintInvalid: no object, or a schema that is missing, foreign or newer than this release.
    """
    if not isinstance(document, dict):
        raise FingerprintInvalid(f"{source}: must be a JSON object, found {type(document).__name__}")
    name, _, version = str(document.get("schema")).partition("/")
    if name != SCHEMA_NAME or not version.isdigit():
        raise FingerprintInvalid(f"{source}: the field 'schema' must be '{SCHEMA_NAME}/N', found {document.get('schema')!r}")
    number = int(version)
    if not 1 <= number <= SCHEMA_VERSION:
        raise FingerprintInvalid(
            f"{source}: written in schema {SCHEMA_NAME}/{version}, this release reads {SCHEMA_NAME}/1 to {SCHEMA_NAME}/{SCHEMA_VERSION}. "
            f"Install an autoseg release that reads {SCHEMA_NAME}/{version}, or remove the file: it is computed again from the images"
        )
    for old in range(number, SCHEMA_VERSION):
        document = MIGRATIONS[old](document)
    return {**document, "schema": f"{SCHEMA_NAME}/{SCHEMA_VERSION}"}


def _sketch_from(document: Any) -> IntensitySketch | None:
    if document is None:
        return None
    known = {field.name for field in fields(IntensitySketch)}
    if not isinstance(document, Mapping) or set(document) != known:
        raise FingerprintInvalid(
            f"a sketch has the keys {sorted(known)}, found {sorted(document) if isinstance(document, Mapping) else document}"
        )
    numbers = {name: float(document[name]) for name in ("mean", "std", "minimum", "maximum")}
    return IntensitySketch(count=int(document["count"]), quantiles=tuple(float(q) for q in document["quantiles"]), **numbers)


def _three(values: Any, kind: type) -> Any:
    triple = tuple(kind(value) for value in values)
    if len(triple) != 3:
        raise FingerprintInvalid(f"three entries expected, found {list(values)}")
    return triple


def _pool_channels(cases: Sequence[CaseFingerprint], channels: int, region: str) -> tuple[IntensityStatistics | None, ...]:
    return tuple(pool(getattr(case, region)[channel] for case in cases) for channel in range(channels))


def _centre(cases: Sequence[CaseFingerprint], channels: int) -> CentreFingerprint:
    spacings = np.array([case.spacing for case in cases])
    return CentreFingerprint(
        cases=len(cases),
        spacing=_three(np.median(spacings, axis=0).tolist(), float),
        spacing_minimum=_three(spacings.min(axis=0).tolist(), float),
        spacing_maximum=_three(spacings.max(axis=0).tolist(), float),
        foreground=_pool_channels(cases, channels, "foreground"),
        body=_pool_channels(cases, channels, "body"),
    )
