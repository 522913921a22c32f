"""A model folder opens only if it is whole, and nothing in it can run code."""

import json
import os
import pickle
import shutil
import threading
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from autoseg.errors import ModelError
from autoseg.inference.model_documents import ModelDataset, finished_folds
from autoseg.inference.model_folder import ModelFolder
from autoseg.inference.model_writing import remove_fold, update_model_folder, write_model_folder
from planners.plan import HeadAndNeckBox
from planners.settings import override

WEIGHTS = ("fold_0/model.safetensors", "fold_1/model.safetensors")


def put_weights(fold_folder, tensors):
    """Weights that no writer of models put there."""
    fold_folder.mkdir(exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, fold_folder / "model.safetensors")


def measure_anew(model):
    """Makes what lies there the truth, as someone who forges a model would."""
    (model / "manifest.json").unlink()
    update_model_folder(model)


@pytest.fixture
def model(make_model, plan):
    return make_model(plan, ("0", "1"))


def test_what_was_written_comes_back(model, tiny, plan):
    opened = ModelFolder.open(model)
    assert opened.plan == plan
    assert opened.dataset == tiny.dataset(plan)
    assert opened.folds == ("0", "1")
    assert opened.label_values == (0, 1, 2)
    network, expected = opened.load_network("1"), tiny.network(plan, seed=1)
    x = torch.randn(1, 2, 8, 8, 8)
    assert torch.equal(network(x), expected(x))
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_the_folder_holds_no_name_of_a_case_or_patient(model, tiny, plan):
    for file in model.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert b"SECRET" not in content
            assert b"Jane" not in content
    assert ModelFolder.open(model).fingerprint.spacings == tiny.fingerprint(plan).spacings


def test_the_card_says_what_people_must_know(model):
    card = (model / "README.md").read_text()
    for text in ("Research use only", "Not a medical device", "CT, PT", "1 tumour", "2 node", "finished folds: 0, 1", "torch ", "Tiny"):
        assert text in card
    (model / "fold_1" / "summary.json").write_text(json.dumps({"dice": {"tumour": 0.81234, "node": None, "mean": 0.7}}))
    update_model_folder(model)
    card = (model / "README.md").read_text()
    assert "| 1 | 0.812 | 0.700 |" in card
    ModelFolder.open(model)


