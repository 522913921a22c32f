"""How much memory a prediction takes, from shapes alone, before anything is read; and how much there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from autoseg.errors import ResourceError
from autoseg.preprocessing.resample import new_shape
from autoseg.resources import available_memory
from planners.memory import parameter_count
from planners.plan import Configuration, Plan

FLOAT = 4
LIVE_FULL_RESOLUTION = {"unet": 5, "residual_unet": 5, "segresnet": 4}
"""Feature maps of the first stage's size that live at once at the decoder's finest level, beside the encoder's, by kind of network. U-Nets:
the upsampled one, their concatenation (twice the channels), a convolution's output and its normalised copy. SegResNet: a block's input, its
two convolutions' outputs and their sum."""

GIB = 2**30


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes beyond what the process already holds, by what needs them.

    Attributes:
        images: the channels as read.
        preparing: copies while they are cropped, normalised and resampled.
        prepared: the channels on the network's grid, and the mask of a previous stage there and on the image's.
        slab: logits of the planes that are not complete.
        network: activations of one forward pass, and a copy of the weights in the order that the kernels want.
        weights: of the folds that are not loaded yet.
        mask: the result on the image's grid, and probabilities' share of a plane.
    """

    images: int
    preparing: int
    prepared: int
    slab: int
    network: int
    weights: int
    mask: int

    @property
    def peak(self) -> int:
        """The larger of the two stages: preparing, when the images are still there, and predicting, when they are gone."""
        return self.weights + self.prepared + max(self.images + self.preparing, self.slab + self.network + self.mask)

    def after(self, previous: MemoryEstimate) -> MemoryEstimate:
        """This stage's estimate with the one before it: the images are read once, both prepared ones wait, the networks take turns."""
        busier = max(self, previous, key=lambda stage: stage.slab + stage.network + stage.mask)
        return MemoryEstimate(
            images=self.images,
            preparing=max(self.preparing, previous.preparing),
            prepared=self.prepared + previous.prepared,
            slab=busier.slab,
            network=busier.network,
            weights=self.weights + previous.weights,
            mask=busier.mask,
        )

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {value / GIB:.2f}" for name, value in vars(self).items() if value)
        return f"{self.peak / GIB:.2f} GiB ({parts})"


def memory_estimate(
    plan: Plan, configuration: str, shape: Sequence[int], spacing: Sequence[float], *, folds: int = 0, value_bytes: int = 4
) -> MemoryEstimate:
    """The memory that predicting one case takes.

    Args:
        plan, configuration: the model's.
        shape, spacing: of the image in network order, before cropping: what cropping saves is not known yet.
        folds: networks that are still to be loaded.
        value_bytes: bytes a voxel of a channel as read.
    """
    settings = plan.configuration(configuration)
    target = (*spacing[: 3 - settings.dimension], *settings.spacing)
    after = new_shape(shape, spacing, target)
    images, channels, classes = len(plan.channels), plan.input_channels(configuration), plan.label_scheme.heads
    label_bytes = 2 if max(plan.label_scheme.painted_values) > 255 else 1
    previous_mask = label_bytes * (2 * prod(shape) + prod(after)) if settings.previous_stage else 0
    depth = min(after[0], settings.patch_size[0]) if settings.dimension == 3 else 1
    voxels = prod(shape)
    parameters = parameter_count(settings.network, channels, classes)
    return MemoryEstimate(
        images=images * voxels * value_bytes,
        preparing=voxels * (2 * FLOAT + 1),
        prepared=images * prod(after) * FLOAT + previous_mask,
        slab=classes * FLOAT * (depth * after[1] * after[2] + 4 * max(after[1] * after[2], shape[1] * shape[2])),
        network=activation_bytes(settings, channels, classes) + parameters * FLOAT,
        weights=folds * parameters * FLOAT,
        mask=voxels * label_bytes * 2,
    )


def activation_bytes(configuration: Configuration, channels: int, classes: int) -> int:
    """Bytes of float32 activations that live at once in one forward pass of one patch, without gradients.

    The encoder's outputs wait for the decoder; the finest decoder level adds `LIVE_FULL_RESOLUTION` feature maps; then come the image
    patch and its mirrored copy, and the logits and their sum over views.
    """
    network = configuration.network
    sizes = list(configuration.patch_size)
    waiting = 0
    for features, stride in zip(network.features, network.strides, strict=True):
        sizes = [n // s for n, s in zip(sizes, stride, strict=True)]
        waiting += features * prod(sizes)
    full = prod(configuration.patch_size)
    stem = network.features[0] * full if network.kind == "residual_unet" else 0
    return FLOAT * (waiting + stem + LIVE_FULL_RESOLUTION[network.kind] * network.features[0] * full + (2 * channels + 4 * classes) * full)


def check_fits(estimate: MemoryEstimate, case: str, available: int | None = None) -> None:
    """Refuses work that cannot fit, before it starts.

    Args:
        available: bytes; None asks the machine.

    Raises:
        ResourceError: the estimate's peak is above it; tells both.
    """
    room = available_memory() if available is None else available
    if estimate.peak > room:
        raise ResourceError(
            f"case {case}: prediction needs about {estimate}; {room / GIB:.2f} GiB are available. Close other programs, take a "
            "machine with more memory, predict with fewer folds, or crop the image"
        )
