"""One training step beside nnU-Net's: first that both compute the same, then how long each takes.

Both networks start from the same weights (nnU-Net's own initialisation, carried over by name) and see the same batches. nnU-Net takes its
stock `train_step`; autoseg its network, loss and SGD. Everything is fp32 on the CPU. Ends with status 1 where a loss or a weight differs by
more than the tolerance after the last step.

Run it where nnunetv2 2.8.1 is installed, with the checkout on PYTHONPATH:
    PYTHONPATH=. python benchmarks/peer_step.py [--network unet|residual_unet] [--data DIR] [--rounds 3] [--threads 2]
`--data`: a folder with images/ and labels/ (or imagesTr/, labelsTr/) to cut the batches from; without it they are noise and blobs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["nnUNet_compile"] = "f"  # noqa: SIM112
_SCRATCH = tempfile.TemporaryDirectory()
for _name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ[_name] = _SCRATCH.name

import numpy as np  # noqa: E402
import torch  # noqa: E402

from autoseg.networks import build_network, weight_map_from_nnunet  # noqa: E402
from autoseg.training.losses import segmentation_loss  # noqa: E402
from planners.labels import LabelScheme  # noqa: E402
from planners.plan import SGD, DiceCELoss, Network, ResidualUNetSpec, UNetSpec  # noqa: E402

PATCH = (40, 56, 40)
FEATURES = (32, 64, 128, 256)
STRIDES = ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
KERNELS = ((3, 3, 3),) * 4
LABELS = {"background": 0, "Anterior": 1, "Posterior": 2}
CLASSES = len(LABELS)
CLIP = 12.0
SPECS: dict[str, Network] = {
    "unet": UNetSpec(features=FEATURES, strides=STRIDES, kernels=KERNELS, convs_per_stage=(2, 2, 2, 2), convs_per_decoder_stage=(2, 2, 2)),
    "residual_unet": ResidualUNetSpec(
        features=FEATURES, strides=STRIDES, kernels=KERNELS, blocks_per_stage=(1, 3, 4, 6), convs_per_decoder_stage=(1, 1, 1)
    ),
}


def peer_trainer(spec: Network, batch_size: int, batch_dice: bool) -> Any:
    """nnU-Net's stock trainer on the CPU, initialised, for the same architecture."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    package = "dynamic_network_architectures.architectures.unet."
    if isinstance(spec, UNetSpec):
        network_class, encoder = package + "PlainConvUNet", {"n_conv_per_stage": list(spec.convs_per_stage)}
    else:
        network_class, encoder = package + "ResidualEncoderUNet", {"n_blocks_per_stage": list(spec.blocks_per_stage)}
    arguments = {
        "n_stages": len(spec.features),
        "features_per_stage": list(spec.features),
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [list(kernel) for kernel in spec.kernels],
        "strides": [list(stride) for stride in spec.strides],
        **encoder,
        "n_conv_per_stage_decoder": list(spec.convs_per_decoder_stage),
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": batch_size,
        "patch_size": list(PATCH),
        "median_image_size_in_voxels": [36.0, 50.0, 35.0],
        "spacing": [1.0, 1.0, 1.0],
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "architecture": {
            "network_class_name": network_class,
            "arch_kwargs": arguments,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": batch_dice,
    }
    plans = {
        "dataset_name": "Dataset004_Hippocampus",
        "plans_name": "nnUNetPlans",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration},
        "label_manager": "LabelManager",
        "continue_training": False,
    }
    dataset = {"channel_names": {"0": "MRI"}, "labels": LABELS, "file_ending": ".nii.gz"}
    prepared = Path(_SCRATCH.name, "Dataset004_Hippocampus", "nnUNetPlans_3d_fullres")
    prepared.mkdir(parents=True, exist_ok=True)
    (prepared / "case.b2nd").touch()  # only the name is read, to tell the storage format
    trainer = nnUNetTrainer(plans, "3d_fullres", 0, dataset, device=torch.device("cpu"))
    trainer.initialize()
    return trainer


class Peer:
    """nnU-Net's stock training step."""

    def __init__(self, trainer: Any):
        from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform

        self.trainer = trainer
        self.trainer.network.train()
        self.pyramid = DownsampleSegForDSTransform(trainer._get_deep_supervision_scales())

    def prepare(self, image: torch.Tensor, labels: torch.Tensor) -> dict[str, Any]:
        """The batch as nnU-Net's loader hands it over, targets of all levels included."""
        samples = [self.pyramid(segmentation=sample[None].to(torch.int16))["segmentation"] for sample in labels]
        return {"data": image, "target": [torch.stack(level) for level in zip(*samples, strict=True)]}

    def step(self, batch: dict[str, Any]) -> float:
        return float(self.trainer.train_step(batch)["loss"])

    def weights(self) -> dict[str, torch.Tensor]:
        return weight_map_from_nnunet(self.trainer.network.state_dict())


class Ours:
    """autoseg's training step, from the parts that its loop uses."""

    def __init__(self, spec: Network, weights: dict[str, torch.Tensor], batch_dice: bool):
        self.network = build_network(spec, 1, CLASSES, 3)
        self.network.load_state_dict(weights)
        self.network.train()
        self.loss = segmentation_loss(DiceCELoss(batch_dice=batch_dice), len(spec.features) - 1, LabelScheme(LABELS))
        settings = SGD()
        self.optimiser = torch.optim.SGD(
            self.network.parameters(),
            settings.lr,
            momentum=settings.momentum,
            nesterov=settings.nesterov,
            weight_decay=settings.weight_decay,
        )

    def prepare(self, image: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return image, labels.long()

    def step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> float:
        image, labels = batch
        self.optimiser.zero_grad(set_to_none=True)
        loss = self.loss(self.network(image), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), CLIP)
        self.optimiser.step()
        return loss.item()

    def weights(self) -> dict[str, torch.Tensor]:
        return self.network.state_dict()