@pytest.mark.parametrize("name", ["plan.json", "dataset.json", "fingerprint.json", "metadata.json", "fold_1/model.safetensors"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damage_is_found_and_the_file_named(model, name, damage):
    path = model / name
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(content[:-3])
    else:
        path.unlink()
    with pytest.raises(ModelError, match=name):
        ModelFolder.open(model)


def test_a_fold_that_the_manifest_does_not_list_is_refused(model, tiny, plan):
    put_weights(model / "fold_2", tiny.network(plan, 2).state_dict())
    with pytest.raises(ModelError, match="fold_2/model.safetensors is not listed"):
        ModelFolder.open(model)
    assert update_model_folder(model) == ("0", "1", "2")
    assert ModelFolder.open(model).folds == ("0", "1", "2")


class Bomb:
    def __reduce__(self):
        return (open, ("executed", "w"))


@pytest.mark.parametrize("name", ["fold_0/model.pth", "extra.pkl", "fold_0/checkpoint_final.PT", "deep/er/weights.bin"])
def test_a_pickle_is_refused_and_never_opened(model, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (model / name).parent.mkdir(parents=True, exist_ok=True)
    (model / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ModelError, match=name.rsplit("/", 1)[-1]):
        ModelFolder.open(model)
    assert not (tmp_path / "executed").exists()


def test_a_pickle_named_safetensors_is_not_executed(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (model / "fold_0" / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    measure_anew(model)
    opened = ModelFolder.open(model)
    with pytest.raises(ModelError, match="not the weights of the plan's network"):
        opened.load_network("0")
    assert not (tmp_path / "executed").exists()


def test_a_class_name_in_the_plan_is_refused(model):
    document = json.loads((model / "plan.json").read_text())
    document["configurations"]["3d_fullres"]["network"]["network_class_name"] = "os.system"
    (model / "plan.json").write_text(json.dumps(document))
    with pytest.raises(ModelError, match="network_class_name: is not a known field"):
        update_model_folder(model)


def test_weights_of_another_network_are_refused(model, tiny):
    put_weights(model / "fold_0", tiny.network(tiny.plan(channels=1)).state_dict())
    measure_anew(model)
    with pytest.raises(ModelError, match="not the weights of the plan's network"):
        ModelFolder.open(model).load_network("0")


def test_missing_folds_are_named_with_those_that_exist(model):
    opened = ModelFolder.open(model)
    assert opened.choose_folds(None) == ("0", "1")
    assert opened.choose_folds([1]) == ("1",)
    with pytest.raises(ModelError, match=r"no finished fold 3, all; finished: 0, 1"):
        opened.choose_folds([0, 3, "all"])


def test_a_folder_without_finished_folds_or_without_anything(make_model, tmp_path, plan):
    with pytest.raises(ModelError, match="no fold is finished yet"):
        ModelFolder.open(make_model(plan, ()))
    with pytest.raises(ModelError, match="there is no model folder here"):
        ModelFolder.open(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="manifest.json, plan.json, dataset.json missing"):
        ModelFolder.open(tmp_path / "empty")


def test_folds_sort_as_numbers_then_names(tmp_path):
    for name in ("10", "2", "all", "CHUM", "0"):
        (tmp_path / f"fold_{name}").mkdir()
        (tmp_path / f"fold_{name}" / "model.safetensors").write_bytes(b"")
    (tmp_path / "fold_3").mkdir()
    assert finished_folds(tmp_path) == ("0", "2", "10", "CHUM", "all")


def test_folds_that_finish_at_the_same_time_all_end_up_in_the_manifest(make_model, tiny, plan):
    folder = make_model(plan, ())
    start = threading.Barrier(4)
    errors = []

    def finish(number):
        start.wait()
        try:
            put_weights(folder / f"fold_{number}", tiny.network(plan, number).state_dict())
            update_model_folder(folder)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=finish, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert ModelFolder.open(folder).folds == ("0", "1", "2", "3")
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".")) == []


def test_another_plan_cannot_join_folds_that_are_there(model, tiny, plan):
    longer = override(plan, {"training.epochs": 5})
    write_model_folder(model, plan=longer, dataset=tiny.dataset(longer))
    other = override(plan, {"patch_size": [16, 16, 16]})
    with pytest.raises(ModelError, match="trained with another patch_size"):
        write_model_folder(model, plan=other, dataset=tiny.dataset(other))


def test_folds_that_look_at_another_region_of_interest_are_another_model(make_model, tiny, plan):
    """The box is cut before all else: masks of one are not masks of the other, and no fold is applied with another one's box."""
    boxes = [HeadAndNeckBox(channel=1, size_mm=(height, 8.0, 8.0)) for height in (5.0, 9.0)]
    boxed, taller = (plan.model_copy(update={"region_of_interest": box}) for box in boxes)
    models = {name: make_model(one, name=name) for name, one in (("whole", plan), ("boxed", boxed), ("taller", taller))}
    assert len({ModelFolder.open(model).key() for model in models.values()}) == 3
    for name, other in (("whole", boxed), ("boxed", taller), ("boxed", plan)):
        with pytest.raises(ModelError, match="trained with another region_of_interest"):
            write_model_folder(models[name], plan=other, dataset=tiny.dataset(other), weights={"1": tiny.network(other, 1).state_dict()})


def test_documents_that_contradict_each_other_are_refused(tmp_path, plan):
    wrong = ModelDataset("x", ("MR",), dict(plan.labels), ".nii.gz", "3d_fullres")
    with pytest.raises(ModelError, match="labels or channels"):
        write_model_folder(tmp_path, plan=plan, dataset=wrong)
    with pytest.raises(ModelError, match="names the configuration '2d'"):
        write_model_folder(tmp_path, plan=plan, dataset=ModelDataset("x", plan.channels, plan.labels, ".nii.gz", "2d"))


def zipped(folder, path):
    return shutil.make_archive(str(path), "zip", folder.parent, folder.name)


def test_an_archive_opens_like_its_folder_and_leaves_nothing(model, tmp_path):
    archive = zipped(model, tmp_path / "model")
    opened = ModelFolder.open(archive)
    assert opened.key() == ModelFolder.open(model).key()
    opened.load_network("0")
    unpacked = opened.folder
    assert unpacked.is_dir()
    del opened
    assert not unpacked.exists()


@pytest.mark.parametrize("name", ["../evil.json", "/evil.json", "a/../../evil.json", "..\\evil.json", "weights.pth"])
def test_an_archive_that_reaches_out_is_refused_before_any_write(model, tmp_path, name):
    archive = zipped(model, tmp_path / "model")
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr(name, "x")
    with pytest.raises(ModelError, match="evil|weights"):
        ModelFolder.open(archive)
    assert not list(tmp_path.parent.glob("evil*"))


@pytest.mark.parametrize("at", [0.02, 0.3, 0.6])
def test_an_archive_with_damaged_compressed_bytes_is_told(model, tmp_path, at):
    path = tmp_path / "model.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("manifest.json", "plan.json", "dataset.json", "metadata.json", "fingerprint.json", *WEIGHTS):
            archive.write(model / name, name)
        entry = archive.getinfo("plan.json")
    content = bytearray(path.read_bytes())
    start = entry.header_offset + 30 + len("plan.json")
    place = start + int(at * entry.compress_size)
    content[place : place + 8] = bytes(byte ^ 0xFF for byte in content[place : place + 8])
    path.write_bytes(content)
    with pytest.raises(ModelError, match="model.zip: cannot be unpacked"):
        ModelFolder.open(path)


def test_an_archive_with_a_link_or_too_many_bytes_is_refused(model, tmp_path, monkeypatch):
    archive = zipped(model, tmp_path / "model")
    monkeypatch.setattr("autoseg.inference.archive_directory.MAX_UNPACKED_BYTES", 1000)
    with pytest.raises(ModelError, match="would unpack to"):
        ModelFolder.open(archive)
    monkeypatch.undo()
    with zipfile.ZipFile(archive, "a") as opened:
        link = zipfile.ZipInfo("model/link.json")
        link.external_attr = 0o120777 << 16
        opened.writestr(link, "/etc/passwd")
    with pytest.raises(ModelError, match="link"):
        ModelFolder.open(archive)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "other/1"}, "'schema' must be"),
        ({"labels": {"tumour": "one"}}, "ValueError"),
        ({"channel_names": {"1": "CT"}}, "KeyError"),
        ({"name": 3}, "names must be text"),
    ],
)
def test_a_broken_dataset_document_is_refused(change, message, tiny, plan):
    document = tiny.dataset(plan).to_dict() | change
    with pytest.raises(ModelError, match=message):
        ModelDataset.from_dict(document)
    assert ModelDataset.from_dict(tiny.dataset(plan).to_dict()) == tiny.dataset(plan)


