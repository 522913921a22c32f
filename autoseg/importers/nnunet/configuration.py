"""One configuration of nnU-Net's plans.json -> one of ours: grid, intensities, resampling, network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from pydantic import ValidationError

from autoseg.errors import ModelError
from autoseg.importers.nnunet.architecture import network_spec
from autoseg.importers.nnunet.section import Section
from planners.augmentation import augmentation
from planners.plan import (
    Configuration,
    CTNormalisation,
    DiceCELoss,
    Inference,
    NoNormalisation,
    Normalisation,
    Resampling,
    RescaleNormalisation,
    RGBNormalisation,
    Training,
    ZScoreNormalisation,
    readable,
)

NEVER = 1e30
"""A ratio of spacings from which on an axis is resampled apart, that none has."""

ANISOTROPY = 3.0
"""nnU-Net's own such ratio."""

SCIPY, TORCH = "resample_data_or_seg_to_shape", "resample_torch_fornnunet"
PURPOSES = {"data": "image_order", "seg": "label_order", "probabilities": "logits_order"}
"""What nnU-Net resamples -> the field of the plan that says how."""

SIMPLE_SCHEMES: dict[str, type[NoNormalisation | RescaleNormalisation | RGBNormalisation]] = {
    "NoNormalization": NoNormalisation,
    "RescaleTo01Normalization": RescaleNormalisation,
    "RGBTo01Normalization": RGBNormalisation,
}


def native_configuration(
    section: Section, intensities: Section, channels: int, *, mirror_axes: Sequence[int] | None = None, deep_supervision: bool = True
) -> Configuration:
    """The configuration in our terms; what prediction does not depend on (augmentation, schedule) is nnU-Net's default.

    Args:
        section: a configuration of plans.json, with what it inherits.
        intensities: the foreground's intensities, channel number -> statistics.
        channels: of the images.
        mirror_axes: flips to average over; None: all axes.
        deep_supervision: whether further training computes the loss at every level.

    Raises:
        ModelError: a value is missing or wrong, or has no equal here; named.
    """
    patch = section.wholes("patch_size")
    if len(patch) not in (2, 3):
        raise section.wrong("patch_size", "2 or 3 whole numbers", list(patch))
    dimension: Literal[2, 3] = 3 if len(patch) == 3 else 2
    axes = tuple(range(dimension)) if mirror_axes is None else tuple(mirror_axes)
    schemes = _normalisation(section, intensities, channels)
    network = network_spec(section, dimension).model_copy(update={"deep_supervision": deep_supervision})
    preprocessor = section.text("preprocessor_name", "DefaultPreprocessor")
    if preprocessor != "DefaultPreprocessor":
        raise ModelError(f"{section.where}: the preprocessor {preprocessor!r} is unknown here; DefaultPreprocessor can be imported")
    fields: dict[str, Any] = {
        "dimension": dimension,
        "spacing": section.numbers("spacing", dimension),
        "median_shape": section.numbers("median_image_size_in_voxels", dimension),
        "patch_size": patch,
        "batch_size": section.whole("batch_size"),
        "normalisation": schemes,
        "resampling": _resampling(section),
        "network": network,
        "training": Training(loss=DiceCELoss(batch_dice=section.flag("batch_dice", False))),
        "augmentation": augmentation(patch, schemes, axes)[0],
        "inference": Inference(mirror_axes=axes),
        "previous_stage": section.take("previous_stage", None),
    }
    try:
        return Configuration.model_validate(fields)
    except ValidationError as error:
        raise ModelError(f"{section.where}: {readable(error, fields)}") from None


def _normalisation(section: Section, intensities: Section, channels: int) -> tuple[Normalisation, ...]:
    names = section.sequence("normalization_schemes", channels)
    masked = section.sequence("use_mask_for_norm", channels)
    if not all(isinstance(inside, bool) for inside in masked):
        raise section.wrong("use_mask_for_norm", "a list of true and false", masked)
    return tuple(
        _scheme(str(name), inside, index, section, intensities) for index, (name, inside) in enumerate(zip(names, masked, strict=True))
    )


