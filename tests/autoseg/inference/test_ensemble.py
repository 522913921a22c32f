"""Mean probabilities by hand, models that segment together, and the same packed into one."""

import json
import os
import shutil
import zipfile

import numpy as np
import pytest

from autoseg.errors import ModelError, ResourceError
from autoseg.images import Geometry, Image
from autoseg.inference.choice import Choice, ChosenModel, Members
from autoseg.inference.ensemble import average, scratch_array
from autoseg.inference.model_exchange import export_model, import_model
from autoseg.inference.model_folder import ModelFolder
from autoseg.inference.onnx_export import export_onnx
from autoseg.inference.postprocessing import MINIMUM, Rule
from autoseg.inference.predictor import Predictor


def outputs(*voxels):
    """Probabilities of a row of voxels, float16 (outputs, 1, 1, n)."""
    return np.array(voxels, np.float16).T[:, None, None, :]


def test_the_largest_mean_wins_and_the_first_of_equals():
    one = outputs((0.5, 0.5, 0.0), (0.25, 0.75, 0.0), (0.0, 0.5, 0.5))
    two = outputs((0.0, 0.25, 0.75), (1.0, 0.0, 0.0), (0.0, 0.5, 0.5))
    mean = np.zeros((3, 1, 1, 3), np.float16)
    found = average([one, two], (0, 1, 300), mean=mean)
    assert found.dtype == np.uint16
    assert found.tolist() == [[[1, 0, 1]]], "0.25 0.375 0.375: a tie; 0.625 0.375 0; 0 0.5 0.5: a tie"
    assert mean[:, 0, 0].T.tolist() == [[0.25, 0.375, 0.375], [0.625, 0.375, 0.0], [0.0, 0.5, 0.5]]


def test_regions_are_painted_where_their_mean_is_above_a_half():
    whole_and_core_one, whole_and_core_two = outputs((0.9, 0.9), (0.9, 0.2), (0.5, 0.75)), outputs((0.2, 0.2), (0.9, 0.7), (0.5, 0.5))
    found = average([whole_and_core_one, whole_and_core_two], (1, 2), regions=True)
    assert found.tolist() == [[[2, 1, 2]]], "means 0.55 0.55; 0.9 0.45; 0.5 0.625"