def test_another_folds_state_does_not_matter_to_the_chosen_one(model):
    (model / "fold_1" / "model.safetensors").write_bytes(b"half")
    assert ModelFolder.open(model, [0]).folds == ("0",)
    with pytest.raises(ModelError, match="fold_1/model.safetensors has 4 bytes"):
        ModelFolder.open(model)
    update_model_folder(model)  # damage is not made the truth
    with pytest.raises(ModelError, match="fold_1"):
        ModelFolder.open(model, ["1"])


def test_the_key_knows_only_what_the_chosen_folds_apply(model, tiny, plan):
    before = ModelFolder.open(model).key(["0"])
    longer = override(plan, {"training.epochs": 5})
    write_model_folder(model, plan=longer, dataset=tiny.dataset(longer), weights={"1": tiny.network(plan, 7).state_dict()})
    assert ModelFolder.open(model, ["0"]).key() == before
    assert ModelFolder.open(model, ["1"]).key() != before
    write_model_folder(model, plan=longer, dataset=tiny.dataset(longer), weights={"0": tiny.network(plan, 8).state_dict()})
    assert ModelFolder.open(model, ["0"]).key() != before


def test_a_kill_at_any_write_leaves_a_model_that_opens(model, tiny, plan, monkeypatch):
    longer = override(plan, {"training.epochs": 5})
    calls = {"left": 0}
    replace = os.replace

    def failing(source, target):
        calls["left"] -= 1
        if calls["left"] < 0:
            raise KeyboardInterrupt
        replace(source, target)

    for number in range(8):  # manifest, metadata, plan, dataset, two folds' weights, manifest, card
        calls["left"] = number
        weights = {fold: tiny.network(plan, 10 + number).state_dict() for fold in ("0", "2")}
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", failing)
            with pytest.raises(KeyboardInterrupt):
                write_model_folder(model, plan=longer, dataset=tiny.dataset(longer), weights=weights)
        assert ModelFolder.open(model).folds[:2] == ("0", "1")
    update_model_folder(model)
    assert ModelFolder.open(model).folds == ("0", "1", "2")
    assert "incoming" not in (model / "manifest.json").read_text()


