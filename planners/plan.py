"""The plan: the one JSON document that everything downstream reads.

The schema is closed (an unknown key is an error) and versioned. Nothing in it depends on the machine that planned. Lengths are in mm,
sizes in voxels. Spatial triples stand in array order (z, y, x); inside a configuration they stand in the *network's* axis order, which is
array order permuted by `Plan.transpose`. The parts lie in `planners.schema`, and are imported from here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from planners.labels import LabelScheme, Values, scheme_problems
from planners.schema.augmentation import (
    Augmentation,
    Blur,
    Brightness,
    Contrast,
    Gamma,
    LowResolution,
    MaskComponents,
    MaskMorphology,
    Mirror,
    Noise,
    PreviousStageMasks,
    Spatial,
    channel_range,
)
from planners.schema.base import PlanInvalid, Probability, Range, Strict, Triple, misfit
from planners.schema.inference import Inference
from planners.schema.networks import Network, ResidualUNetSpec, SegResNetSpec, UNetSpec
from planners.schema.preprocessing import (
    CTNormalisation,
    HeadAndNeckBox,
    NoNormalisation,
    Normalisation,
    PETNormalisation,
    Region,
    Resampling,
    RescaleNormalisation,
    RGBNormalisation,
    ZScoreNormalisation,
)
from planners.schema.pretraining import Pretraining
from planners.schema.refusals import readable
from planners.schema.sampling import Sampling
from planners.schema.training import (
    SGD,
    AdamW,
    CCDiceCELoss,
    CosineSchedule,
    DiceCELoss,
    DiceFocalLoss,
    DiceTopKLoss,
    EarlyStopping,
    Loss,
    Optimiser,
    PolySchedule,
    Schedule,
    Training,
    TverskyCELoss,
)

__all__ = [
    "AdamW",
    "Augmentation",
    "Blur",
    "Brightness",
    "CCDiceCELoss",
    "CTNormalisation",
    "Configuration",
    "Contrast",
    "CosineSchedule",
    "DiceCELoss",
    "DiceFocalLoss",
    "DiceTopKLoss",
    "Gamma",
    "EarlyStopping",
    "HeadAndNeckBox",
    "Inference",
    "Loss",
    "LowResolution",
    "MaskComponents",
    "MaskMorphology",
    "Mirror",
    "Network",
    "NoNormalisation",
    "Noise",
    "Normalisation",
    "Optimiser",
    "PETNormalisation",
    "Plan",
    "PlanInvalid",
    "PolySchedule",
    "Pretraining",
    "PreviousStageMasks",
    "Probability",
    "RGBNormalisation",
    "Range",
    "Region",
    "Resampling",
    "RescaleNormalisation",
    "ResidualUNetSpec",
    "SGD",
    "Sampling",
    "Schedule",
    "SegResNetSpec",
    "Spatial",
    "Strict",
    "Training",
    "Triple",
    "TverskyCELoss",
    "UNetSpec",
    "ZScoreNormalisation",
    "channel_range",
    "default_configuration",
    "migrate",
    "readable",
]

SCHEMA_NAME = "autoseg-plan"
SCHEMA_VERSION = 1


class Configuration(Strict):
    """One trainable network with its grid. Spatial lists are in the network's axis order; 2-D ones have two entries."""

    dimension: Literal[2, 3]
    spacing: tuple[float, ...]
    median_shape: tuple[float, ...]
    patch_size: Triple
    batch_size: int = Field(ge=1)
    normalisation: tuple[Normalisation, ...]
    resampling: Resampling = Resampling()
    network: Network
    training: Training = Training()
    augmentation: Augmentation = Augmentation()
    inference: Inference = Inference()
    pretraining: Pretraining = Pretraining()
    previous_stage: str | None = None

    @model_validator(mode="after")
    def _fields_fit(self) -> Configuration:
        for name in ("spacing", "median_shape", "patch_size"):
            if len(getattr(self, name)) != self.dimension:
                raise ValueError(f"{name} needs {self.dimension} entries, found {len(getattr(self, name))}")
        for name in ("strides", "kernels"):
            for step in getattr(self.network, name):
                if len(step) != self.dimension or min(step) < 1:
                    raise ValueError(f"network.{name}: each needs {self.dimension} entries of 1 or more, found {list(step)}")
        if any(s <= 0 for s in self.spacing):
            raise ValueError(f"spacing must be positive, found {list(self.spacing)}")
        bad = [a for a in self.inference.mirror_axes if not 0 <= a < self.dimension]
        if bad:
            raise ValueError(f"inference.mirror_axes must be axes below {self.dimension}, found {bad}")
        wrong = {name: count for name, count in self.augmentation.channel_ranges().items() if count != len(self.normalisation)}
        if wrong:
            raise ValueError(f"augmentation: `channels` has one range a channel ({len(self.normalisation)}) or none, found {wrong}")
        return self

    @model_validator(mode="after")
    def _sizes_fit(self) -> Configuration:
        """What depends on sizes that planning finds from the data."""
        divisor = [math.prod(stride[axis] for stride in self.network.strides) for axis in range(self.dimension)]
        if any(size <= 0 or size % d for size, d in zip(self.patch_size, divisor, strict=True)):
            raise misfit(f"patch_size {list(self.patch_size)} must be divisible by the product of the strides {divisor}")
        if self.training.accumulation > self.batch_size:
            raise misfit(f"training.accumulation ({self.training.accumulation}) must not exceed batch_size ({self.batch_size})")
        return self


