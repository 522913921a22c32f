"""Prediction end to end, against a naive computation with whole logits in memory and scikit-image, and by its symmetries."""

import errno
import itertools
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch
from scipy.ndimage import gaussian_filter, map_coordinates
from skimage.transform import resize

from autoseg.dataset.case import Case, Source
from autoseg.errors import AutosegError, CasesFailed, DatasetError, DeviceError, GeometryError, ImageError, ModelError, ResourceError
from autoseg.images import Geometry, Image, from_sitk, read_mask, reorientation_to_canonical, to_sitk, write_image
from autoseg.inference.outputs import probabilities_path
from autoseg.inference.predictor import Predictor
from autoseg.inference.records import Records
from autoseg.inference.tiles import flips, tile_starts
from autoseg.preprocessing.prepare import prepare
from autoseg.preprocessing.resample import separate_axis

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def picture(shape, spacing, *, border=0, seed=0, direction=IDENTITY):
    """Two channels of smooth random values, zero in a border."""
    rng = np.random.default_rng(seed)
    geometry = Geometry(shape, spacing, (5.0, -3.0, 11.0), direction)
    images = []
    for scale in (200.0, 3.0):
        array = np.zeros(shape, np.float32)
        inner = tuple(slice(border, n - border) if n > 2 * border else slice(None) for n in shape)
        array[inner] = gaussian_filter(rng.normal(size=shape), 1)[inner] * scale
        images.append(Image(array, geometry, None, ()))
    return images


