"""The plan: the one JSON document that everything downstream reads.

The schema is closed (an unknown key is an error) and versioned. Nothing in it depends on the machine that planned. Lengths are in mm,
sizes in voxels. Spatial triples stand in array order (z, y, x); inside a configuration they stand in the *network's* axis order, which is
array order permuted by `Plan.transpose`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

SCHEMA_NAME = "autoseg-plan"
SCHEMA_VERSION = 1

Triple = tuple[int, ...]
Range = tuple[float, float]
Probability = Annotated[float, Field(ge=0, le=1)]


class PlanInvalid(ValueError):  # noqa: N818
    """A plan document breaks the schema; the message names each field and what it must be."""


class Strict(BaseModel):
    """Base of all plan parts: frozen, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)


# --- normalisation: one a channel ------------------------------------------------------------------------------------------------


class CTNormalisation(Strict):
    """Clip to the training foreground's 0.5 and 99.5 percentiles, subtract its mean, divide by its standard deviation."""

    kind: Literal["ct"] = "ct"
    lower: float
    upper: float
    mean: float
    std: float = Field(gt=0)


class ZScoreNormalisation(Strict):
    """Subtract the image's own mean, divide by its standard deviation; `masked`: both from inside the non-zero mask, 0 outside."""

    kind: Literal["zscore"] = "zscore"
    masked: bool = False


class NoNormalisation(Strict):
    """Values as they are."""

    kind: Literal["none"] = "none"


class RescaleNormalisation(Strict):
    """The image's own minimum and maximum to 0 and 1."""

    kind: Literal["rescale_0_1"] = "rescale_0_1"


class RGBNormalisation(Strict):
    """Divide by 255."""

    kind: Literal["rgb"] = "rgb"


Normalisation = Annotated[
    CTNormalisation | ZScoreNormalisation | NoNormalisation | RescaleNormalisation | RGBNormalisation, Field(discriminator="kind")
]


class Resampling(Strict):
    """How images and masks come onto the target spacing.

    `separate_z_ratio`: where the largest spacing exceeds the smallest by more than this factor (in the image, else in the target), the
    coarse axis is resampled apart, nearest neighbour, and only the other two by spline. Order 3 is scipy's cubic spline, order 1 linear.
    """

    image_order: Literal[1, 3] = 3
    label_order: Literal[0, 1] = 1
    logits_order: Literal[1] = 1
    separate_z_ratio: float = Field(default=3.0, gt=1)


# --- networks --------------------------------------------------------------------------------------------------------------------


class UNetSpec(Strict):
    """Plain convolutional U-Net: convolution, instance norm, LeakyReLU; strided convolutions down, transposed ones up."""

    kind: Literal["unet"] = "unet"
    features: tuple[int, ...]
    strides: tuple[Triple, ...]
    kernels: tuple[Triple, ...]
    convs_per_stage: tuple[int, ...]
    convs_per_decoder_stage: tuple[int, ...]
    deep_supervision: bool = True

    @model_validator(mode="after")
    def _lengths(self) -> UNetSpec:
        _check_stage_lengths(self, self.convs_per_stage, self.convs_per_decoder_stage)
        return self


class ResidualUNetSpec(Strict):
    """Residual-encoder U-Net: a stem, basic blocks with two convolutions down, a light decoder."""

    kind: Literal["residual_unet"] = "residual_unet"
    features: tuple[int, ...]
    strides: tuple[Triple, ...]
    kernels: tuple[Triple, ...]
    blocks_per_stage: tuple[int, ...]
    convs_per_decoder_stage: tuple[int, ...]
    deep_supervision: bool = True

    @model_validator(mode="after")
    def _lengths(self) -> ResidualUNetSpec:
        _check_stage_lengths(self, self.blocks_per_stage, self.convs_per_decoder_stage)
        return self


def _check_stage_lengths(spec: Any, encoder: tuple[int, ...], decoder: tuple[int, ...]) -> None:
    stages = len(spec.features)
    found = {"strides": len(spec.strides), "kernels": len(spec.kernels), "encoder": len(encoder), "decoder": len(decoder) + 1}
    wrong = {name: count for name, count in found.items() if count != stages}
    if wrong:
        raise ValueError(f"a network of {stages} stages needs lists of {stages} (decoder: {stages - 1}) entries; found {wrong}")


Network = Annotated[UNetSpec | ResidualUNetSpec, Field(discriminator="kind")]


# --- loss, optimiser, schedule ---------------------------------------------------------------------------------------------------