class Plan(Strict):
    """What planning decided, for one dataset and one preset."""

    schema_: str = Field(default=f"{SCHEMA_NAME}/{SCHEMA_VERSION}", alias="schema")
    name: str = "default"
    preset: str = "default"
    channels: tuple[str, ...]
    labels: dict[str, Values]
    region_order: tuple[int, ...] = ()
    file_ending: str = Field(pattern=r"^(\.[A-Za-z0-9]+)+$")
    orientation: Literal["canonical", "as_stored", "ras"] = "canonical"
    geometry_tolerance: float = Field(default=0.1, ge=0)
    transpose: tuple[int, int, int] = (0, 1, 2)
    region_of_interest: Region | None = None
    configurations: dict[str, Configuration]
    reasons: dict[str, str] = {}

    @model_validator(mode="after")
    def _axes_and_channels(self) -> Plan:
        if sorted(self.transpose) != [0, 1, 2]:
            raise ValueError(f"transpose must hold each of 0, 1 and 2 once, found {list(self.transpose)}")
        for name, configuration in self.configurations.items():
            if len(configuration.normalisation) != len(self.channels):
                raise ValueError(
                    f"configurations.{name}.normalisation: one is needed for each of the {len(self.channels)} channels "
                    f"({', '.join(self.channels)}), found {len(configuration.normalisation)}"
                )
        return self

    @model_validator(mode="after")
    def _stages_end(self) -> Plan:
        for name, configuration in self.configurations.items():
            if configuration.previous_stage is not None and configuration.previous_stage not in self.configurations:
                known = ", ".join(self.configurations)
                raise ValueError(f"configurations.{name}.previous_stage: no configuration {configuration.previous_stage!r}; known: {known}")
        for name in self.configurations:
            seen, stage = [name], self.configurations[name].previous_stage
            while stage is not None:
                if stage in seen:
                    raise ValueError(f"configurations.{name}.previous_stage: goes in a circle: {' <- '.join([*seen, stage])}")
                seen.append(stage)
                stage = self.configurations[stage].previous_stage
        return self

    @model_validator(mode="after")
    def _region_fits(self) -> Plan:
        region = self.region_of_interest
        if region is not None and self.orientation != "canonical":
            raise ValueError("region_of_interest: needs to know where the head is, so orientation must be canonical")
        if region is not None and region.channel >= len(self.channels):
            raise ValueError(f"region_of_interest.channel must be below {len(self.channels)}, found {region.channel}")
        return self

    @model_validator(mode="after")
    def _labels_fit(self) -> Plan:
        problems = scheme_problems(self.labels, self.region_order)
        known = self.label_scheme.foreground
        for name, configuration in self.configurations.items():
            weights = configuration.training.sampling.classes
            unknown = [label for label in weights if label not in known] if isinstance(weights, dict) else []
            if unknown:
                problems.append(f"{name}.training.sampling.classes: no class is called {', '.join(unknown)}; there are {', '.join(known)}")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def label_scheme(self) -> LabelScheme:
        """What the labels mean to a network."""
        return LabelScheme(self.labels, self.region_order)

    def input_channels(self, configuration: str) -> int:
        """Channels that a configuration's network sees: the images', then a mask of each foreground class where a stage goes before it."""
        masks = len(self.label_scheme.foreground) if self.configuration(configuration).previous_stage else 0
        return len(self.channels) + masks

    def configuration(self, name: str) -> Configuration:
        """The configuration of that name.

        Raises:
            PlanInvalid: the plan has none of that name.
        """
        if name not in self.configurations:
            raise PlanInvalid(f"the plan {self.name!r} has no configuration {name!r}; it has: {', '.join(self.configurations)}")
        return self.configurations[name]

    def to_json(self) -> str:
        """The document, indented, keys in schema order, ending in a newline."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=1) + "\n"

    @staticmethod
    def from_json(text: str, source: str = "plan") -> Plan:
        """The plan in a JSON text, migrated from older schemas.

        Raises:
            PlanInvalid: not JSON, an unknown key, a wrong value, or a schema newer than this release reads.
        """
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise PlanInvalid(f"{source}: not valid JSON: {error}") from None
        if not isinstance(document, dict):
            raise PlanInvalid(f"{source}: must be a JSON object, found {type(document).__name__}")
        document = migrate(document, source)
        try:
            return Plan.model_validate(document)
        except ValidationError as error:
            raise PlanInvalid(f"{source}: {readable(error, document)}") from None


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""Version n -> a pure function that turns a document of version n into one of version n + 1."""


def migrate(document: dict[str, Any], source: str = "plan") -> dict[str, Any]:
    """The document in the current schema version.

    Raises:
        PlanInvalid: the schema is missing, foreign, or newer than this release.
    """
    schema = document.get("schema")
    name, _, version = str(schema).partition("/")
    if name != SCHEMA_NAME or not version.isdigit():
        raise PlanInvalid(f"{source}: the field 'schema' must be '{SCHEMA_NAME}/N', found {schema!r}")
    number = int(version)
    if number > SCHEMA_VERSION:
        raise PlanInvalid(
            f"{source}: written in schema {SCHEMA_NAME}/{number}, this release reads up to {SCHEMA_NAME}/{SCHEMA_VERSION}. "
            f"Install an autoseg release that reads {SCHEMA_NAME}/{number}, or plan again with this one under another --name"
        )
    while number < SCHEMA_VERSION:
        if number not in MIGRATIONS:
            raise PlanInvalid(f"{source}: schema {SCHEMA_NAME}/{number} has no migration to {SCHEMA_NAME}/{number + 1}")
        document = MIGRATIONS[number](document)
        number += 1
    return {**document, "schema": f"{SCHEMA_NAME}/{SCHEMA_VERSION}"}


def default_configuration(plan: Plan) -> str:
    """3d_fullres where the plan has it, else its first configuration."""
    return "3d_fullres" if "3d_fullres" in plan.configurations else next(iter(plan.configurations))