def generated_batches(count: int, batch_size: int, seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Noise that is brighter inside blobs of two labels."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.arange(size) for size in PATCH), indexing="ij"))
    batches = []
    for _ in range(count):
        labels = np.zeros((batch_size, *PATCH), np.int16)
        for sample in labels:
            for value in (1, 2):
                centre = rng.uniform(0.25, 0.75, 3) * PATCH
                sample[((grid - centre[:, None, None, None]) ** 2).sum(0) < rng.uniform(4, 12) ** 2] = value
        image = rng.normal(size=(batch_size, 1, *PATCH)) + 0.7 * labels[:, None]
        batches.append((torch.from_numpy(image.astype(np.float32)), torch.from_numpy(labels)))
    return batches


def cut_batches(folder: Path, count: int, batch_size: int, seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of z-scored images drawn from a folder, cut or padded with 0 about their middle to the patch, with noise of 0.1.

    Without the noise the padded voxels sit on the kink of the first LeakyReLU: a z-scored image and its padding both have mean 0, so do
    the convolved ones, and the sign of a rounding error picks the derivative. With a batch of 2 the first norm's bias gradient was then
    17 % off a float64 computation in nnU-Net and 26 % in autoseg; after 10 steps losses still agreed to 8e-6, weights only to 2e-4.
    """
    import SimpleITK

    images = folder / ("imagesTr" if (folder / "imagesTr").is_dir() else "images")
    labels = folder / ("labelsTr" if images.name == "imagesTr" else "labels")
    names = sorted(path.name for path in labels.glob("*.nii.gz") if (images / path.name).exists())
    rng = np.random.default_rng(seed)

    def patch(path: Path, normalise: bool) -> np.ndarray:
        array = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))).astype(np.float32)
        if normalise:
            array = (array - array.mean()) / array.std()
        array = np.pad(array, [(size, size) for size in PATCH])
        corner = [(have - want) // 2 for have, want in zip(array.shape, PATCH, strict=True)]
        return array[tuple(slice(start, start + want) for start, want in zip(corner, PATCH, strict=True))]

    batches = []
    for _ in range(count):
        drawn = rng.choice(names, batch_size, replace=False)
        image = np.stack([patch(images / name, True)[None] for name in drawn])
        image += rng.normal(0, 0.1, image.shape).astype(np.float32)
        mask = np.stack([patch(labels / name, False) for name in drawn]).astype(np.int16)
        batches.append((torch.from_numpy(image), torch.from_numpy(mask)))
    return batches


def compare(peer: Peer, ours: Ours, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[float, float]:
    """Largest absolute differences of the losses over all steps and of the weights after the last."""
    loss_difference = 0.0
    for number, batch in enumerate(batches):
        theirs, own = peer.step(peer.prepare(*batch)), ours.step(ours.prepare(*batch))
        loss_difference = max(loss_difference, abs(theirs - own))
        print(f"step {number}: loss nnunetv2 {theirs:.7f}  autoseg {own:.7f}  difference {own - theirs:+.1e}", flush=True)
    expected, found = peer.weights(), ours.weights()
    assert expected.keys() == found.keys()
    return loss_difference, max(float((expected[name] - found[name]).abs().max()) for name in expected)


def race(peer: Peer, ours: Ours, batch: tuple[torch.Tensor, torch.Tensor], rounds: int) -> None:
    """Prints seconds a step of both, in turns: of the wall clock, and of the processors, which other jobs disturb less."""
    contestants = {"nnunetv2": (peer, peer.prepare(*batch)), "autoseg": (ours, ours.prepare(*batch))}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, (contestant, prepared) in contestants.items():
            start, start_cpu = time.perf_counter(), time.process_time()
            contestant.step(prepared)
            seconds[name].append((time.perf_counter() - start, time.process_time() - start_cpu))
    for index, clock in enumerate(("wall", "CPU")):
        medians = {name: statistics.median(value[index] for value in values) for name, values in seconds.items()}
        for name, values in seconds.items():
            listed = ", ".join(f"{value[index]:.2f}" for value in values)
            print(f"{name}: {medians[name]:.2f} s {clock} a step (median of {listed})")
        print(f"{clock}, nnunetv2 / autoseg: {medians['nnunetv2'] / medians['autoseg']:.2f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=SPECS, default="unet")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=7)
    parser.add_argument("--batch-dice", action="store_true")
    parser.add_argument("--rounds", type=int, default=3, help="timed steps of each, in turns, after the comparison; 0: none")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)

    spec = SPECS[options.network]
    peer = Peer(peer_trainer(spec, options.batch_size, options.batch_dice))
    ours = Ours(spec, {name: tensor.clone() for name, tensor in peer.weights().items()}, options.batch_dice)
    if options.data:
        batches = cut_batches(options.data, options.steps, options.batch_size, options.seed)
    else:
        batches = generated_batches(options.steps, options.batch_size, options.seed)
    loss_difference, weight_difference = compare(peer, ours, batches)
    print(f"{options.network}, {options.steps} steps: losses differ by at most {loss_difference:.2e}, weights by {weight_difference:.2e}")
    if options.rounds:
        race(peer, ours, batches[0], options.rounds)
    return int(max(loss_difference, weight_difference) > options.tolerance)


if __name__ == "__main__":
    sys.exit(main())
