"""plans.json -> plan: every field that a prediction depends on, in both of nnU-Net's forms."""

import numpy as np
import pytest
import torch
from nnunet_model import architecture, dataset_document, old_architecture, plans_document, statistics, with_a_cascade

from autoseg.errors import ModelError
from autoseg.importers.nnunet.plans import Trained, native_plan, read_dataset_description
from autoseg.preprocessing.resample import resample_image
from planners.plan import CTNormalisation, NoNormalisation, Plan, RescaleNormalisation, RGBNormalisation, ZScoreNormalisation

TORCH = "resample_torch_fornnunet"
TRAINED = Trained("3d_fullres", "nnUNetTrainer", (0, 1, 2))


def translated(document, trained=TRAINED, **dataset):
    description = read_dataset_description(dataset_document(**dataset), "dataset.json", "D")
    return native_plan(document, "plans.json", description, trained)


def changed(**changes):
    """The plans with a 3d_fullres of these changes."""
    document = plans_document()
    document["configurations"]["3d_fullres"] |= changes
    return document


def torch_resampling(**options):
    fields = {}
    for purpose in ("data", "seg", "probabilities"):
        fields[f"resampling_fn_{purpose}"] = TORCH
        fields[f"resampling_fn_{purpose}_kwargs"] = {"is_seg": purpose == "seg", "memefficient_seg_resampling": False, **options}
    return fields


def test_every_field_that_matters():
    plan = translated(plans_document(transpose_forward=[1, 0, 2]))
    assert plan.channels == ("CT", "PET")
    assert plan.labels == {"background": 0, "tumour": 1, "node": 2}
    assert (plan.transpose, plan.orientation, plan.file_ending, plan.name) == ((1, 0, 2), "as_stored", ".nii.gz", "nnUNetPlans")
    full = plan.configurations["3d_fullres"]
    assert (full.spacing, full.patch_size, full.batch_size, full.median_shape) == ((3.0, 1.5, 1.25), (4, 8, 8), 2, (5.0, 10.0, 9.5))
    assert full.normalisation == (CTNormalisation(lower=-100, upper=300, mean=40, std=50), ZScoreNormalisation(masked=True))
    assert full.resampling.model_dump() == {"image_order": 3, "label_order": 1, "logits_order": 1, "separate_z_ratio": 3.0}
    assert full.network.model_dump() == {
        "kind": "unet",
        "features": (4, 6),
        "strides": ((1, 1, 1), (1, 2, 2)),
        "kernels": ((1, 3, 3), (3, 3, 3)),
        "convs_per_stage": (1, 2),
        "convs_per_decoder_stage": (1,),
        "deep_supervision": True,
    }
    assert full.augmentation.zero_outside_mask == (1,)
    assert (full.training.loss.batch_dice, plan.configurations["2d"].training.loss.batch_dice) == (False, True)
    assert Plan.from_json(plan.to_json()) == plan


def test_the_form_before_architecture_means_the_same():
    old = plans_document()
    for dimension, name in ((2, "2d"), (3, "3d_fullres")):
        del old["configurations"][name]["architecture"]
        fields = old_architecture()
        fields["pool_op_kernel_sizes"] = [row[-dimension:] for row in fields["pool_op_kernel_sizes"]]
        fields["conv_kernel_sizes"] = [row[-dimension:] for row in fields["conv_kernel_sizes"]]
        old["configurations"][name] |= fields
    old["foreground_intensity_properties_by_modality"] = old.pop("foreground_intensity_properties_per_channel")
    new = plans_document()
    new["configurations"]["2d"]["architecture"] = architecture(2, kernel_sizes=[[3, 3], [3, 3]], strides=[[1, 1], [2, 2]])
    assert translated(old).configurations == translated(new).configurations


def test_numbers_that_stand_for_lists():
    short = architecture(3, kernel_sizes=3, n_conv_per_stage=2, n_conv_per_stage_decoder=2, features_per_stage=8, strides=[1, 2])
    network = translated(changed(architecture=short)).configurations["3d_fullres"].network
    assert (network.kernels, network.features, network.strides) == (((3,) * 3,) * 2, (8, 8), ((1,) * 3, (2,) * 3))
    assert (network.convs_per_stage, network.convs_per_decoder_stage) == ((2, 2), (2,))


def test_a_residual_encoder():
    network = translated(plans_document(residual=True)).configurations["3d_fullres"].network
    assert (network.kind, network.blocks_per_stage) == ("residual_unet", (1, 2))


@pytest.mark.parametrize(
    ("reader", "orientation"), [("SimpleITKIO", "as_stored"), ("NibabelIO", "as_stored"), ("NibabelIOWithReorient", "ras")]
)
def test_the_reader_tells_how_the_network_saw_images(reader, orientation):
    assert translated(plans_document(image_reader_writer=reader)).orientation == orientation


def test_configurations_inherit():
    document = plans_document()
    document["configurations"]["big"] = {"inherits_from": "3d_fullres", "batch_size": 7}
    big = translated(document).configurations["big"]
    assert big == translated(document).configurations["3d_fullres"].model_copy(update={"batch_size": 7})