def naive(predictor, images):
    """The mask by padding everything, adding up whole logits in float64, resizing them whole, argmax, and pasting back."""
    plan = predictor.plan
    name = predictor.model.dataset.configuration
    settings = plan.configurations[name]
    prepared = prepare(images, None, plan, name)
    data, properties = prepared.data, prepared.properties
    patch = (1,) * (3 - settings.dimension) + settings.patch_size
    missing = [max(p - n, 0) for p, n in zip(patch, data.shape[1:], strict=True)]
    before = [m // 2 for m in missing]
    padded = np.pad(data, [(0, 0), *((b, m - b) for b, m in zip(before, missing, strict=True))])
    weight = np.zeros(patch)
    weight[tuple(p // 2 for p in patch)] = 1
    weight = gaussian_filter(weight, [p / 8 for p in patch], mode="constant", truncate=10)
    total, count = np.zeros((3, *padded.shape[1:])), np.zeros(padded.shape[1:])
    networks = predictor.segmenter.networks
    for corner in itertools.product(*(tile_starts(n, p, 0.5) for n, p in zip(padded.shape[1:], patch, strict=True))):
        place = tuple(slice(c, c + p) for c, p in zip(corner, patch, strict=True))
        tile = torch.from_numpy(padded[(slice(None), *place)].copy())[None]
        tile = tile[:, :, 0] if settings.dimension == 2 else tile
        outputs = []
        for flip, network in itertools.product(flips(predictor.segmenter.window.mirror_axes), networks):
            dims = [axis + 2 for axis in flip]
            with torch.inference_mode():
                outputs.append(network(tile.flip(dims)).flip(dims)[0].double().numpy())
        logits = np.mean(outputs, axis=0)
        total[(slice(None), *place)] += weight * (logits[:, None] if settings.dimension == 2 else logits)
        count[place] += weight
    inside = tuple(slice(b, b + n) for b, n in zip(before, data.shape[1:], strict=True))
    logits = (total / count)[(slice(None), *inside)]
    coarse = separate_axis(properties.new_spacing, properties.spacing, 3.0)  # on the way back the network's grid is the one that is read
    whole = resize_whole(logits, properties.shape_after_crop, coarse)
    ordered = np.sort(whole, axis=0)
    unclear = (ordered[-1] - ordered[-2] < 1e-5).astype(np.uint8)
    return paste_back(whole.argmax(0).astype(np.uint8), properties), paste_back(unclear, properties).astype(bool)


def paste_back(cropped, properties):
    whole = np.zeros(properties.shape_before_crop, cropped.dtype)
    (a, b), (c, d), (e, f) = properties.crop_box
    whole[a:b, c:d, e:f] = cropped
    whole = whole.transpose(np.argsort(properties.transpose))
    if properties.orientation == "canonical":
        whole = reorientation_to_canonical(properties.image_geometry()).restore(whole)
    return whole


def resize_whole(logits, shape, coarse):
    if logits.shape[1:] == tuple(shape):
        return logits
    options = {"order": 1, "mode": "edge", "anti_aliasing": False, "clip": False}
    if coarse is None:
        return np.stack([resize(channel, shape, **options) for channel in logits])
    result = []
    for channel in logits:
        planes = np.moveaxis(channel, coarse, 0)
        in_plane = [n for axis, n in enumerate(shape) if axis != coarse]
        planes = np.stack([resize(plane, in_plane, **options) for plane in planes])
        at = len(planes) / shape[coarse] * (np.arange(shape[coarse]) + 0.5) - 0.5
        grid = np.meshgrid(at, *(np.arange(n) for n in in_plane), indexing="ij")
        result.append(np.moveaxis(map_coordinates(planes, grid, order=0, mode="nearest"), 0, coarse))
    return np.stack(result)


LAS = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)
SAGITTAL = (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0)

SITUATIONS = {
    "isotropic": ({}, (21, 14, 17), (2.0, 2.0, 2.0), 0, IDENTITY),
    "resampled": ({}, (15, 22, 19), (2.6, 1.5, 1.7), 0, IDENTITY),
    "coarse axis apart": ({"spacing": (6.0, 1.0, 1.0), "patch": (4, 8, 8)}, (7, 15, 14), (5.0, 1.2, 1.1), 0, IDENTITY),
    "coarse in the target only": ({"spacing": (2.0, 2.0, 7.0), "patch": (8, 8, 4)}, (12, 12, 20), (2.5, 2.2, 2.0), 0, IDENTITY),
    "coarse axes that differ: the network's decides": (
        {"spacing": (2.0, 2.0, 7.0), "patch": (8, 8, 4)},
        (6, 13, 19),
        (7.5, 2.1, 2.0),
        0,
        IDENTITY,
    ),
    "transposed": ({"transpose": (2, 0, 1), "spacing": (3.0, 2.0, 1.5)}, (13, 16, 15), (2.0, 1.6, 2.9), 0, IDENTITY),
    "transposed and turned": ({"transpose": (1, 2, 0), "spacing": (3.0, 2.0, 1.5)}, (13, 16, 15), (2.0, 1.6, 2.9), 2, SAGITTAL),
    "cropped": ({}, (18, 20, 22), (2.2, 1.8, 2.0), 4, LAS),
    "as stored": ({"orientation": "as_stored"}, (12, 14, 16), (2.2, 1.8, 2.0), 1, SAGITTAL),
    "smaller than the patch": ({"patch": (16, 16, 16)}, (9, 7, 20), (2.0, 2.0, 2.0), 0, IDENTITY),
    "one slice": ({}, (1, 15, 17), (2.0, 2.1, 1.9), 0, IDENTITY),
    "two dimensions": ({"dimension": 2}, (5, 18, 15), (4.0, 1.7, 2.2), 1, IDENTITY),
    "two dimensions, one slice, turned": ({"dimension": 2, "transpose": (2, 0, 1)}, (17, 18, 1), (2.0, 1.7, 2.2), 0, LAS),
}


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("folds", [("0",), ("0", "1")])
def test_streaming_equals_the_naive_computation_voxel_for_voxel(situation, folds, tiny, make_model):
    settings, shape, spacing, border, direction = SITUATIONS[situation]
    predictor = Predictor(make_model(tiny.plan(**settings), folds), device="cpu", precision="fp32", mirroring=len(folds) == 1)
    images = picture(shape, spacing, border=border, direction=direction)
    found = predictor.predict(images)
    expected, unclear = naive(predictor, images)
    assert found.mask.shape == shape
    assert found.geometry == images[0].geometry
    assert np.array_equal(found.mask[~unclear], expected[~unclear])
    assert unclear.sum() <= 2
    assert len(np.unique(expected)) > 1, "the comparison says nothing where one label wins everywhere"


@pytest.fixture
def predictor(plan, make_model):
    return Predictor(make_model(plan), device="cpu", precision="fp32")


def turns():
    return [(order, flip) for order in itertools.permutations(range(3)) for flip in itertools.product((False, True), repeat=3)]


def turned(image, order, flip):
    return SimpleITK.Flip(SimpleITK.PermuteAxes(image, order), flip)


def test_prediction_commutes_with_all_48_turns_of_the_image(predictor):
    images = [to_sitk(image.array, image.geometry) for image in picture((9, 7, 8), (2.0, 1.7, 2.6), border=1)]
    straight = predictor.predict(images)
    assert len(np.unique(straight.mask)) > 1
    reference = to_sitk(straight.mask, straight.geometry)
    for order, flip in turns():
        found = predictor.predict([turned(image, order, flip) for image in images])
        expected = from_sitk(turned(reference, order, flip))
        assert np.array_equal(found.mask, expected.array), (order, flip)
        assert found.geometry.shape == expected.geometry.shape
        np.testing.assert_allclose(found.geometry.direction, expected.geometry.direction, atol=1e-9)
        np.testing.assert_allclose(found.geometry.origin, expected.geometry.origin, atol=1e-6)


def test_arrays_images_and_paths_give_the_same(predictor, tmp_path):
    images = picture((10, 12, 11), (2.0, 2.0, 2.0))
    expected = predictor.predict(images).mask
    paths = []
    for index, image in enumerate(images):
        paths.append(tmp_path / f"P1_{index:04d}.nii.gz")
        write_image(paths[-1], image.array, image.geometry)
    assert np.array_equal(predictor.predict(paths).mask, expected)
    assert np.array_equal(predictor.predict([to_sitk(image.array, image.geometry) for image in images]).mask, expected)
    array = np.stack([image.array for image in images])
    assert np.array_equal(predictor.predict(array, spacing=(2.0, 2.0, 2.0)).mask, expected)


def test_probabilities_lie_on_the_image_grid_and_agree_with_the_mask(predictor):
    images = picture((14, 12, 13), (2.4, 1.7, 2.2), border=2, direction=SAGITTAL)
    found = predictor.predict(images, probabilities=True)
    assert found.probabilities.shape == (3, 14, 12, 13)
    assert found.probabilities.dtype == np.float16
    np.testing.assert_allclose(found.probabilities.astype(float).sum(0), 1, atol=2e-3)
    ordered = np.sort(found.probabilities.astype(float), axis=0)
    clear = ordered[-1] - ordered[-2] > 2e-3
    assert np.array_equal(found.probabilities.argmax(0)[clear], found.mask[clear])
    assert (found.probabilities[0, 0] == 1).all(), "outside the crop it is background for sure"


def test_no_mirroring_and_another_step_are_other_windows(make_model, tiny):
    model = make_model(tiny.plan(mirror_axes=(0, 2)))
    plain = Predictor(model, device="cpu", mirroring=False, step=0.25)
    assert plain.settings["mirror_axes"] == []
    assert plain.settings["step"] == 0.25
    assert Predictor(model, device="cpu").settings["mirror_axes"] == [0, 2]
    with pytest.raises(ModelError, match="at most 1"):
        Predictor(model, device="cpu", step=1.5)


def test_a_device_that_is_not_there_is_an_error(make_model, plan):
    model = make_model(plan)
    with pytest.raises(DeviceError, match="cuda:99"):
        Predictor(model, device="cuda:99")
    with pytest.raises(DeviceError, match="is no device"):
        Predictor(model, device="toaster")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_or_replaced_and_counted(predictor, value):
    images = picture((10, 10, 10), (2.0, 2.0, 2.0))
    images[1].array[3, 4, 5] = value
    images[1].array[0, 0, :2] = value
    with pytest.raises(ImageError, match="channel PT .*3 voxels that are NaN or infinite"):
        predictor.predict(images)
    found = predictor.predict(images, replace_nonfinite=True)
    assert any("channel PT: 3 NaN or infinite voxels replaced" in note for note in found.notes)
    finite = images[1].array[np.isfinite(images[1].array)]
    images[1].array[~np.isfinite(images[1].array)] = finite.min()
    assert np.array_equal(found.mask, predictor.predict(images).mask)


@pytest.mark.parametrize("value", [0.0, -1000.0])
def test_an_image_of_nothing_gives_an_empty_mask_and_says_so(predictor, value):
    images = picture((6, 7, 8), (2.0, 2.0, 2.0))
    for image in images:
        image.array[:] = value
    found = predictor.predict(images, probabilities=True)
    assert found.mask.shape == (6, 7, 8)
    assert not found.mask.any()
    assert (found.probabilities[0] == 1).all()
    assert any("mask is empty" in note for note in found.notes)


def test_one_constant_channel_is_no_error(predictor):
    images = picture((10, 10, 10), (2.0, 2.0, 2.0))
    images[1].array[:] = 4.0
    found = predictor.predict(images)
    assert any("constant" in note for note in found.notes)


def test_wrong_inputs_say_what_is_wrong(predictor):
    one, two = picture((6, 6, 6), (2.0, 2.0, 2.0))
    with pytest.raises(ImageError, match=r"needs 2 channels \(CT, PT\), found 1"):
        predictor.predict([one])
    for nothing in ([], np.zeros((0, 6, 6, 6), np.float32)):
        with pytest.raises(ImageError, match=r"needs 2 channels \(CT, PT\), found 0"):
            predictor.predict(nothing)
    with pytest.raises(ImageError, match="needs its spacing"):
        predictor.predict(np.stack([one.array, two.array]))
    with pytest.raises(ImageError, match="needs its spacing"):
        predictor.predict(np.stack([one.array, two.array]), spacing=(1.0, -1.0, 1.0))
    with pytest.raises(ImageError, match="spacing goes with an array"):
        predictor.predict([one, two], spacing=(1.0, 1.0, 1.0))
    other = picture((6, 6, 7), (2.0, 2.0, 2.0))[1]
    with pytest.raises(GeometryError):
        predictor.predict([one, other])


def test_what_cannot_fit_is_refused_before_starting(predictor, monkeypatch):
    monkeypatch.setattr("autoseg.inference.memory.available_memory", lambda: 1000)
    with pytest.raises(ResourceError, match="case P7: prediction needs about"):
        predictor.predict(picture((6, 6, 6), (2.0, 2.0, 2.0)), case="P7")


def test_a_spacing_unlike_the_training_images_is_noted(predictor, tiny, plan):
    assert predictor.predict(picture((6, 6, 6), (2.0, 2.4, 2.6))).notes == ()
    notes = predictor.predict(picture((6, 6, 6), (5.0, 2.4, 2.6))).notes
    assert [note for note in notes if "spacing along z: 5 mm; the training images have 2 to 2.5" in note]


def write_cases(folder: Path, count=3, shape=(9, 10, 11)) -> list[Case]:
    cases = []
    for number in range(count):
        sources = []
        for index, image in enumerate(picture(shape, (2.0, 2.0, 2.0), seed=number, direction=LAS)):
            path = folder / f"P{number}_{index:04d}.nii.gz"
            write_image(path, image.array, image.geometry)
            sources.append(Source(path))
        cases.append(Case(f"P{number}", tuple(sources)))
    return cases


@pytest.mark.parametrize("prefetch", [False, True])
def test_cases_are_written_on_their_own_grid(predictor, tmp_path, prefetch):
    cases = write_cases(tmp_path)
    seen = []
    results = predictor.predict_cases(cases, tmp_path / "out", prefetch=prefetch, report=seen.append)
    assert [result.case for result in results] == ["P0", "P1", "P2"]
    assert list(results) == seen
    for case, result in zip(cases, results, strict=True):
        assert result.path == tmp_path / "out" / f"{case.name}.nii.gz"
        written, image = SimpleITK.ReadImage(str(result.path)), SimpleITK.ReadImage(str(case.images[0].path))
        assert written.GetPixelID() == SimpleITK.sitkUInt8
        assert written.GetSize() == image.GetSize()
        np.testing.assert_allclose(written.GetOrigin(), image.GetOrigin(), atol=1e-5)
        np.testing.assert_allclose(written.GetDirection(), image.GetDirection(), atol=1e-6)
        expected = predictor.predict([source.path for source in case.images]).mask
        assert np.array_equal(read_mask(result.path).array, expected)
    assert not list((tmp_path / "out").glob(".*"))


def test_one_bad_case_does_not_stop_the_others(predictor, tmp_path, caplog):
    cases = write_cases(tmp_path)
    content = cases[1].images[1].path.read_bytes()
    cases[1].images[1].path.write_bytes(content[: len(content) // 2])
    with caplog.at_level(logging.ERROR), pytest.raises(CasesFailed) as caught:
        predictor.predict_cases(cases, tmp_path / "out", failures=["case P9: channel file(s) missing: P9_0001.nii.gz"])
    assert caught.value.exit_status == 3
    assert caught.value.done == 2
    assert "P9_0001" in caught.value.failures[0]
    assert caught.value.by_case == {"P1": caught.value.failures[1]}
    assert sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz")) == ["P0.nii.gz", "P2.nii.gz"]
    assert [record.message for record in caplog.records] == [caught.value.failures[1]], "told at once, since others were to come"
    caplog.clear()
    with pytest.raises(CasesFailed):
        predictor.predict_cases(cases[1:2], tmp_path / "out", raise_single=False)
    assert not caplog.records, "the list of all that failed is next"


def test_the_only_case_fails_with_its_own_error(predictor, tmp_path):
    case = write_cases(tmp_path, 1)[0]
    case.images[0].path.unlink()
    with pytest.raises(AutosegError, match="P0") as caught:
        predictor.predict_cases([case], tmp_path / "out")
    assert caught.value.exit_status == 2
    with pytest.raises(DatasetError, match="channel file"):
        predictor.predict_cases([], tmp_path / "out", failures=["case P9: channel file(s) missing"])


def test_resuming_skips_exactly_what_is_done(predictor, make_model, tmp_path, plan):
    cases, out = write_cases(tmp_path), tmp_path / "out"
    predictor.predict_cases(cases, out)
    assert [result.skipped for result in predictor.predict_cases(cases, out, resume=True)] == [True] * 3
    assert [result.skipped for result in predictor.predict_cases(cases, out)] == [False] * 3

    (out / "P0.nii.gz").write_bytes(b"cut short")
    changed = picture((9, 10, 11), (2.0, 2.0, 2.0), seed=77, direction=LAS)[0]
    write_image(cases[1].images[0].path, changed.array, changed.geometry)
    assert [result.skipped for result in predictor.predict_cases(cases, out, resume=True)] == [False, False, True]

    (out / "P2.nii.gz").unlink()
    assert [result.skipped for result in predictor.predict_cases(cases, out, resume=True)] == [True, True, False]
    assert [result.skipped for result in predictor.predict_cases(cases, out, resume=True, save_probabilities=True)] == [False] * 3

    other = Predictor(make_model(plan, ("0", "1"), name="other"), device="cpu")
    assert [result.skipped for result in other.predict_cases(cases, out, resume=True)] == [False] * 3


def test_a_record_that_a_kill_cut_short_is_ignored(predictor, tmp_path):
    cases, out = write_cases(tmp_path, 2), tmp_path / "out"
    predictor.predict_cases(cases, out)
    path = out / "predictions.jsonl"
    assert [json.loads(line)["case"] for line in path.read_text().splitlines()] == ["P0", "P1"], "a record a line, none empty"
    path.write_text(path.read_text().rstrip()[:-20])
    assert [result.skipped for result in predictor.predict_cases(cases, out, resume=True)] == [True, False]
    assert [result.skipped for result in predictor.predict_cases(cases, out, resume=True)] == [True, True]
    assert all(json.loads(line) for line in path.read_text().splitlines()[-1:])
    assert set(Records(out)._known) == {"P0", "P1"}


@pytest.mark.parametrize("save_probabilities", [False, True])
def test_an_interrupt_leaves_whole_files_and_resuming_goes_on(predictor, tmp_path, monkeypatch, save_probabilities):
    cases, out = write_cases(tmp_path, 3), tmp_path / "out"
    options = {"save_probabilities": save_probabilities, "prefetch": False}
    segment, begun = predictor.segment, []

    def interrupted(*arguments):
        begun.append(1)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return segment(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(predictor, "segment", interrupted)
        with pytest.raises(KeyboardInterrupt):
            predictor.predict_cases(cases, out, **options)
    files = {"P0.nii.gz", "predictions.jsonl", *(["P0.probabilities.npy"] if save_probabilities else [])}
    assert {path.name for path in out.iterdir()} == files
    results = predictor.predict_cases(cases, out, resume=True, **options)
    assert [result.skipped for result in results] == [True, False, False]


def test_probabilities_of_a_case_are_a_plain_array_on_the_image_grid(predictor, tmp_path):
    case = write_cases(tmp_path, 1)[0]
    (result,) = predictor.predict_cases([case], tmp_path / "out", save_probabilities=True)
    written = np.load(probabilities_path(result.path), allow_pickle=False)
    expected = predictor.predict([source.path for source in case.images], probabilities=True)
    assert np.array_equal(written, expected.probabilities)
    assert probabilities_path(Path("a/b.c.nii.gz")) == Path("a/b.c.probabilities.npy")


def test_probabilities_take_their_room_before_the_network_runs(predictor, tmp_path, monkeypatch):
    """A full disk would end the process with a signal where room is only promised to a memory map."""
    asked = []

    def full(descriptor, offset, size):
        asked.append(size)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(predictor, "segment", lambda *arguments: pytest.fail("the network ran"))
    with pytest.raises(ResourceError, match=r"P0\.probabilities\.npy: No space left on device"):
        predictor.predict_cases(write_cases(tmp_path, 1), tmp_path / "out", save_probabilities=True)
    assert asked[0] > 3 * 9 * 10 * 11 * 2
    assert not list((tmp_path / "out").iterdir())


def test_a_folder_that_cannot_be_written_is_an_error_before_any_work(predictor, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "out")  # root may write whatever the permissions say
    with pytest.raises(AutosegError, match="cannot be written to"):
        predictor.predict_cases(write_cases(tmp_path, 1), tmp_path / "out")


def test_an_output_folder_that_is_a_file_is_an_error(predictor, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(AutosegError, match="cannot be made"):
        predictor.predict_cases(write_cases(tmp_path, 1), tmp_path / "out")


def test_peak_and_time_are_told(predictor, caplog):
    with caplog.at_level(logging.DEBUG, logger="autoseg"):
        predictor.predict(picture((20, 10, 10), (2.0, 2.0, 2.0)), case="P1")
    assert "of memory" in caplog.text
    assert "P1: " in caplog.text
    assert "passes of the network" in caplog.text


def test_it_works_where_pandas_and_scikit_survival_are_not_installed(make_model, plan):
    code = (
        "import sys\n"
        "sys.modules['pandas'] = sys.modules['sksurv'] = None\n"
        "import numpy as np\n"
        "from autoseg.inference.predictor import Predictor\n"
        "array = np.random.default_rng(0).normal(size=(2, 6, 6, 6)).astype('float32')\n"
        "print(Predictor(sys.argv[1], device='cpu').predict(array, spacing=(2, 2, 2)).mask.shape)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(make_model(plan))], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(6, 6, 6)", done.stderr


def test_a_mask_never_replaces_an_input(predictor, tmp_path):
    case = write_cases(tmp_path, 1)[0]
    target = case.images[0].path.parent / "P0.nii.gz"
    case.images[0].path.rename(target)
    case = Case("P0", (Source(target), *case.images[1:]))
    content = target.read_bytes()
    (tmp_path / "link").symlink_to(target.parent, target_is_directory=True)
    for folder in (target.parent, tmp_path / "link"):
        with pytest.raises(DatasetError, match="would replace the input"):
            predictor.predict_cases([case], folder)
    assert target.read_bytes() == content
    assert not (target.parent / "predictions.jsonl").exists()


def test_a_mask_never_replaces_a_file_that_no_prediction_wrote(predictor, tmp_path):
    """Such as a reference mask: -o labelsTs in place of -o masks."""
    cases = write_cases(tmp_path, 2)
    labels = tmp_path / "labelsTs"
    labels.mkdir()
    (labels / "P1.nii.gz").write_bytes(b"drawn by hand")
    with pytest.raises(DatasetError, match=r"P1.nii.gz: lies there already"):
        predictor.predict_cases(cases, labels)
    assert [path.name for path in labels.iterdir()] == ["P1.nii.gz"]
    assert (labels / "P1.nii.gz").read_bytes() == b"drawn by hand"
    (labels / "P1.nii.gz").rename(labels / "other.nii.gz")
    predictor.predict_cases(cases, labels)
    predictor.predict_cases(cases, labels)  # its own it may replace


def test_a_mask_that_a_kill_left_without_a_record_is_predicted_anew(predictor, tmp_path, monkeypatch):
    case = write_cases(tmp_path, 1)[0]
    with monkeypatch.context() as patched:
        patched.setattr(Records, "add", lambda self, record: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            predictor.predict_cases([case], tmp_path / "out")
    assert (tmp_path / "out" / "P0.nii.gz").exists()
    (result,) = predictor.predict_cases([case], tmp_path / "out", resume=True)
    assert not result.skipped


def test_a_single_failure_can_be_one_of_a_list(predictor, tmp_path):
    case = write_cases(tmp_path, 1)[0]
    case.images[0].path.unlink()
    with pytest.raises(CasesFailed):
        predictor.predict_cases([case], tmp_path / "out", raise_single=False)
