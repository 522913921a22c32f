"""Networks, one class a kind."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from planners.schema.base import Strict, Triple, misfit


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


class SegResNetSpec(Strict):
    """SegResNet: pre-activation residual blocks behind strided convolutions, and a decoder that adds the encoder's features.

    `blocks_per_stage`, `blocks_per_decoder_stage`: blocks of norm, ReLU, convolution, norm, ReLU, convolution around an identity.

    Source: Myronenko, "3D MRI brain tumor segmentation using autoencoder regularization", BrainLes 2018 (without its autoencoder);
    Myronenko et al., "Automated head and neck tumor segmentation from 3D PET/CT", HECKTOR 2022.
    """

    kind: Literal["segresnet"] = "segresnet"
    features: tuple[int, ...]
    strides: tuple[Triple, ...]
    kernels: tuple[Triple, ...]
    blocks_per_stage: tuple[int, ...]
    blocks_per_decoder_stage: tuple[int, ...]
    deep_supervision: bool = True

    @model_validator(mode="after")
    def _lengths(self) -> SegResNetSpec:
        _check_stage_lengths(self, self.blocks_per_stage, self.blocks_per_decoder_stage)
        return self


def _check_stage_lengths(spec: Any, encoder: tuple[int, ...], decoder: tuple[int, ...]) -> None:
    stages = len(spec.features)
    found = {"strides": len(spec.strides), "kernels": len(spec.kernels), "encoder": len(encoder), "decoder": len(decoder) + 1}
    wrong = {name: count for name, count in found.items() if count != stages}
    if wrong:
        raise misfit(f"a network of {stages} stages needs lists of {stages} (decoder: {stages - 1}) entries; found {wrong}")


Network = Annotated[UNetSpec | ResidualUNetSpec | SegResNetSpec, Field(discriminator="kind")]