class DiceCELoss(Strict):
    """Cross-entropy plus soft Dice over the foreground classes; `batch_dice`: one Dice a class over the whole batch."""

    kind: Literal["dice_ce"] = "dice_ce"
    dice_weight: float = Field(default=1.0, ge=0)
    ce_weight: float = Field(default=1.0, ge=0)
    smooth: float = Field(default=1e-5, ge=0)
    batch_dice: bool = False


Loss = DiceCELoss


class SGD(Strict):
    """Stochastic gradient descent with Nesterov momentum."""

    kind: Literal["sgd"] = "sgd"
    lr: float = Field(default=1e-2, gt=0)
    momentum: float = Field(default=0.99, ge=0, lt=1)
    nesterov: bool = True
    weight_decay: float = Field(default=3e-5, ge=0)


Optimiser = SGD


class PolySchedule(Strict):
    """lr * (1 - epoch / epochs) ** exponent, set once an epoch."""

    kind: Literal["poly"] = "poly"
    exponent: float = Field(default=0.9, gt=0)


Schedule = PolySchedule


class Training(Strict):
    """How long and how a fold is trained.

    `foreground_fraction`: share of each batch's samples that are centred on a foreground voxel.
    `validation_iterations`: random validation patches for the learning curve, once an epoch; they choose nothing.
    """

    epochs: int = Field(default=1000, ge=1)
    iterations: int = Field(default=250, ge=1)
    validation_iterations: int = Field(default=50, ge=0)
    foreground_fraction: Probability = 0.33
    gradient_clip: float = Field(default=12.0, gt=0)
    seed: int = Field(default=1234, ge=0)
    loss: Loss = DiceCELoss()
    optimiser: Optimiser = SGD()
    schedule: Schedule = PolySchedule()


# --- augmentation ----------------------------------------------------------------------------------------------------------------


class Spatial(Strict):
    """Rotation (degrees, drawn per axis) and isotropic scaling of the sampling grid; images linear with 0 outside, labels one-hot linear
    with -1 (ignored, later 0) outside. `in_plane`: only the last two axes, slice by slice."""

    rotation_probability: Probability = 0.2
    rotation_degrees: Range = (-30.0, 30.0)
    scaling_probability: Probability = 0.2
    scaling: Range = (0.7, 1.4)
    in_plane: bool = False


class Noise(Strict):
    """Additive Gaussian noise; one standard deviation for all channels, drawn from the range."""

    probability: Probability = 0.1
    std: Range = (0.0, 0.1)


class Blur(Strict):
    """Gaussian blur; standard deviation in voxels, drawn per channel and axis."""

    probability: Probability = 0.2
    channel_probability: Probability = 0.5
    sigma: Range = (0.5, 1.0)


class Brightness(Strict):
    """Multiplication by a factor, drawn per channel."""

    probability: Probability = 0.15
    factor: Range = (0.75, 1.25)


class Contrast(Strict):
    """(x - mean) * factor + mean, clipped to the old range, per channel; half the draws below 1 where the range spans 1."""

    probability: Probability = 0.15
    factor: Range = (0.75, 1.25)


class LowResolution(Strict):
    """Down by nearest neighbour and up again linearly; zoom drawn per channel. `skip_first_axis`: the coarse axis keeps its grid."""

    probability: Probability = 0.25
    channel_probability: Probability = 0.5
    zoom: Range = (0.5, 1.0)
    skip_first_axis: bool = False


class Gamma(Strict):
    """Power law on the image scaled to its range, mean and standard deviation kept; drawn per channel, half the draws below 1.
    `inverted_probability`: a separate transform on the negated image, applied before."""

    probability: Probability = 0.3
    inverted_probability: Probability = 0.1
    gamma: Range = (0.7, 1.5)


class Mirror(Strict):
    """Each listed axis flipped with this probability."""

    probability: Probability = 0.5
    axes: tuple[int, ...] = (0, 1, 2)


class Augmentation(Strict):
    """Everything done to a training sample, in this order. `backend`: own fused transforms, or batchgenerators as the reference."""

    backend: Literal["fused", "batchgenerators"] = "fused"
    spatial: Spatial | None = Spatial()
    noise: Noise | None = Noise()
    blur: Blur | None = Blur()
    brightness: Brightness | None = Brightness()
    contrast: Contrast | None = Contrast()
    low_resolution: LowResolution | None = LowResolution()
    gamma: Gamma | None = Gamma()
    mirror: Mirror | None = Mirror()
    zero_outside_mask: tuple[int, ...] = ()