def _scheme(name: str, masked: bool, index: int, section: Section, intensities: Section) -> Normalisation:
    if name == "ZScoreNormalization":
        return ZScoreNormalisation(masked=masked)
    if name in SIMPLE_SCHEMES:
        return SIMPLE_SCHEMES[name]()
    if name != "CTNormalization":
        known = ", ".join(["CTNormalization", "ZScoreNormalization", *SIMPLE_SCHEMES])
        raise ModelError(f"{section.where}: channel {index} has the normalisation {name!r}; those that can be imported are {known}")
    found = intensities.section(str(index))
    return CTNormalisation(
        lower=found.number("percentile_00_5"),
        upper=found.number("percentile_99_5"),
        mean=found.number("mean"),
        std=max(found.number("std"), 1e-8),
    )


@dataclass(frozen=True)
class _Rule:
    """How one kind of array is resampled: the spline's order, and from which ratio of spacings on an axis is taken apart."""

    order: int
    ratio: float


def _resampling(section: Section) -> Resampling:
    rules = {purpose: _rule(section, purpose) for purpose in PURPOSES}
    if len({rule.ratio for rule in rules.values()}) > 1:
        ratios = ", ".join(f"{purpose} {rule.ratio:g}" for purpose, rule in rules.items())
        raise ModelError(
            f"{section.where}: images, masks and probabilities are resampled apart along an axis at different ratios ({ratios})"
        )
    orders: dict[str, Any] = {field: rules[purpose].order for purpose, field in PURPOSES.items()}
    try:
        return Resampling(separate_z_ratio=rules["data"].ratio, **orders)
    except ValidationError as error:
        raise ModelError(f"{section.where}: resampling cannot be imported: {readable(error, orders)}") from None


def _rule(section: Section, purpose: str) -> _Rule:
    field = f"resampling_fn_{purpose}"
    function = section.text(field)
    options = section.section(f"{field}_kwargs")
    if options.flag("is_seg", False) != (purpose == "seg"):
        raise options.wrong("is_seg", "true for masks, and false for what is no mask", options.values.get("is_seg"))
    if function == SCIPY:
        _only(options, {"order", "order_z", "force_separate_z", "separate_z_anisotropy_threshold", "is_seg"})
        ratio = _ratio(options, forced=False)
        if ratio != NEVER and options.take("order_z", 0) != 0:
            raise options.wrong("order_z", "0: the coarse axis nearest neighbour", options.take("order_z"))
        return _Rule(cast(int, options.take("order", 3)), ratio)
    if function == TORCH:
        # Linear interpolation on the same grid as the spline of order 1; what is left out tells only how it is computed.
        _only(options, {"force_separate_z", "separate_z_anisotropy_threshold", "mode", "aniso_axis_mode", *_TORCH_HOW})
        if options.take("mode", "linear") != "linear" or options.take("aniso_axis_mode", "nearest-exact") != "nearest-exact":
            raise ModelError(f"{options.where}: only the modes 'linear' and, along a coarse axis, 'nearest-exact' can be imported")
        return _Rule(1, _ratio(options, forced=None))
    raise ModelError(f"{section.where}: {field} is {function!r}; {SCIPY} and {TORCH} can be imported")


_TORCH_HOW = {"is_seg", "num_threads", "device", "memefficient_seg_resampling"}


def _ratio(options: Section, forced: bool | None) -> float:
    """`forced` is the function's own default of force_separate_z."""
    value = options.take("force_separate_z", forced)
    if value is True:
        raise ModelError(f"{options.where}: force_separate_z = true has no equal here; null and false have")
    return NEVER if value is False else options.number("separate_z_anisotropy_threshold", ANISOTROPY)


def _only(options: Section, known: set[str]) -> None:
    if strange := sorted(set(options.values) - known):
        raise ModelError(f"{options.where}: {', '.join(strange)} is not known here, so it cannot be told what it does")
