"""The ONNX networks compute what torch's do, and their contract is enough to rebuild a prediction without autoseg."""

import ast
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import contract_reader
import numpy as np
import onnx
import onnxruntime
import pytest
import SimpleITK as sitk
import torch
from scipy.ndimage import gaussian_filter

from autoseg.errors import AutosegError, ModelError
from autoseg.inference import onnx_contract, onnx_export
from autoseg.inference.model_writing import write_model_folder
from autoseg.inference.onnx_export import TOLERANCE, export_onnx
from autoseg.inference.onnx_graph import onnx_model
from autoseg.inference.predictor import Predictor
from autoseg.networks import NETWORKS, build_network
from planners.plan import (
    HeadAndNeckBox,
    Normalisation,
    PETNormalisation,
    Plan,
    RescaleNormalisation,
    ResidualUNetSpec,
    RGBNormalisation,
    SegResNetSpec,
    UNetSpec,
    ZScoreNormalisation,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "model-1"


def stages(dimension):
    """Features, strides and kernels of three stages, the first plane by plane."""
    flat = (1,) * (dimension - 2)
    ones, twos, threes = (1,) * dimension, (2,) * dimension, (3,) * dimension
    return {"features": (4, 8, 12), "strides": (ones, (*flat, 2, 2), twos), "kernels": ((*flat, 3, 3), threes, threes)}


SPECS = {
    "unet": lambda d: UNetSpec(**stages(d), convs_per_stage=(1, 2, 1), convs_per_decoder_stage=(1, 1)),
    "residual_unet": lambda d: ResidualUNetSpec(**stages(d), blocks_per_stage=(1, 2, 1), convs_per_decoder_stage=(1, 1)),
    "segresnet": lambda d: SegResNetSpec(**stages(d), blocks_per_stage=(1, 2, 1), blocks_per_decoder_stage=(1, 1)),
}


def network_of(kind, dimension, channels):
    """A network whose residual blocks do something, unlike freshly initialised ones."""
    network = build_network(SPECS[kind](dimension), channels, 3, dimension, seed=1).eval()
    generator = torch.Generator().manual_seed(2)
    for name, parameter in network.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(parameter, float(name.endswith("weight")), 0.2, generator=generator)
    return network.requires_grad_(False)


def test_every_kind_of_network_is_compared():
    assert set(SPECS) == set(NETWORKS)


@pytest.mark.parametrize(("dimension", "patch"), [(2, (16, 24)), (3, (8, 12, 16))])
@pytest.mark.parametrize("kind", SPECS)
def test_logits_equal_torchs_for_any_batch(kind, dimension, patch):
    channels = dimension - 1  # one channel lies in memory in its own way
    network = network_of(kind, dimension, channels)
    model = onnx_model(network, channels, patch, name=kind, facts={"fold": "0"})
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        image = torch.randn(batch, channels, *patch, generator=torch.Generator().manual_seed(batch))
        expected = network(image).numpy()
        (found,) = session.run(None, {"image": image.numpy()})
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    assert session.get_inputs()[0].shape == ["batch", channels, *patch]
    assert session.get_outputs()[0].shape == ["batch", 3, *patch]
    named = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    state = {name: tensor for name, tensor in network.state_dict().items() if name in named}
    unused = {name for name in network.state_dict() if name.startswith(("decoder.heads.0", "decoder.norms.0"))}  # deep supervision
    assert set(network.state_dict()) - set(named) == unused
    assert all(np.array_equal(named[name], tensor.numpy()) for name, tensor in state.items())


def test_an_operation_that_is_not_translated_is_named():
    class Other(torch.nn.Module):
        def forward(self, x):
            return torch.sigmoid(x)

    with pytest.raises(ModelError, match=r"operation sigmoid\.default has no translation to ONNX; known: .*conv3d"):
        onnx_model(Other(), 1, (4, 4), name="other", facts={})


def smooth(folder, shape, spacing, *, border=0, direction=(1, 0, 0, 0, 1, 0, 0, 0, 1), channels=2, hot=False):
    """Files of smooth random images, 0 in a border; `hot`: with an uptake at the end of the file's last axis."""
    rng = np.random.default_rng(3)
    files = []
    for channel, scale in zip(range(channels), (200.0, 3.0), strict=False):
        array = np.zeros(shape, np.float32)
        inner = tuple(slice(border, n - border) for n in shape)
        array[inner] = gaussian_filter(rng.normal(size=shape), 1)[inner] * scale
        array[tuple(n // 2 for n in shape)] = 0  # a hole
        if hot:
            array[5:8, 6:9, -4:-1] = 20 * scale
        image = sitk.GetImageFromArray(array)
        image.SetSpacing([float(value) for value in spacing[::-1]])
        image.SetDirection([float(value) for value in direction])
        files.append(folder / f"case_{channel:04d}.nii.gz")
        sitk.WriteImage(image, str(files[-1]))
    return files


SEED = 14
"""Of weights with which every label wins somewhere, in each situation."""

SAGITTAL, LAS = (0, 0, 1, 1, 0, 0, 0, -1, 0), (1, 0, 0, 0, -1, 0, 0, 0, 1)
SITUATIONS = {
    "transposed, turned, cropped, masked, two folds": (
        {"transpose": (1, 2, 0), "spacing": (3.0, 2.0, 1.5)},
        {"shape": (13, 16, 15), "spacing": (2.0, 1.6, 2.9), "border": 2, "direction": SAGITTAL},
        ("0", "1"),
    ),
    "coarse in the network's grid alone, as stored, smaller than the patch": (
        {"spacing": (7.0, 2.0, 2.0), "patch": (4, 24, 8), "orientation": "as_stored"},
        {"shape": (12, 13, 20), "spacing": (2.5, 2.2, 2.0), "border": 0, "direction": LAS},
        ("0",),
    ),
    "two dimensions, turned, another orientation, PET": (
        {"dimension": 2, "transpose": (2, 0, 1), "orientation": "ras"},
        {"shape": (17, 18, 3), "spacing": (2.6, 1.7, 4.2), "border": 0, "direction": LAS},
        ("0",),
    ),
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_prediction_rebuilt_from_the_contract_alone_is_the_same(situation, tiny, tmp_path):
    settings, image, folds = SITUATIONS[situation]
    plan = tiny.plan(**settings)
    name = tiny.name(plan)
    configuration = plan.configurations[name]
    second = PETNormalisation() if plan.orientation == "ras" else ZScoreNormalisation(masked=True)
    masked = configuration.model_copy(update={"normalisation": (configuration.normalisation[0], second)})
    plan = plan.model_copy(update={"configurations": {name: masked}})
    weights = {fold: tiny.network(plan, seed=SEED + int(fold)).state_dict() for fold in folds}
    compare_with_what_is_rebuilt(tmp_path, plan, tiny.dataset(plan), weights, image)


def compare_with_what_is_rebuilt(folder, plan, dataset, weights, image):
    """Every value of the plan is painted somewhere, and where it is clear which, both predictions say so."""
    write_model_folder(folder / "model", plan=plan, dataset=dataset, weights=weights)
    export_onnx(folder / "model", folder / "onnx")
    files = smooth(folder, **image)
    expected = Predictor(folder / "model", device="cpu", precision="fp32").predict([str(file) for file in files]).mask
    found, margin = contract_reader.Rebuilt(folder / "onnx").predict(files)
    clear = margin > 1e-4
    assert (~clear).sum() <= 12
    assert len(np.unique(expected)) == 3
    assert np.array_equal(found[clear], expected[clear])


def test_regions_that_overlap_are_rebuilt_in_their_order(tiny, tmp_path):
    """Sigmoid outputs, the later region over the earlier one, and the two normalisations that nothing else rebuilds."""
    plan = tiny.plan(spacing=(2.5, 2.0, 2.0))
    name = tiny.name(plan)
    other = plan.configurations[name].model_copy(update={"normalisation": (RescaleNormalisation(), RGBNormalisation())})
    regions = {"labels": {"background": 0, "whole": (1, 2), "core": 2, "ignore": 3}, "region_order": (1, 2)}
    plan = plan.model_copy(update={**regions, "configurations": {name: other}})
    network = build_network(other.network, 2, plan.label_scheme.heads, 3, seed=SEED).eval()
    image = {"shape": (9, 14, 12), "spacing": (2.0, 2.4, 1.7), "border": 1}
    dataset = replace(tiny.dataset(plan), region_order=plan.region_order)
    compare_with_what_is_rebuilt(tmp_path, plan, dataset, {"0": network.state_dict()}, image)
    decide = json.loads((tmp_path / "onnx" / "contract.json").read_text())["steps"][-2]
    assert decide["activation"] == "sigmoid"
    assert decide["outputs"] == [{"index": 0, "name": "whole", "value": 1}, {"index": 1, "name": "core", "value": 2}]


def test_the_golden_models_mask_is_rebuilt_from_the_command_and_its_contract(run, tmp_path):
    run("convert", "onnx", GOLDEN / "model", tmp_path / "onnx", "--json", tmp_path / "result.json")
    files = sorted((GOLDEN / "images").iterdir())
    found, _ = contract_reader.Rebuilt(tmp_path / "onnx").predict(files)
    assert np.array_equal(found, sitk.GetArrayFromImage(sitk.ReadImage(str(GOLDEN / "mask.nii.gz"))))
    (network,) = json.loads((tmp_path / "result.json").read_text())["result"]["networks"]
    assert network["sha256"] == hashlib.sha256((tmp_path / "onnx" / "fold_0.onnx").read_bytes()).hexdigest()
    assert network["largest_difference"] <= TOLERANCE * network["largest_logit"]


def test_the_reader_knows_nothing_of_autoseg():
    tree = ast.parse(Path(contract_reader.__file__).read_text())
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert modules == {"itertools", "json", "math", "numpy", "onnxruntime", "SimpleITK", "scipy"}


def test_page_and_document_hold_the_same_numbers(make_model, plan, tmp_path):
    export_onnx(make_model(plan, ("0", "1")), tmp_path / "onnx", folds=["1"])
    document, page = json.loads((tmp_path / "onnx" / "contract.json").read_text()), (tmp_path / "onnx" / "contract.md").read_text()
    assert [network["fold"] for network in document["networks"]] == ["1"]
    assert sorted(path.name for path in (tmp_path / "onnx").iterdir()) == ["contract.json", "contract.md", "fold_1.onnx"]
    assert "Not a medical device" in page
    for step in document["steps"]:
        assert step["rule"] in page
    for text in ("lower: -200.0, upper: 300.0, mean: 20.0, std: 80.0", "spacing: (2.0, 2.0, 2.0)", "index: 2, name: node, value: 2"):
        assert text in page
    model = onnx.load(tmp_path / "onnx" / "fold_1.onnx")
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert facts["weights_sha256"] == hashlib.sha256((tmp_path / "model" / "fold_1" / "model.safetensors").read_bytes()).hexdigest()


def test_logits_that_differ_are_refused_and_nothing_is_written(make_model, plan, tmp_path, monkeypatch):
    model = make_model(plan)

    def wrong(network, *arguments, **keywords):
        with torch.no_grad():
            made = onnx_model(network, *arguments, **keywords)
            list(network.parameters())[-1].add_(0.01)  # a bias of the logits
        return made

    monkeypatch.setattr("autoseg.inference.onnx_graph.onnx_model", wrong)
    with pytest.raises(ModelError, match="gives other logits in onnxruntime than in torch"):
        export_onnx(model, tmp_path / "onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_without_the_extra_one_line_says_what_to_install(make_model, plan, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "find_spec", lambda name: None)
    with pytest.raises(AutosegError, match=r"needs onnx and onnxruntime\. Install the extra: pip install 'autoseg\[onnx\]'"):
        export_onnx(make_model(plan), tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


def test_the_contract_knows_every_normalisation_and_orientation_of_the_schema():
    union = get_args(get_args(Normalisation)[0])
    assert {kind.model_fields["kind"].default for kind in union} | {"zscore_masked"} == set(onnx_contract.SCHEME_RULES)
    assert set(get_args(Plan.model_fields["orientation"].annotation)) == set(onnx_contract.ORIENTATION_RULES)


@pytest.mark.parametrize("hot", [True, False], ids=["a brain", "nothing hot"])
def test_a_region_of_interest_is_a_step_of_the_contract(hot, tiny, tmp_path):
    """Of an image that is turned and transposed, a box of the upper part, which the network alone sees; whole where nothing is hot."""
    rule = HeadAndNeckBox(channel=1, size_mm=(22.0, 21.0, 14.0), uptake=4.0)
    plan = tiny.plan(transpose=(1, 2, 0), spacing=(3.0, 2.0, 1.5)).model_copy(update={"region_of_interest": rule})
    network = tiny.network(plan, seed=SEED).state_dict()
    image = {"shape": (13, 16, 19), "spacing": (2.0, 1.6, 2.9), "border": 1, "direction": SAGITTAL, "hot": hot}
    compare_with_what_is_rebuilt(tmp_path, plan, tiny.dataset(plan), {"0": network}, image)
    document = json.loads((tmp_path / "onnx" / "contract.json").read_text())
    assert document["schema"] == "autoseg-onnx-contract/2", "a reader that does not know the step must not pass over it"
    step = document["steps"][2]
    assert (step["step"], step["size_mm"], step["above_mm"]) == ("region", [22.0, 21.0, 14.0], 20.0)
    files = [str(tmp_path / f"case_{channel:04d}.nii.gz") for channel in (0, 1)]
    found = np.nonzero(Predictor(tmp_path / "model", device="cpu", precision="fp32").predict(files).mask)
    assert (max(np.ptp(axis) for axis in found) < 16) == hot, "nothing is found outside the box; without one in all of 17 planes"


def test_a_second_stage_is_refused(tiny, plan, tmp_path):
    full = plan.configurations["3d_fullres"]
    second = full.model_copy(update={"previous_stage": "3d_lowres"})
    cascade = plan.model_copy(update={"configurations": {"3d_cascade_fullres": second, "3d_lowres": full}})
    for name, folder in (("3d_cascade_fullres", tmp_path / "model"), ("3d_lowres", tmp_path / "model" / "previous_stage")):
        dataset = replace(tiny.dataset(cascade), configuration=name)
        network = build_network(full.network, cascade.input_channels(name), 3, 3)
        write_model_folder(folder, plan=cascade, dataset=dataset, weights={"0": network.state_dict()})
    with pytest.raises(ModelError, match="continues from the masks of 3d_lowres"):
        export_onnx(tmp_path / "model", tmp_path / "onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    export_onnx(tmp_path / "model" / "previous_stage", tmp_path / "onnx")
