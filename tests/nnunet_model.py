"""A tiny model in the files that nnU-Net v2 leaves behind, written by hand: its documents, names of weights and checkpoint entries."""

import json
import zipfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

NAME = "Dataset007_Tiny/nnUNetTrainer__nnUNetPlans__3d_fullres"
CONVOLUTION, TRANSPOSED = {2: F.conv2d, 3: F.conv3d}, {2: F.conv_transpose2d, 3: F.conv_transpose3d}
POOLING = {2: F.avg_pool2d, 3: F.avg_pool3d}
SCIPY = "resample_data_or_seg_to_shape"


def dataset_document(**changes):
    labels = {"background": 0, "tumour": 1, "node": 2}
    return {"channel_names": {"0": "CT", "1": "PET"}, "labels": labels, "numTraining": 3, "file_ending": ".nii.gz", **changes}


def statistics(**changes):
    values = {"max": 900.0, "mean": 40.0, "median": 35.0, "min": -900.0, "percentile_00_5": -100.0, "percentile_99_5": 300.0, "std": 50.0}
    return values | changes


def architecture(dimension=3, residual=False, **changes):
    blocks = {"n_blocks_per_stage": [1, 2]} if residual else {"n_conv_per_stage": [1, 2]}
    arguments = {
        "n_stages": 2,
        "features_per_stage": [4, 6],
        "conv_op": f"torch.nn.modules.conv.Conv{dimension}d",
        "kernel_sizes": [[1] + [3] * (dimension - 1), [3] * dimension],
        "strides": [[1] * dimension, [1] + [2] * (dimension - 1)],
        **blocks,
        "n_conv_per_stage_decoder": [1],
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimension}d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    name = "ResidualEncoderUNet" if residual else "PlainConvUNet"
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{name}",
        "arch_kwargs": arguments | changes,
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def old_architecture():
    """The same plain network as nnU-Net's releases before `architecture` wrote it."""
    return {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 4,
        "unet_max_num_features": 6,
        "n_conv_per_stage_encoder": [1, 2],
        "n_conv_per_stage_decoder": [1],
        "num_pool_per_axis": [0, 1, 1],
        "pool_op_kernel_sizes": [[1, 1, 1], [1, 2, 2]],
        "conv_kernel_sizes": [[1, 3, 3], [3, 3, 3]],
    }


def configuration(dimension=3, residual=False, **changes):
    def rule(order, is_seg):
        return {"is_seg": is_seg, "order": order, "order_z": 0, "force_separate_z": None}

    return {
        "data_identifier": "nnUNetPlans_x",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [4, 8, 8][-dimension:],
        "median_image_size_in_voxels": [5.0, 10.0, 9.5][-dimension:],
        "spacing": [3.0, 1.5, 1.25][-dimension:],
        "normalization_schemes": ["CTNormalization", "ZScoreNormalization"],
        "use_mask_for_norm": [False, True],
        "resampling_fn_data": SCIPY,
        "resampling_fn_data_kwargs": rule(3, False),
        "resampling_fn_seg": SCIPY,
        "resampling_fn_seg_kwargs": rule(1, True),
        "resampling_fn_probabilities": SCIPY,
        "resampling_fn_probabilities_kwargs": rule(1, False),
        "architecture": architecture(dimension, residual),
        "batch_dice": dimension == 2,
        **changes,
    }


def plans_document(residual=False, **changes):
    return {
        "dataset_name": "Dataset007_Tiny",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"2d": configuration(2, residual), "3d_fullres": configuration(3, residual)},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": statistics(), "1": statistics(mean=3.0, std=2.0)},
        **changes,
    }