def test_inheritance_in_a_circle_is_told():
    document = plans_document()
    document["configurations"] = {"3d_fullres": {"inherits_from": "b"}, "b": {"inherits_from": "3d_fullres"}}
    with pytest.raises(ModelError, match="in a circle: 3d_fullres -> b -> 3d_fullres"):
        translated(document)


def test_schemes_of_their_own():
    names = ["RescaleTo01Normalization", "RGBTo01Normalization"]
    document = changed(normalization_schemes=names, use_mask_for_norm=[False, False])
    assert translated(document).configurations["3d_fullres"].normalisation == (RescaleNormalisation(), RGBNormalisation())


def test_channels_that_are_left_as_they_are():
    document = changed(normalization_schemes=["NoNormalization", "ZScoreNormalization"], use_mask_for_norm=[True, False])
    assert translated(document).configurations["3d_fullres"].normalisation == (NoNormalisation(), ZScoreNormalisation())


def test_an_order_of_regions_without_regions_means_nothing():
    labels = {"background": 0, "tumour": [1], "node": 2}
    plan = translated(plans_document(), labels=labels, regions_class_order=[2, 1])
    assert plan.labels == {"background": 0, "tumour": 1, "node": 2}
    assert (plan.region_order, plan.label_scheme.heads) == ((), 3)


def test_linear_resampling_by_torch_is_the_spline_of_order_1():
    rule = translated(changed(**torch_resampling())).configurations["3d_fullres"].resampling
    assert (rule.image_order, rule.logits_order, rule.separate_z_ratio) == (1, 1, 3.0)
    never = translated(changed(**torch_resampling(force_separate_z=False))).configurations["3d_fullres"].resampling
    assert never.separate_z_ratio > 1e12


def test_linear_interpolation_here_is_torchs():
    rule = translated(changed(**torch_resampling(force_separate_z=False))).configurations["3d_fullres"].resampling
    array = np.random.default_rng(0).normal(size=(1, 9, 21, 17)).astype(np.float32)
    ours = resample_image(array, (14, 16, 23), (5.0, 1.0, 1.0), (3.2, 1.3, 0.74), rule)
    theirs = torch.nn.functional.interpolate(torch.from_numpy(array)[None], (14, 16, 23), mode="trilinear")[0].numpy()
    assert np.abs(ours - theirs).max() < 1e-5


def test_a_ratio_of_its_own():
    document = plans_document()
    for purpose in ("data", "seg", "probabilities"):
        document["configurations"]["3d_fullres"][f"resampling_fn_{purpose}_kwargs"]["separate_z_anisotropy_threshold"] = 2.5
    assert translated(document).configurations["3d_fullres"].resampling.separate_z_ratio == 2.5


def test_other_configurations_that_have_no_equal_are_left_out_with_the_reason():
    document = with_a_cascade(plans_document())
    document["configurations"]["3d_lowres"]["patch_size"] = [4, 7, 8]
    plan = translated(document)
    assert list(plan.configurations) == ["2d", "3d_fullres"]
    assert "must be divisible" in plan.reasons["3d_lowres"]
    assert "continues from 3d_lowres, which is not in the plan: configuration 3d_lowres: patch_size" in plan.reasons["3d_cascade_fullres"]
    with pytest.raises(ModelError, match="3d_cascade_fullres: continues from 3d_lowres, which is not in the plan"):
        translated(document, Trained("3d_cascade_fullres", "nnUNetTrainer", ()))


def test_a_cascade_keeps_its_order():
    plan = translated(with_a_cascade(plans_document()), Trained("3d_cascade_fullres", "nnUNetTrainer", (0,)))
    second = plan.configurations["3d_cascade_fullres"]
    assert (second.previous_stage, second.spacing, second.inference.mirror_axes) == ("3d_lowres", (3.0, 1.5, 1.25), (0,))
    assert plan.input_channels("3d_cascade_fullres") == 4
    assert second.augmentation.previous_stage is not None
    assert plan.configurations["3d_lowres"].previous_stage is None


