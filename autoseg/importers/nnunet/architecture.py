"""nnU-Net's description of a network -> the plan's, for the two that our own code builds with equal results.

Everything that would change a result is looked at: what differs from what nnU-Net's planners write is refused by name, since the weights'
names and shapes would not show it.
"""

from __future__ import annotations

from typing import Any

from autoseg.errors import ModelError
from autoseg.importers.nnunet.section import Section
from planners.plan import ResidualUNetSpec, UNetSpec

LIBRARY = "dynamic_network_architectures."
PLAIN, RESIDUAL = "PlainConvUNet", "ResidualEncoderUNet"
STRUCTURE = {"n_stages", "features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage_decoder", "deep_supervision"}
_UNSET = (None, False)


def network_spec(configuration: Section, dimension: int) -> UNetSpec | ResidualUNetSpec:
    """The network of one of nnU-Net's configurations, in the form of its releases up to 2.4 (`UNet_class_name`) or since (`architecture`).

    Args:
        configuration: a configuration of plans.json, with what it inherits.
        dimension: 2 or 3.

    Raises:
        ModelError: another network, another kind of layer, or a list that does not fit.
    """
    if "architecture" not in configuration:
        return _old_form(configuration, dimension)
    architecture = configuration.section("architecture")
    kind = _class_name(architecture)
    arguments = architecture.section("arch_kwargs")
    blocks = "n_conv_per_stage" if kind == PLAIN else "n_blocks_per_stage"
    _check_layers(arguments, dimension, STRUCTURE | {blocks})
    stages = arguments.whole("n_stages")
    return _spec(
        arguments,
        kind,
        features=arguments.wholes("features_per_stage", stages),
        strides=arguments.whole_tuples("strides", stages, dimension),
        kernels=arguments.whole_tuples("kernel_sizes", stages, dimension),
        blocks=arguments.wholes(blocks, stages),
        decoder=arguments.wholes("n_conv_per_stage_decoder", stages - 1),
    )


def _old_form(configuration: Section, dimension: int) -> UNetSpec | ResidualUNetSpec:
    kind = configuration.text("UNet_class_name")
    if kind not in (PLAIN, RESIDUAL):
        raise _other_network(configuration, "UNet_class_name", kind)
    blocks = configuration.wholes("n_conv_per_stage_encoder")
    base, widest = configuration.whole("UNet_base_num_features"), configuration.whole("unet_max_num_features")
    stages = len(blocks)
    return _spec(
        configuration,
        kind,
        features=tuple(min(base * 2**stage, widest) for stage in range(stages)),
        strides=configuration.whole_tuples("pool_op_kernel_sizes", stages, dimension),
        kernels=configuration.whole_tuples("conv_kernel_sizes", stages, dimension),
        blocks=blocks,
        decoder=configuration.wholes("n_conv_per_stage_decoder", stages - 1),
    )


def _spec(
    where: Section,
    kind: str,
    *,
    features: tuple[int, ...],
    strides: tuple[tuple[int, ...], ...],
    kernels: tuple[tuple[int, ...], ...],
    blocks: tuple[int, ...],
    decoder: tuple[int, ...],
) -> UNetSpec | ResidualUNetSpec:
    if any(step != 1 for step in strides[0]):
        raise ModelError(
            f"{where.where}: the first stage has the stride {list(strides[0])}; only networks that start at full resolution fit"
        )
    if even := [list(kernel) for kernel in kernels if any(size % 2 == 0 for size in kernel)]:
        raise ModelError(f"{where.where}: the kernel {even[0]} has an even edge; only kernels with a centre fit")
    if kind == PLAIN:
        return UNetSpec(features=features, strides=strides, kernels=kernels, convs_per_stage=blocks, convs_per_decoder_stage=decoder)
    return ResidualUNetSpec(features=features, strides=strides, kernels=kernels, blocks_per_stage=blocks, convs_per_decoder_stage=decoder)


def _class_name(architecture: Section) -> str:
    path = architecture.text("network_class_name")
    name = path.rpartition(".")[2]
    if not path.startswith(LIBRARY) or name not in (PLAIN, RESIDUAL):
        raise _other_network(architecture, "network_class_name", path)
    return name


def _other_network(where: Section, field: str, found: str) -> ModelError:
    return ModelError(f"{where.where}: {field} is {found!r}; the networks that can be imported are {PLAIN} and {RESIDUAL}")


def _check_layers(arguments: Section, dimension: int, structure: set[str]) -> None:
    """Convolution with bias, instance norm, LeakyReLU, in this order, and nothing else."""
    _check_class(arguments, "conv_op", f"Conv{dimension}d")
    _check_class(arguments, "norm_op", f"InstanceNorm{dimension}d")
    _check_class(arguments, "nonlin", "LeakyReLU")
    _check_options(arguments, "norm_op_kwargs", {"eps": 1e-5, "affine": True}, given={"affine"}, free={"momentum"})
    _check_options(arguments, "nonlin_kwargs", {"negative_slope": 0.01}, free={"inplace"})
    if not arguments.flag("conv_bias", False):
        raise ModelError(f"{arguments.where}: convolutions without bias ('conv_bias') cannot be imported")
    if "block" in arguments:
        _check_class(arguments, "block", "BasicBlockD")
    known = structure | {"conv_op", "norm_op", "nonlin", "norm_op_kwargs", "nonlin_kwargs", "conv_bias", "block", "dropout_op_kwargs"}
    for name, value in arguments.values.items():
        if name not in known and not any(value is unset for unset in _UNSET):
            raise ModelError(f"{arguments.where}: {name} = {value!r} changes the network in a way that cannot be imported")


def _check_class(arguments: Section, field: str, wanted: str) -> None:
    found = arguments.text(field)
    if found.rpartition(".")[2] != wanted:
        raise ModelError(f"{arguments.where}: {field} is {found!r}; only {wanted} can be imported")


def _check_options(
    arguments: Section, field: str, wanted: dict[str, Any], *, given: frozenset[str] | set[str] = frozenset(), free: set[str]
) -> None:
    """A layer's options are those `wanted`, which are also torch's defaults unless `given`; the `free` ones change no prediction."""
    found = arguments.take(field, None) or {}
    options = Section.of(found, f"{arguments.where}: {field}").values
    for name, value in wanted.items():
        if options.get(name, None if name in given else value) != value:
            raise ModelError(f"{arguments.where}: {field}: {name} must be {value!r}, found {options.get(name)!r}")
    others = {name: value for name, value in options.items() if name not in wanted and name not in free and value not in _UNSET}
    if others:
        raise ModelError(f"{arguments.where}: {field}: {others} cannot be imported")