class Inference(Strict):
    """Sliding window: `step` as a share of the patch; Gaussian weight with sigma = `gaussian_sigma` x patch; flips averaged over all
    subsets of `mirror_axes` (network axis order)."""

    step: float = Field(default=0.5, gt=0, le=1)
    gaussian_sigma: float = Field(default=0.125, gt=0)
    mirror_axes: tuple[int, ...] = (0, 1, 2)


# --- the whole -------------------------------------------------------------------------------------------------------------------


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
    previous_stage: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Configuration:
        for name in ("spacing", "median_shape", "patch_size"):
            if len(getattr(self, name)) != self.dimension:
                raise ValueError(f"{name} needs {self.dimension} entries, found {len(getattr(self, name))}")
        divisor = [1] * self.dimension
        for stride in self.network.strides:
            divisor = [d * s for d, s in zip(divisor, stride, strict=True)]
        if any(size <= 0 or size % d for size, d in zip(self.patch_size, divisor, strict=True)):
            raise ValueError(f"patch_size {list(self.patch_size)} must be divisible by the product of the strides {divisor}")
        if any(s <= 0 for s in self.spacing):
            raise ValueError(f"spacing must be positive, found {list(self.spacing)}")
        bad = [a for a in self.inference.mirror_axes if not 0 <= a < self.dimension]
        if bad:
            raise ValueError(f"inference.mirror_axes must be axes below {self.dimension}, found {bad}")
        return self


class Plan(Strict):
    """What planning decided, for one dataset and one preset."""

    schema_: str = Field(default=f"{SCHEMA_NAME}/{SCHEMA_VERSION}", alias="schema")
    name: str = "default"
    preset: str = "default"
    channels: tuple[str, ...]
    labels: dict[str, int]
    file_ending: str
    orientation: Literal["canonical", "as_stored"] = "canonical"
    geometry_tolerance: float = Field(default=0.1, ge=0)
    transpose: tuple[int, int, int] = (0, 1, 2)
    configurations: dict[str, Configuration]
    reasons: dict[str, str] = {}

    @property
    def foreground_labels(self) -> dict[str, int]:
        """Name -> value of the labels above 0, by ascending value."""
        return {name: value for name, value in sorted(self.labels.items(), key=lambda item: item[1]) if value > 0}

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
        except ValueError as error:
            raise PlanInvalid(f"{source}: not valid JSON: {error}") from None
        if not isinstance(document, dict):
            raise PlanInvalid(f"{source}: must be a JSON object, found {type(document).__name__}")
        try:
            return Plan.model_validate(migrate(document, source))
        except ValidationError as error:
            raise PlanInvalid(f"{source}: {_readable(error)}") from None


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


def override(plan: Plan, settings: dict[str, Any], configuration: str | None = None) -> Plan:
    """The plan with fields replaced, checked as a whole.

    Args:
        plan: left as it is.
        settings: dotted path -> JSON value. A path starts at the plan ("orientation", "configurations.2d.batch_size") or at a
            configuration ("training.epochs"), which then goes for `configuration`, or for all of them where that is None.

    Raises:
        PlanInvalid: a path that the plan does not have, or a value that does not fit.
    """
    document = plan.model_dump(mode="json", by_alias=True)
    for path, value in settings.items():
        keys = path.split(".")
        if keys[0] in document:
            _assign(document, keys, value, path)
            continue
        if configuration is not None:
            plan.configuration(configuration)
        names = [configuration] if configuration else list(document["configurations"])
        for name in names:
            _assign(document["configurations"][name], keys, value, path)
    return Plan.from_json(json.dumps(document), source=f"after --set {' '.join(settings)}")


def _assign(target: Any, keys: list[str], value: Any, path: str) -> None:
    for key in keys[:-1]:
        target = _step(target, key, path)
    last: Any = int(keys[-1]) if isinstance(target, list) and keys[-1].isdigit() else keys[-1]
    _step(target, keys[-1], path)
    target[last] = value


def _step(target: Any, key: str, path: str) -> Any:
    if isinstance(target, list) and key.isdigit() and int(key) < len(target):
        return target[int(key)]
    if isinstance(target, dict) and key in target:
        return target[key]
    known = ", ".join(target) if isinstance(target, dict) else f"0 to {len(target) - 1}" if isinstance(target, list) else "nothing"
    raise PlanInvalid(f"--set {path}: there is no field {key!r} here; known: {known}")


def _readable(error: ValidationError) -> str:
    parts = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"]) or "plan"
        what = "is not a known field" if item["type"] == "extra_forbidden" else item["msg"]
        parts.append(f"{where}: {what}")
    return "; ".join(parts)
