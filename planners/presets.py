"""How large a network and how long a training a plan may ask for."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from planners.plan import AdamW, CosineSchedule, PlanInvalid, Training


@dataclass(frozen=True)
class Size:
    """The bounds of 2-D or 3-D configurations.

    `elements`: what one sample may hold (`memory.element_count`) at the batch size `batch_reference`; the batch grows as the sample
    shrinks. `batch_floor`: the patch shrinks until at least that many samples fit. `start_edge`: the patch starts with the volume of a
    square or cube of this edge. `features_maximum`: the widest stage.
    """

    elements: float
    batch_reference: int
    batch_floor: int
    start_edge: int
    features_maximum: int


@dataclass(frozen=True)
class Preset:
    """One way to size a plan; everything here is data, `planner` holds the rules.

    `memory_gb`: the device memory that its bounds are for. `encoder_blocks`: convolutions (plain) or residual blocks a stage, the last
    entry repeated for deeper stages. `decoder_blocks`: the same of each decoder stage. `dataset_share`: a batch holds at most this share
    of the dataset's voxels. `stages_maximum`: no more resolution levels than this. `mirror_inference`: whether prediction averages over
    flips.
    """

    name: str
    purpose: str
    memory_gb: float
    network: Literal["unet", "residual_unet", "segresnet"]
    encoder_blocks: tuple[int, ...]
    decoder_blocks: int
    features_base: int
    dataset_share: float
    three: Size
    two: Size
    training: Training = Training()
    stages_maximum: int | None = None
    mirror_inference: bool = True

    def size(self, dimension: int) -> Size:
        """The bounds for 2-D or 3-D configurations."""
        return self.three if dimension == 3 else self.two

    def for_memory(self, memory_gb: float) -> Preset:
        """The same preset for a device with another memory: what a sample may hold grows in proportion, all else stays.

        Raises:
            PlanInvalid: not a positive number.

        Source: nnU-Net's GPU memory target, which scales its planner's reference in the same way.
        """
        if not (math.isfinite(memory_gb) and memory_gb > 0):
            raise PlanInvalid(f"the memory target must be a positive number of GB, found {memory_gb:g}")
        share = memory_gb / self.memory_gb
        three, two = (replace(bounds, elements=bounds.elements * share) for bounds in (self.three, self.two))
        return replace(self, memory_gb=memory_gb, three=three, two=two)


def preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        PlanInvalid: there is none.
    """
    if name not in PRESETS:
        raise PlanInvalid(f"there is no preset {name!r}; known: {', '.join(PRESETS)}")
    return PRESETS[name]


def _residual(name: str, memory_gb: float, elements_3d: int, elements_2d: int) -> Preset:
    return Preset(
        name=name,
        purpose=f"residual-encoder U-Net for a GPU with about {memory_gb:g} GB",
        memory_gb=memory_gb,
        network="residual_unet",
        encoder_blocks=(1, 3, 4, 6),
        decoder_blocks=1,
        features_base=32,
        dataset_share=1.0,
        three=Size(elements_3d, batch_reference=2, batch_floor=2, start_edge=256, features_maximum=320),
        two=Size(elements_2d, batch_reference=12, batch_floor=12, start_edge=2048, features_maximum=512),
    )


_DEFAULT = Preset(
    name="default",
    purpose="plain U-Net for a GPU with about 8 GB",
    memory_gb=8,
    network="unet",
    encoder_blocks=(2,),
    decoder_blocks=2,
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
    memory_gb=1,
    network="unet",
    encoder_blocks=(2,),
    decoder_blocks=1,
    features_base=16,
    dataset_share=0.05,
    three=Size(35_000_000, batch_reference=2, batch_floor=2, start_edge=128, features_maximum=160),
    two=Size(10_000_000, batch_reference=12, batch_floor=4, start_edge=1024, features_maximum=256),
    training=Training(epochs=100, iterations=50, validation_iterations=10),
    mirror_inference=False,
)

# An element costs as much memory as in the other networks (each convolution keeps its input and its norm's), so it gets the bounds of
# resenc-l, whose memory it is compared at: at 1 mm they allow the 192-cube that its authors trained HECKTOR 2022 with.
_SEGRESNET = Preset(
    name="segresnet",
    purpose="SegResNet as in MONAI's Auto3DSeg, for a GPU with about 24 GB",
    memory_gb=24,
    network="segresnet",
    encoder_blocks=(1, 2, 2, 4, 4),
    decoder_blocks=1,
    features_base=32,
    dataset_share=1.0,
    three=Size(2_100_000_000, batch_reference=2, batch_floor=2, start_edge=256, features_maximum=512),
    two=Size(380_000_000, batch_reference=12, batch_floor=12, start_edge=2048, features_maximum=512),
    training=Training(optimiser=AdamW(lr=2e-4, weight_decay=1e-5), schedule=CosineSchedule()),
    stages_maximum=5,
)

PRESETS: dict[str, Preset] = {
    item.name: item
    for item in (
        _DEFAULT,
        _residual("resenc-m", 8, 680_000_000, 135_000_000),
        _residual("resenc-l", 24, 2_100_000_000, 380_000_000),
        _residual("resenc-xl", 40, 3_600_000_000, 560_000_000),
        _SEGRESNET,
        _LAPTOP,
    )
}