def test_a_cascade_on_regions_is_refused():
    regions = {"labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": [1, 2]}
    with pytest.raises(ModelError, match="sees the labels that regions are made of"):
        translated(with_a_cascade(plans_document()), Trained("3d_cascade_fullres", "nnUNetTrainer", ()), **regions)
    assert translated(plans_document(), **regions).region_order == (1, 2)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "plans.json: must be an object"),
        ({"plans_name": "x"}, "'transpose_forward' is missing"),
        (plans_document(image_reader_writer="NaturalImage2DIO"), "images were read by 'NaturalImage2DIO'"),
        (plans_document(label_manager="Mine"), "labels were handled by 'Mine'"),
        (plans_document(transpose_forward=[0, 1, 1]), "must be the axes 0, 1 and 2"),
        (plans_document(configurations={}), "there is no '3d_fullres', which was trained"),
        (changed(preprocessor_name="Mine"), "the preprocessor 'Mine' is unknown"),
        (changed(normalization_schemes=["CTNormalization", "Mine"]), "channel 1 has the normalisation 'Mine'"),
        (changed(normalization_schemes=["CTNormalization"]), "must be a list of 2 entries"),
        (changed(use_mask_for_norm=[0, 1]), "'use_mask_for_norm' must be a list of true and false"),
        (plans_document(foreground_intensity_properties_per_channel={}), "'0' is missing"),
        (plans_document(foreground_intensity_properties_per_channel={"0": statistics(mean="x")}), "'mean' must be a number, found 'x'"),
        (changed(spacing=[1.0, 1.0]), "'spacing' must be a list of 3 entries"),
        (changed(spacing=[1.0, "a", 1.0]), "'spacing' must be a list of numbers"),
        (changed(spacing=[1.0, 0.0, 1.0]), "spacing must be positive"),
        (changed(patch_size=[8]), "'patch_size' must be 2 or 3 whole numbers"),
        (changed(batch_size=0), "'batch_size' must be a whole number of 1 or more, found 0"),
        (changed(batch_dice=1), "'batch_dice' must be true or false"),
    ],
)
def test_what_has_no_equal_or_is_broken_is_named(document, message):
    with pytest.raises(ModelError, match=message):
        translated(document)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"resampling_fn_data": "no_resampling_hack", "resampling_fn_data_kwargs": {}}, "resampling_fn_data is 'no_resampling_hack'"),
        ({"resampling_fn_data_kwargs": {"order": 2, "force_separate_z": None}}, "image_order: must be 1 or 3, found 2"),
        ({"resampling_fn_data_kwargs": {"order": 3, "order_z": 1, "force_separate_z": None}}, "'order_z' must be 0"),
        ({"resampling_fn_data_kwargs": {"force_separate_z": True}}, "force_separate_z = true has no equal"),
        ({"resampling_fn_data_kwargs": {"order": 3}}, "at different ratios"),
        ({"resampling_fn_data_kwargs": {"is_seg": True, "force_separate_z": None}}, "data_kwargs: 'is_seg' must be true for masks"),
        ({"resampling_fn_seg_kwargs": {"order": 1, "force_separate_z": None}}, "seg_kwargs: 'is_seg' must be true for masks"),
        ({"resampling_fn_data_kwargs": {"fancy": 1, "force_separate_z": None}}, "fancy is not known here"),
        (torch_resampling(mode="bicubic"), "only the modes 'linear'"),
    ],
)
def test_resampling_without_an_equal_is_named(fields, message):
    with pytest.raises(ModelError, match=message):
        translated(changed(**fields))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            architecture() | {"network_class_name": "dynamic_network_architectures.architectures.primus.PrimusM"},
            "primus.PrimusM'; the networks",
        ),
        (architecture() | {"network_class_name": "mine.PlainConvUNet"}, "'mine.PlainConvUNet'; the networks"),
        (architecture(norm_op="torch.nn.modules.batchnorm.BatchNorm3d"), "only InstanceNorm3d"),
        (architecture(conv_op="torch.nn.modules.conv.Conv2d"), "only Conv3d"),
        (architecture(nonlin="torch.nn.ReLU"), "only LeakyReLU"),
        (architecture(nonlin_kwargs={"negative_slope": 0.2}), "negative_slope must be 0.01, found 0.2"),
        (architecture(norm_op_kwargs={"eps": 1e-3, "affine": True}), "eps must be 1e-05, found 0.001"),
        (architecture(norm_op_kwargs={"eps": 1e-5}), "affine must be True, found None"),
        (architecture(norm_op_kwargs={"affine": True, "track_running_stats": True}), "track_running_stats"),
        (architecture(conv_bias=False), "without bias"),
        (architecture(dropout_op="torch.nn.Dropout3d"), "dropout_op = 'torch.nn.Dropout3d'"),
        (architecture(nonlin_first=True), "nonlin_first = True"),
        (architecture(residual=True, squeeze_excitation=True), "squeeze_excitation = True"),
        (architecture(residual=True, block="x.BottleneckD"), "only BasicBlockD"),
        (architecture(kernel_sizes=[[3, 3], [3, 3]]), "'kernel_sizes' must be 2 lists of 3"),
        (architecture(kernel_sizes=2), "has an even edge"),
        (architecture(strides=[[2, 2, 2], [2, 2, 2]]), "first stage has the stride"),
        (architecture(features_per_stage=[4]), "'features_per_stage' must be a list of 2 entries"),
        (architecture(n_conv_per_stage=[1, 0]), "'n_conv_per_stage' must be a list of whole numbers"),
    ],
)
def test_another_network_is_named(network, message):
    with pytest.raises(ModelError, match=message):
        translated(changed(architecture=network))


def test_another_network_of_the_old_form_is_named():
    document = changed(**{**old_architecture(), "UNet_class_name": "ResUNet"})
    del document["configurations"]["3d_fullres"]["architecture"]
    with pytest.raises(ModelError, match="UNet_class_name is 'ResUNet'"):
        translated(document)