class Weights:
    """A state dict with random weights under nnU-Net's names, each encoder layer twice more as nnU-Net's modules register it."""

    def __init__(self, document, channels=2, heads=3, seed=0):
        self.generator = torch.Generator().manual_seed(seed)
        self.state = {}
        arguments = document["arch_kwargs"]
        features, self.kernels, self.strides = (arguments[name] for name in ("features_per_stage", "kernel_sizes", "strides"))
        self.dimension, self.residual = len(self.kernels[0]), "n_blocks_per_stage" in arguments
        counts = arguments["n_blocks_per_stage" if self.residual else "n_conv_per_stage"]
        width = channels
        if self.residual:
            self._layer("encoder.stem.convs.0", width, features[0], self.kernels[0])
            width = features[0]
        for stage, count in enumerate(counts):
            for index in range(count):
                self._block(stage, index, width, features[stage])
                width = features[stage]
        self.tensor("decoder.transpconvs.0.weight", features[1], features[0], *self.strides[1])
        self.tensor("decoder.transpconvs.0.bias", features[0])
        self._layer("decoder.stages.0.convs.0", 2 * features[0], features[0], self.kernels[0])
        self.tensor("decoder.seg_layers.0.weight", heads, features[0], *[1] * self.dimension)
        self.tensor("decoder.seg_layers.0.bias", heads)
        self.state |= {f"decoder.{name}": tensor for name, tensor in self.state.items() if name.startswith("encoder.")}

    def _block(self, stage, index, width, features):
        if not self.residual:
            self._layer(f"encoder.stages.{stage}.0.convs.{index}", width, features, self.kernels[stage])
            return
        where = f"encoder.stages.{stage}.blocks.{index}"
        self._layer(f"{where}.conv1", width, features, self.kernels[stage])
        self._layer(f"{where}.conv2", features, features, self.kernels[stage])
        if width != features:
            self._layer(f"{where}.skip.1", width, features, [1] * self.dimension, bias=False)

    def _layer(self, name, width, features, kernel, bias=True):
        shapes = {"conv.weight": (features, width, *kernel), "conv.bias": (features,), "norm.weight": (features,), "norm.bias": (features,)}
        for part, shape in shapes.items():
            if part != "conv.bias" or bias:
                tensor = self.tensor(f"{name}.{part}", *shape)
                module, kind = part.split(".")
                self.state[f"{name}.all_modules.{0 if module == 'conv' else 1}.{kind}"] = tensor

    def tensor(self, name, *shape):
        self.state[name] = torch.randn(shape, generator=self.generator)
        return self.state[name]

    def logits(self, x):
        """What nnU-Net's network gives for a batch, worked out layer by layer with torch's functions."""
        stages = 2
        if self.residual:
            x = self._conv(x, "encoder.stem.convs.0", self.kernels[0])
        outputs = []
        for stage in range(stages):
            for index in range(2 if stage else 1):
                stride = self.strides[stage] if index == 0 else [1] * self.dimension
                x = self._apply(x, stage, index, stride)
            outputs.append(x)
        fine, coarse = outputs
        up = TRANSPOSED[self.dimension](
            coarse, self.state["decoder.transpconvs.0.weight"], self.state["decoder.transpconvs.0.bias"], self.strides[1]
        )
        x = self._conv(torch.cat([up, fine], 1), "decoder.stages.0.convs.0", self.kernels[0])
        return CONVOLUTION[self.dimension](x, self.state["decoder.seg_layers.0.weight"], self.state["decoder.seg_layers.0.bias"])

    def _apply(self, x, stage, index, stride):
        kernel = self.kernels[stage]
        if not self.residual:
            return self._conv(x, f"encoder.stages.{stage}.0.convs.{index}", kernel, stride)
        where = f"encoder.stages.{stage}.blocks.{index}"
        shortcut = POOLING[self.dimension](x, stride) if max(stride) > 1 else x
        if f"{where}.skip.1.conv.weight" in self.state:
            shortcut = self._conv(shortcut, f"{where}.skip.1", [1] * self.dimension, active=False)
        x = self._conv(self._conv(x, f"{where}.conv1", kernel, stride), f"{where}.conv2", kernel, active=False)
        return F.leaky_relu(x + shortcut, 0.01)

    def _conv(self, x, name, kernel, stride=1, active=True):
        bias = self.state.get(f"{name}.conv.bias")
        x = CONVOLUTION[self.dimension](x, self.state[f"{name}.conv.weight"], bias, stride, [size // 2 for size in kernel])
        x = F.instance_norm(x, weight=self.state[f"{name}.norm.weight"], bias=self.state[f"{name}.norm.bias"], eps=1e-5)
        return F.leaky_relu(x, 0.01) if active else x


def checkpoint(state, **changes):
    """The entries of a checkpoint, with a training log of numpy numbers."""
    return {
        "network_weights": state,
        "optimizer_state": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.01, "params": [0]}]},
        "grad_scaler_state": None,
        "logging": {"mean_fg_dice": [np.float32(0.5), np.float64(0.75)], "dice_per_class_or_region": [[np.float32(0.1)]]},
        "_best_ema": np.float64(0.8),
        "current_epoch": 2,
        "init_args": {"configuration": "3d_fullres", "fold": 0, "plans": {}, "dataset_json": {}, "device": torch.device("cpu")},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1, 2),
        **changes,
    }


def with_a_cascade(document):
    """The plans with a 3d_lowres at twice the spacing and the second stage after it."""
    low = configuration(3, spacing=[6.0, 3.0, 2.5])
    document["configurations"] |= {
        "3d_lowres": low | {"next_stage": "3d_cascade_fullres"},
        "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
    }
    return document


class NNUNetModel:
    """A trained model's folder; what is written may be changed first."""

    def __init__(self, root: Path, *, dimension=3, residual=False, folds=("0",), configuration="", channels=2):
        self.plans, self.dataset = with_a_cascade(plans_document(residual)), dataset_document()
        self.configuration = configuration or ("2d" if dimension == 2 else "3d_fullres")
        self.root, self.folder = root, (root / NAME).with_name(f"nnUNetTrainer__nnUNetPlans__{self.configuration}")
        document = architecture(dimension, residual)
        self.weights = {fold: Weights(document, channels, seed=number) for number, fold in enumerate(folds)}
        self.changes = {"init_args": {"configuration": self.configuration}}
        if dimension == 2:
            self.changes["inference_allowed_mirroring_axes"] = (0, 1)

    def write(self, name="checkpoint_final.pth", **changes) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "plans.json").write_text(json.dumps(self.plans))
        (self.folder / "dataset.json").write_text(json.dumps(self.dataset))
        for fold, weights in self.weights.items():
            (self.folder / f"fold_{fold}").mkdir(exist_ok=True)
            torch.save(checkpoint(weights.state, **{**self.changes, **changes}), self.folder / f"fold_{fold}" / name)
        return self.folder

    def zip(self, path: Path, base: Path | None = None, extra=()) -> Path:
        """All files below `base` in an archive, as nnU-Net's export makes it from its results folder (the default)."""
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            base = base or self.root
            for file in sorted(base.rglob("*")):
                if file.is_file():
                    archive.write(file, file.relative_to(base))
            for name, content in extra:
                archive.writestr(name, content)
        return path