def test_scratch_has_no_name_and_no_room_is_told(tmp_path, monkeypatch):
    with scratch_array((2, 3), np.dtype(np.float16), tmp_path) as array:
        array[:] = 1
        assert not list(tmp_path.iterdir())
    monkeypatch.setattr(os, "posix_fallocate", lambda *given: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with (
        pytest.raises(ResourceError, match=r"need 0.00 GB on the disk for each \(No space left on device\)"),
        scratch_array((2, 3), np.dtype("f2"), tmp_path),
    ):
        pass


@pytest.fixture
def pair(tiny, make_model):
    """Two models of one plan with other weights, and one on another grid with another axis order."""
    other = tiny.plan(spacing=(3.0, 2.0, 2.5), transpose=(2, 0, 1))
    first, second = make_model(tiny.plan(), name="a", folds=("0",)), make_model(other, name="b", folds=("0", "1"))
    return ModelFolder.open(first), ModelFolder.open(second, ["1"])


def picture(shape=(9, 12, 10)):
    rng = np.random.default_rng(3)
    geometry = Geometry(shape, (2.5, 2.0, 2.2))
    return [Image(rng.normal(0, 100, shape).astype(np.float32), geometry) for _ in range(2)]


def test_models_on_other_grids_and_axes_meet_on_the_images_own(pair):
    images = picture()
    parts = [Predictor(model, device="cpu").predict(images, probabilities=True).probabilities.astype(np.float32) for model in pair]
    together = Predictor(Members(pair), device="cpu")
    found = together.predict(images, probabilities=True)
    mean = (parts[0] + parts[1]) / 2
    assert np.array_equal(found.mask, mean.argmax(0))
    assert np.array_equal(found.probabilities, mean.astype(np.float16))
    assert len(np.unique(found.mask)) == 3
    assert [model["folds"] for model in together.settings["models"]] == [["0"], ["1"]]


def test_memory_counts_every_models_prepared_image_and_the_busiest_network(pair):
    one, two = (Predictor(model, device="cpu").estimate((90, 120, 100), (2.5, 2.0, 2.2)) for model in pair)
    both = Predictor(Members(pair), device="cpu").estimate((90, 120, 100), (2.5, 2.0, 2.2))
    assert both.prepared == one.prepared + two.prepared
    assert both.images == one.images
    assert max(one.network, two.network) == both.network


def test_one_model_with_rules_is_another_result_than_without(pair):
    plain, ruled = (Predictor(Members(pair[:1], rules), device="cpu") for rules in ((), (Rule(MINIMUM, ("node",), 1e9),)))
    assert plain.settings == Predictor(pair[0], device="cpu").settings
    assert ruled.settings != plain.settings
    images = picture()
    before, after = plain.predict(images).mask, ruled.predict(images).mask
    assert (before == 2).any()
    assert np.array_equal(after, np.where(before == 2, 0, before))


def test_a_blank_image_gives_an_empty_mask(pair):
    blank = [Image(np.zeros((9, 12, 10), np.float32), image.geometry) for image in picture()]
    found = Predictor(Members(pair), device="cpu").predict(blank, probabilities=True)
    assert not found.mask.any()
    assert (found.probabilities[0] == 1).all()
    assert any("one constant value" in note for note in found.notes)


@pytest.fixture
def choice(pair, tmp_path):
    """A chosen.json of both models and a rule."""
    models = tuple(ChosenModel(name, model.folder, dict(model.hashes)) for name, model in zip(("one", "two"), pair, strict=True))
    return Choice("one+two", models, (Rule(MINIMUM, ("node",), 60.0),)).write(tmp_path / "a")


def test_a_choice_packed_into_one_zip_segments_the_same(choice, tmp_path):
    packed = export_model(choice, tmp_path / "both.zip")
    assert (packed.models, packed.folds) == (2, ("0",))
    assert "and 1 more that segment together with it" in packed.text()
    images = picture()
    expected = Predictor(choice, device="cpu")
    zipped = Predictor(tmp_path / "both.zip", device="cpu")
    folder = import_model(tmp_path / "both.zip", tmp_path / "imported").path
    assert zipped.settings == expected.settings == Predictor(folder, device="cpu").settings
    assert [model["folds"] for model in zipped.settings["models"]] == [["0"], ["0", "1"]]
    mask = expected.predict(images).mask
    assert np.array_equal(zipped.predict(images).mask, mask)
    assert not np.array_equal(Predictor(tmp_path / "a", device="cpu").predict(images).mask, mask)
    again = export_model(folder, tmp_path / "again.zip")
    assert again.path.read_bytes() == packed.path.read_bytes()
    card = (folder / "README.md").read_text()
    assert "Segments by the mean probabilities of one and two; postprocessing: no component of node below 60 mm3" in card
    assert "ensemble.json" in json.loads((folder / "manifest.json").read_text())["files"]
    with pytest.raises(ModelError, match="segments by the mean probabilities of one and two; .* the contract tells of one model"):
        export_onnx(folder, tmp_path / "onnx")


def test_one_model_without_rules_is_packed_as_it_is(pair, tmp_path):
    model = pair[0]
    choice = Choice("one", (ChosenModel("one", model.folder, dict(model.hashes)),)).write(tmp_path)
    export_model(choice, tmp_path / "chosen.zip")
    export_model(model.folder, tmp_path / "plain.zip")
    assert (tmp_path / "chosen.zip").read_bytes() == (tmp_path / "plain.zip").read_bytes()


def test_a_packed_choice_that_lacks_a_model_or_has_a_damaged_one_is_refused(choice, tmp_path):
    export_model(choice, tmp_path / "both.zip")
    folder = import_model(tmp_path / "both.zip", tmp_path / "imported").path
    plan = folder / "member_1" / "plan.json"
    text = plan.read_text()
    plan.write_text(text + " ")
    archive = shutil.make_archive(tmp_path / "damaged", "zip", folder)
    for place in (folder, archive):
        with pytest.raises(ModelError, match="member_1: not what manifest.json says: plan.json"):
            Predictor(place, device="cpu")
    plan.write_text(text)
    (folder / "ensemble.json").write_text("{}")
    with pytest.raises(ModelError, match=r"not what manifest.json says: ensemble.json"):
        Predictor(folder, device="cpu")
    shutil.rmtree(folder)
    import_model(tmp_path / "both.zip", folder)
    shutil.rmtree(folder / "member_1")
    with pytest.raises(ModelError, match="ensemble.json names 2 models, but member_1 missing"):
        Predictor(folder, device="cpu")


def test_members_that_no_ensemble_names_stay_in_the_archive(pair, tmp_path):
    """Only what ensemble.json stands for is read."""
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        for path in sorted(pair[0].folder.rglob("*")):
            archive.write(path, path.relative_to(pair[0].folder).as_posix())
        archive.writestr("member_1/plan.json", "{}")
    done = import_model(tmp_path / "model.zip", tmp_path / "imported")
    assert done.left_out == ("member_1/plan.json",)
    assert not (tmp_path / "imported" / "member_1").exists()
