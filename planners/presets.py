"""How large a network and how long a training a plan may ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from planners.plan import PlanInvalid, Training


@dataclass(frozen=True)
class Size:
    """The bounds of 2-D or 3-D configurations.

    `elements`: what one sample may hold (`memory.element_count`) at the batch size `batch_reference`; the batch grows as the sample
    shrinks. `batch_floor`: the patch shrinks until at least that many samples fit. `start_edge`: the patch starts with the volume of a
    square or cube of this edge. `features_maximum`: the widest stage.
    """

    elements: int
    batch_reference: int
    batch_floor: int
    start_edge: int
    features_maximum: int


@dataclass(frozen=True)
class Preset:
    """One way to size a plan; everything here is data, `planner` holds the rules.

    `encoder_blocks`: convolutions (plain) or residual blocks a stage, the last entry repeated for deeper stages. `dataset_share`: a batch
    holds at most this share of the dataset's voxels. `mirror_inference`: whether prediction averages over flips.
    """

    name: str
    purpose: str
    network: Literal["unet", "residual_unet"]
    encoder_blocks: tuple[int, ...]
    decoder_convs: int
    features_base: int
    dataset_share: float
    three: Size
    two: Size
    training: Training = Training()
    mirror_inference: bool = True

    def size(self, dimension: int) -> Size:
        """The bounds for 2-D or 3-D configurations."""
        return self.three if dimension == 3 else self.two


def preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        PlanInvalid: there is none.
    """
    if name not in PRESETS:
        raise PlanInvalid(f"there is no preset {name!r}; known: {', '.join(PRESETS)}")
    return PRESETS[name]


def _residual(name: str, memory: str, elements_3d: int, elements_2d: int) -> Preset:
    return Preset(
        name=name,
        purpose=f"residual-encoder U-Net for a GPU with about {memory}",
        network="residual_unet",
        encoder_blocks=(1, 3, 4, 6),
        decoder_convs=1,
        features_base=32,
        dataset_share=1.0,
        three=Size(elements_3d, batch_reference=2, batch_floor=2, start_edge=256, features_maximum=320),
        two=Size(elements_2d, batch_reference=12, batch_floor=12, start_edge=2048, features_maximum=512),
    )


_DEFAULT = Preset(
    name="default",
    purpose="plain U-Net for a GPU with about 8 GB",
    network="unet",
    encoder_blocks=(2,),
    decoder_convs=2,
    features_base=32,
    dataset_share=0.05,
    three=Size(560_000_000, batch_reference=2, batch_floor=2, start_edge=256, features_maximum=320),
    two=Size(85_000_000, batch_reference=12, batch_floor=2, start_edge=2048, features_maximum=512),
)

# Half the default's width, one decoder convolution a level and a sixteenth of its elements make a training step of about 0.2 TFLOP, 1/30
# of the default's: 4 to 5 s in fp32 on one loaded core, so that five folds of 5 000 steps should take four cores a night.
_LAPTOP = Preset(
    name="laptop",
    purpose="small plain U-Net for a machine without a GPU",
    network="unet",
    encoder_blocks=(2,),
    decoder_convs=1,
    features_base=16,
    dataset_share=0.05,
    three=Size(35_000_000, batch_reference=2, batch_floor=2, start_edge=128, features_maximum=160),
    two=Size(10_000_000, batch_reference=12, batch_floor=4, start_edge=1024, features_maximum=256),
    training=Training(epochs=100, iterations=50, validation_iterations=10),
    mirror_inference=False,
)

PRESETS: dict[str, Preset] = {
    item.name: item
    for item in (
        _DEFAULT,
        _residual("resenc-m", "8 GB", 680_000_000, 135_000_000),
        _residual("resenc-l", "24 GB", 2_100_000_000, 380_000_000),
        _residual("resenc-xl", "40 GB", 3_600_000_000, 560_000_000),
        _LAPTOP,
    )
}
