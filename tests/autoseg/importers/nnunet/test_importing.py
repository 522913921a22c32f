"""Whole models: weights, grids, archives, and what is refused."""

import dataclasses
import json
import stat
import zipfile

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunet_model import NNUNetModel, Weights, configuration

from autoseg.commands.convert import main
from autoseg.errors import ModelError
from autoseg.importers.nnunet import import_nnunet_model
from autoseg.inference.model_folder import ModelFolder
from autoseg.inference.predictor import Predictor


@pytest.fixture
def model(tmp_path):
    return NNUNetModel(tmp_path / "results")


def imported(model, tmp_path, **options):
    import_nnunet_model(model.folder, tmp_path / "out", **options)
    return ModelFolder.open(tmp_path / "out")


def balance(model, head):
    """Makes every output win somewhere: the last features are all of one size, and `head` says which of them an output adds."""
    state = model.weights["0"].state
    state["decoder.stages.0.convs.0.norm.weight"].fill_(1)
    state["decoder.stages.0.convs.0.norm.bias"].zero_()
    state["decoder.seg_layers.0.weight"][:, :, 0, 0, 0] = head
    state["decoder.seg_layers.0.bias"].zero_()


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
def test_logits_are_those_of_the_network_that_was_trained(tmp_path, dimension, residual):
    model = NNUNetModel(tmp_path, dimension=dimension, residual=residual)
    model.write()
    network = imported(model, tmp_path).load_network("0")
    patch = torch.randn((1, 2, *[4, 8, 8][-dimension:]), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        difference = network(patch) - model.weights["0"].logits(patch)
    assert difference.abs().max() < 1e-5


def test_plan_and_dataset_are_the_models(model, tmp_path):
    model.write(inference_allowed_mirroring_axes=(0, 2))
    opened = imported(model, tmp_path)
    assert opened.plan.orientation == "as_stored"
    assert opened.dataset.configuration == "3d_fullres"
    assert opened.dataset.name == "Dataset007_Tiny"
    assert opened.label_values == (0, 1, 2)
    assert opened.configuration.inference.mirror_axes == (0, 2)
    assert opened.plan.configurations["2d"].inference.mirror_axes == (0, 1)


def test_no_allowed_flips_means_none(model, tmp_path):
    model.write(inference_allowed_mirroring_axes=None)
    assert imported(model, tmp_path).configuration.inference.mirror_axes == ()


def test_card_names_the_trainer_and_nnunets_own_validation(model, tmp_path):
    model.write(trainer_name="nnUNetTrainerNoDeepSupervision_50epochs")
    summary = {"foreground_mean": {"Dice": 0.71}, "mean": {"1": {"Dice": 0.82}, "2": {"Dice": float("nan")}}}
    (model.folder / "fold_0" / "validation").mkdir()
    (model.folder / "fold_0" / "validation" / "summary.json").write_text(json.dumps(summary))
    opened = imported(model, tmp_path)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "trainer nnUNetTrainerNoDeepSupervision_50epochs" in card
    assert "| 0 | 0.710 | 0.820 |" in card
    assert opened.configuration.network.deep_supervision is False


def test_damaged_validation_figures_are_left_out(model, tmp_path):
    model.write()
    (model.folder / "fold_0" / "validation").mkdir()
    (model.folder / "fold_0" / "validation" / "summary.json").write_text('{"mean": {}}')
    imported(model, tmp_path)
    assert "No fold has a validation summary" in (tmp_path / "out" / "README.md").read_text()


def test_masks_follow_the_stored_axes_whatever_the_direction_says(model, tmp_path):
    model.write()
    predictor = Predictor(imported(model, tmp_path), device="cpu", precision="fp32", mirroring=False)
    array = np.random.default_rng(0).normal(50, 60, (2, 5, 11, 9)).astype(np.float32)
    masks = []
    for direction in ((1, 0, 0, 0, 1, 0, 0, 0, 1), (-1, 0, 0, 0, -1, 0, 0, 0, 1), (0, 0, 1, 1, 0, 0, 0, -1, 0)):
        images = [sitk.GetImageFromArray(channel) for channel in array]
        for image in images:
            image.SetSpacing((1.2, 1.4, 2.5))
            image.SetDirection(direction)
        masks.append(predictor.predict(images).mask)
    assert len(np.unique(masks[0])) > 1
    assert all(np.array_equal(mask, masks[0]) for mask in masks[1:])


def test_a_model_that_saw_images_turned_to_ras_sees_every_stored_copy_alike(model, tmp_path):
    model.write()
    stored = Predictor(imported(model, tmp_path), device="cpu", precision="fp32", mirroring=False)
    model.plans["image_reader_writer"] = "NibabelIOWithReorient"
    model.write()
    import_nnunet_model(model.folder, tmp_path / "ras")
    turned = Predictor(tmp_path / "ras", device="cpu", precision="fp32", mirroring=False)
    array = np.random.default_rng(0).normal(50, 60, (2, 5, 11, 9)).astype(np.float32)
    images = [sitk.GetImageFromArray(channel) for channel in array]
    for image in images:
        image.SetSpacing((1.2, 1.4, 2.5))
    copies = {letters: [sitk.DICOMOrient(image, letters) for image in images] for letters in ("RAS", "LPS", "PIR", "SAL")}
    wanted = sitk.GetImageFromArray(stored.predict(copies["RAS"]).mask)
    wanted.CopyInformation(copies["RAS"][0])
    for letters, copy in copies.items():
        assert np.array_equal(turned.predict(copy).mask, sitk.GetArrayFromImage(sitk.DICOMOrient(wanted, letters)))
    assert not np.array_equal(stored.predict(copies["LPS"]).mask, turned.predict(copies["LPS"]).mask)


def test_the_second_stage_sees_the_mask_of_the_first(tmp_path):
    low, second = (
        NNUNetModel(tmp_path / "results", configuration=name, channels=channels)
        for name, channels in (("3d_lowres", 2), ("3d_cascade_fullres", 4))
    )
    second.write()
    with pytest.raises(ModelError, match=r"masks of 3d_lowres; that model, nnUNetTrainer__nnUNetPlans__3d_lowres, must lie beside it"):
        import_nnunet_model(second.folder, tmp_path / "cascade")
    balance(low, torch.eye(3, 4))  # each label wins where its own feature is the strongest
    low.write()
    import_nnunet_model(low.folder, tmp_path / "low")
    import_nnunet_model(second.zip(tmp_path / "all.zip"), tmp_path / "cascade", model=second.folder.name)
    opened = ModelFolder.open(tmp_path / "cascade")

    array = np.random.default_rng(0).normal(50, 60, (2, 4, 8, 8)).astype(np.float32)
    options = {"device": "cpu", "precision": "fp32", "mirroring": False}
    first = Predictor(tmp_path / "low", **options).predict(array, spacing=(3.0, 1.5, 1.25)).mask
    mask = Predictor(opened, **options).predict(array, spacing=(3.0, 1.5, 1.25)).mask
    ct = (array[0].clip(-100, 300) - 40) / 50
    pet = (array[1] - array[1].mean()) / array[1].std()
    seen = np.stack([ct, pet, first == 1, first == 2]).astype(np.float32)
    logits = second.weights["0"].logits(torch.from_numpy(seen[None]))[0]
    assert len(np.unique(first)) == 3
    assert np.array_equal(mask, logits.argmax(0).numpy())


def test_regions_are_painted_in_their_order(tmp_path):
    model = NNUNetModel(tmp_path / "results")
    model.dataset |= {"labels": {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}, "regions_class_order": [1, 2]}
    model.weights["0"] = Weights(configuration()["architecture"], heads=2)
    balance(model, torch.tensor([[1.0, -1, 0, 0], [0, 0, 1, -1]]))
    model.write()
    opened = imported(model, tmp_path)
    array = np.random.default_rng(0).normal(50, 60, (2, 4, 8, 8)).astype(np.float32)
    mask = Predictor(opened, device="cpu", precision="fp32", mirroring=False).predict(array, spacing=(3.0, 1.5, 1.25)).mask
    seen = np.stack([(array[0].clip(-100, 300) - 40) / 50, (array[1] - array[1].mean()) / array[1].std()]).astype(np.float32)
    whole, core = model.weights["0"].logits(torch.from_numpy(seen[None]))[0].numpy() > 0
    assert np.array_equal(mask, np.where(core, 2, np.where(whole, 1, 0)))
    assert len(np.unique(mask)) == 3


def test_half_precision_weights_become_float32(model, tmp_path):
    model.weights["0"].state = {name: tensor.half() for name, tensor in model.weights["0"].state.items()}
    model.write()
    network = imported(model, tmp_path).load_network("0")
    assert network.decoder.heads[0].weight.dtype == torch.float32
    assert torch.equal(network.decoder.heads[0].weight, model.weights["0"].state["decoder.seg_layers.0.weight"].float())


def test_folds_are_all_numbered_ones_unless_named(tmp_path):
    model = NNUNetModel(tmp_path, folds=("0", "3", "all"))
    model.write()
    assert import_nnunet_model(model.folder, tmp_path / "a").folds == ("0", "3")
    assert import_nnunet_model(model.folder, tmp_path / "b", folds=["all", 0]).folds == ("all", "0")
    opened = ModelFolder.open(tmp_path / "a")
    for fold in ("0", "3"):
        found = opened.load_network(fold).decoder.heads[0].weight
        assert torch.equal(found, model.weights[fold].state["decoder.seg_layers.0.weight"])
    with pytest.raises(ModelError, match="no checkpoint_final.pth in fold 4; finished: 0, 3, all"):
        import_nnunet_model(model.folder, tmp_path / "c", folds=["4"])


def test_a_model_trained_on_all_cases_only(tmp_path):
    model = NNUNetModel(tmp_path, folds=("all",))
    model.write()
    assert import_nnunet_model(model.folder, tmp_path / "a").folds == ("all",)


def test_the_checkpoint_that_is_asked_for(model, tmp_path):
    model.write()
    model.weights["0"] = Weights(configuration()["architecture"], seed=9)
    model.write("checkpoint_best.pth")
    opened = imported(model, tmp_path, checkpoint="best")
    assert torch.equal(opened.load_network("0").decoder.heads[0].bias, model.weights["0"].state["decoder.seg_layers.0.bias"])
    with pytest.raises(ModelError, match=r"no fold has checkpoint_latest.pth; found: fold_0/checkpoint_best.pth, fold_0/checkpoint_final"):
        import_nnunet_model(model.folder, tmp_path / "x", checkpoint="latest")


def test_folds_whose_training_was_not_finished_are_told(tmp_path):
    model = NNUNetModel(tmp_path / "results", folds=("0", "2"))
    model.write()
    (model.folder / "fold_1").mkdir()
    (model.folder / "fold_2" / "checkpoint_final.pth").rename(model.folder / "fold_2" / "checkpoint_best.pth")
    found = import_nnunet_model(model.folder, tmp_path / "a")
    assert found.folds == ("0",)
    assert found.to_dict()["unfinished"] == {"1": (), "2": ("checkpoint_best.pth",)}
    assert "fold 1 is not in it: its training was not finished (it has no checkpoint)" in found.text()
    assert "fold 2 is not in it: its training was not finished (it has checkpoint_best.pth)" in found.text()
    assert import_nnunet_model(model.folder, tmp_path / "b", folds=[0]).unfinished == {}


def test_a_model_of_the_first_nnunet_is_refused_by_its_name(tmp_path):
    folder = tmp_path / "3d_fullres" / "Task004_Hippocampus" / "nnUNetTrainerV2__nnUNetPlansv2.1"
    (folder / "fold_0").mkdir(parents=True)
    for name in ("plans.pkl", "fold_0/model_final_checkpoint.model", "fold_0/model_final_checkpoint.model.pkl"):
        (folder / name).write_bytes(b"never opened")
    archive = tmp_path / "v1.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in folder.rglob("*.*"):
            packed.write(path, path.relative_to(tmp_path))
    for place in (folder, tmp_path, archive):
        with pytest.raises(ModelError, match=r"is a model of nnU-Net v1: plans.pkl is a pickle, which is not opened"):
            import_nnunet_model(place, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- archives


@pytest.mark.parametrize("base", [".", "Dataset007_Tiny/nnUNetTrainer__nnUNetPlans__3d_fullres"], ids=["exported", "folder"])
def test_archives_of_either_layout(model, tmp_path, base):
    model.write()
    extra = [("Dataset007_Tiny/x/crossval_results_folds_0/postprocessing.pkl", b"never opened"), ("x/fold_0/debug.json", "{}")]
    archive = model.zip(tmp_path / "model.zip", model.root / base, extra)
    import_nnunet_model(archive, tmp_path / "zipped")
    import_nnunet_model(model.folder, tmp_path / "plain")
    hashes = [ModelFolder.open(tmp_path / name).hashes for name in ("zipped", "plain")]
    assert hashes[0] == hashes[1]


def test_one_of_several_models_is_named(model, tmp_path):
    model.write()
    other = NNUNetModel(model.root, dimension=2)
    other.folder = model.folder.with_name("nnUNetTrainer__nnUNetPlans__2d")
    other.write()
    with pytest.raises(ModelError, match=r"holds 2 models; name one with --model: Dataset007_Tiny/nnUNetTrainer__nnUNetPlans__2d, "):
        import_nnunet_model(model.root, tmp_path / "x")
    assert import_nnunet_model(model.root, tmp_path / "a", model=other.folder.name).configuration == "2d"
    with pytest.raises(ModelError, match="0 models are called 'other'"):
        import_nnunet_model(model.root, tmp_path / "x", model="other")


def test_archives_that_reach_out_are_refused_before_anything_is_written(model, tmp_path):
    model.write()
    link = zipfile.ZipInfo("Dataset007_Tiny/plans.json")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    for name, message in (("../plans.json", "points out of it"), ("/tmp/plans.json", "points out of it"), (link, "a link")):
        archive = model.zip(tmp_path / "bad.zip", extra=[(name, "x")])
        with pytest.raises(ModelError, match=message):
            import_nnunet_model(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- what is refused


def test_nothing_is_left_where_a_later_fold_is_bad(tmp_path):
    model = NNUNetModel(tmp_path / "results", folds=("0", "1"))
    del model.weights["1"].state["decoder.seg_layers.0.bias"]
    model.write()
    with pytest.raises(ModelError, match=r"fold_1.checkpoint_final.pth: these are not the weights.*decoder.heads.0.bias is missing"):
        import_nnunet_model(model.folder, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results"]


def test_folds_of_different_models_are_refused(tmp_path):
    model = NNUNetModel(tmp_path / "results", folds=("0", "1"))
    model.write()
    model.weights = {"1": model.weights["1"]}
    model.write(trainer_name="nnUNetTrainerDA5")
    with pytest.raises(ModelError, match="has the trainer 'nnUNetTrainerDA5', .* has 'nnUNetTrainer'"):
        import_nnunet_model(model.folder, tmp_path / "out")


def _without(name):
    return lambda model: model.weights["0"].state.pop(name)


def _norm_statistics(model):
    model.weights["0"].tensor("encoder.stages.0.0.convs.0.norm.running_mean", 4)


def _another_width(model):
    model.weights["0"] = Weights(configuration()["architecture"], channels=3)


def _not_finite(model):
    model.weights["0"].state["decoder.seg_layers.0.weight"][0, 0] = float("nan")


def _no_tensor(model):
    model.weights["0"].state["decoder.seg_layers.0.weight"] = [1.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without("encoder.stages.1.0.convs.1.norm.bias"), r"encoder\.stages\.1\.1\.norm\.bias is missing"),
        (_norm_statistics, "norm.running_mean' belongs to neither .* It was trained by nnUNetTrainer"),
        (_another_width, r"encoder\.stages\.0\.0\.conv\.weight has the shape \(4, 3, 1, 3, 3\), not \(4, 2, 1, 3, 3\)"),
        (_not_finite, r"holds values that are not finite in decoder\.heads\.0\.weight"),
        (_no_tensor, "must hold tensors, found decoder.seg_layers.0.weight"),
    ],
)
def test_weights_that_do_not_fit_are_named(model, tmp_path, change, message):
    change(model)
    model.write()
    with pytest.raises(ModelError, match=message):
        import_nnunet_model(model.folder, tmp_path / "out")


@pytest.mark.parametrize("name", ["plans.json", "dataset.json"])
def test_a_missing_document_is_named(model, tmp_path, name):
    model.write()
    (model.folder / name).unlink()
    with pytest.raises(ModelError, match=f"{name} is missing"):
        import_nnunet_model(model.folder, tmp_path / "out")


def test_labels_that_are_not_supported_are_named(model, tmp_path):
    model.dataset["labels"] = {"background": 0, "a": 1, "b": 3}
    model.write()
    with pytest.raises(ModelError, match="must be consecutive"):
        import_nnunet_model(model.folder, tmp_path / "out")


def test_places_without_a_model(model, tmp_path):
    (tmp_path / "text.zip").write_text("no archive")
    for place in (tmp_path / "nothing", tmp_path / "text.zip"):
        with pytest.raises(ModelError, match="no folder here, and no zip"):
            import_nnunet_model(place, tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="no folder of a model"):
        import_nnunet_model(tmp_path / "empty", tmp_path / "out")
    model.write()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(ModelError, match="is there already"):
        import_nnunet_model(model.folder, tmp_path / "out")


def test_the_command_reports_what_it_wrote(model, tmp_path, capsys):
    model.write()
    arguments = ["nnunet-model", str(model.folder), str(tmp_path / "out"), "--json", str(tmp_path / "r.json"), "-f", "0"]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    assert "trained by nnUNetTrainer, folds 0" in capsys.readouterr().out
    assert json.loads((tmp_path / "r.json").read_text())["result"]["configuration"] == "3d_fullres"
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_a_native_dataset_document_keeps_its_form_without_an_origin(model, tmp_path):
    model.write()
    described = imported(model, tmp_path).dataset
    assert "origin" in described.to_dict()
    assert "origin" not in dataclasses.replace(described, origin="").to_dict()