def test_a_reader_waits_for_a_fold_that_is_being_put_in_place(model):
    path = model / "fold_0" / "model.safetensors"
    content = path.read_bytes()
    (model / ".model-folder.lock").write_text("{}")
    path.write_bytes(b"other")

    def finish():
        path.write_bytes(content)
        (model / ".model-folder.lock").unlink()

    timer = threading.Timer(0.3, finish)
    timer.start()
    assert ModelFolder.open(model).folds == ("0", "1")
    timer.join()


def test_waiting_for_a_lock_ends(model, monkeypatch):
    monkeypatch.setattr("autoseg.inference.model_folder.READ_WAIT_SECONDS", 0.2)
    (model / ".model-folder.lock").write_text("{}")
    (model / "fold_0" / "model.safetensors").write_bytes(b"other")
    with pytest.raises(ModelError, match="fold_0"):
        ModelFolder.open(model)


def test_the_only_fold_may_be_replaced_by_one_of_another_plan(make_model, tiny, plan):
    folder = make_model(plan, ("0",))
    other = override(plan, {"patch_size": [16, 16, 16]})
    write_model_folder(folder, plan=other, dataset=tiny.dataset(other), weights={"0": tiny.network(other, 3).state_dict()})
    assert ModelFolder.open(folder).plan == other
    with pytest.raises(ModelError, match="trained with another patch_size"):
        write_model_folder(folder, plan=plan, dataset=tiny.dataset(plan), weights={"1": tiny.network(plan, 3).state_dict()})


def test_a_removed_fold_is_gone(model):
    remove_fold(model, "0")
    remove_fold(model, "0")
    assert ModelFolder.open(model).folds == ("1",)


def test_the_card_does_not_present_training_cases_as_held_out(make_model, plan):
    model = make_model(plan, ("0", "all"))
    (model / "fold_0" / "summary.json").write_text(json.dumps({"dice": {"mean": 0.7}, "out_of_fold": True}))
    (model / "fold_all" / "summary.json").write_text(json.dumps({"dice": {"mean": 0.987}, "out_of_fold": False}))
    update_model_folder(model)
    card = (model / "README.md").read_text()
    assert "| 0 | 0.700 |" in card
    assert "0.987" not in card
    assert "none was held out: fold all" in card
