"""A model that is packed and unpacked is the same model, and its metadata say what its network expects and gives."""

import hashlib
import json
import subprocess
import zipfile
from dataclasses import replace

import pytest
import torch

from autoseg.errors import AutosegError, ModelError
from autoseg.inference.model_exchange import export_model, import_model
from autoseg.inference.model_folder import ModelFolder
from autoseg.inference.model_writing import update_model_folder, write_model_folder
from autoseg.networks import build_network


@pytest.fixture
def model(make_model, plan):
    folder = make_model(plan, ("0", "1"))
    (folder / "fold_1" / "summary.json").write_text(json.dumps({"dice": {"tumour": 0.8, "mean": 0.7}, "cases": ["SECRET"]}))
    (folder / "fold_1" / "logbook.jsonl").write_text("SECRET")
    update_model_folder(folder)
    return folder


def test_out_and_in_again_gives_the_same_model(model, tmp_path):
    exported = export_model(model, tmp_path / "out" / "model.zip")
    imported = import_model(exported.path, tmp_path / "in" / "model")
    before, after = ModelFolder.open(model), ModelFolder.open(imported.path)
    assert exported.folds == imported.folds == ("0", "1")
    assert after.key() == before.key()
    assert after.fingerprint == before.fingerprint
    assert after.metadata == before.metadata
    x = torch.randn(1, 2, 8, 8, 8)
    assert torch.equal(after.load_network("1")(x), before.load_network("1")(x))
    assert (imported.path / "README.md").read_text() == (model / "README.md").read_text()
    assert "0.700" in (imported.path / "README.md").read_text()


def test_the_archive_is_read_by_other_tools_and_its_manifest_by_sha256sum(model, tmp_path):
    path = export_model(model, tmp_path / "model.zip").path
    subprocess.run(["python3", "-m", "zipfile", "-e", path, tmp_path / "plain"], check=True)
    listed = json.loads((tmp_path / "plain" / "manifest.json").read_text())["files"]
    found = {p.relative_to(tmp_path / "plain").as_posix(): p.read_bytes() for p in (tmp_path / "plain").rglob("*") if p.is_file()}
    assert {name: (entry["size"], entry["sha256"]) for name, entry in listed.items()} == {
        name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in found.items() if name != "manifest.json"
    }
    assert not [name for name, data in found.items() if b"SECRET" in data]
    ModelFolder.open(tmp_path / "plain")


def test_one_model_gives_the_same_bytes_also_by_way_of_an_import(model, tmp_path):
    first = export_model(model, tmp_path / "a.zip").path
    import_model(first, tmp_path / "model_b")
    export_model(first, tmp_path / "b.zip")
    export_model(tmp_path / "model_b", tmp_path / "c.zip")
    assert first.read_bytes() == (tmp_path / "b.zip").read_bytes() == (tmp_path / "c.zip").read_bytes()


def test_chosen_folds_alone_are_packed_and_told(model, tmp_path):
    imported = import_model(export_model(model, tmp_path / "m.zip", folds=[0]).path, tmp_path / "one")
    assert ModelFolder.open(imported.path).folds == ("0",)
    assert "0.700" not in (imported.path / "README.md").read_text()
    assert ModelFolder.open(imported.path).metadata["eval_metrics"] == {}
    with pytest.raises(ModelError, match="no finished fold 7; finished: 0, 1"):
        export_model(model, tmp_path / "n.zip", folds=[7])
    assert not (tmp_path / "n.zip").exists()


def test_damaged_models_other_endings_and_archives_that_are_there_are_refused(model, tmp_path):
    with pytest.raises(ModelError, match=r"ends in \.zip"):
        export_model(model, tmp_path / "model.tar")
    (tmp_path / "there.zip").write_bytes(b"mine")
    with pytest.raises(ModelError, match="not replaced"):
        export_model(model, tmp_path / "there.zip")
    assert (tmp_path / "there.zip").read_bytes() == b"mine"
    (model / "fold_0" / "model.safetensors").write_bytes(b"other")
    with pytest.raises(ModelError, match="fold_0"):
        export_model(model, tmp_path / "m.zip")
    with pytest.raises(ModelError, match="is a folder"):
        import_model(model, tmp_path / "x")
    with pytest.raises(ModelError, match="no such file"):
        import_model(tmp_path / "nowhere.zip", tmp_path / "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "there.zip"]


def test_a_model_that_changes_while_it_is_packed_is_not_packed(model, tmp_path, monkeypatch):
    opened = ModelFolder.open(model)

    def open_and_change(*arguments):
        (model / "fold_1" / "model.safetensors").write_bytes((model / "fold_0" / "model.safetensors").read_bytes())
        return opened

    monkeypatch.setattr(ModelFolder, "open", open_and_change)
    with pytest.raises(ModelError, match="changed while it was packed"):
        export_model(model, tmp_path / "m.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_metadata_say_what_the_network_expects_and_gives(model):
    found = ModelFolder.open(model).metadata
    image, pred = found["network_data_format"]["inputs"]["image"], found["network_data_format"]["outputs"]["pred"]
    assert image["channel_def"] == {"0": "CT", "1": "PT"}
    assert (image["num_channels"], image["spatial_shape"], image["spacing"]) == (2, [8, 8, 8], [2.0, 2.0, 2.0])
    assert image["normalisation"][0] == {"kind": "ct", "lower": -200.0, "upper": 300.0, "mean": 20.0, "std": 80.0}
    assert pred["channel_def"] == {"0": "background", "1": "tumour", "2": "node"}
    assert (pred["activation"], pred["label_values"]) == ("softmax", [0, 1, 2])
    assert "Not a medical device" in found["intended_use"]
    assert found["eval_metrics"] == {"fold_1": {"dice": {"tumour": 0.8, "mean": 0.7}}}
    assert found["pytorch_version"] == torch.__version__


def test_what_only_the_authors_know_is_kept_through_every_rewriting(model, tmp_path, tiny, plan):
    settings = {"authors": "A. Author", "license": "CC BY 4.0"}
    imported = import_model(export_model(model, tmp_path / "m.zip", settings=settings).path, tmp_path / "in")
    again = import_model(export_model(imported.path, tmp_path / "n.zip", settings={"version": "2"}).path, tmp_path / "in2")
    update_model_folder(again.path)
    write_model_folder(again.path, plan=plan, dataset=tiny.dataset(plan), weights={"1": tiny.network(plan, 5).state_dict()})
    found = ModelFolder.open(again.path).metadata
    assert (found["authors"], found["license"], found["version"]) == ("A. Author", "CC BY 4.0", "2")
    assert found["eval_metrics"] == {}, "the fold that was measured has other weights now"
    with pytest.raises(ModelError, match="there is no such field to set; known: version"):
        export_model(model, tmp_path / "o.zip", settings={"intended_use": "diagnosis"})


def test_a_folder_without_metadata_opens_and_gets_them_when_it_is_described_again(model):
    document = json.loads((model / "manifest.json").read_text())
    del document["files"]["metadata.json"]
    (model / "manifest.json").write_text(json.dumps(document))
    assert ModelFolder.open(model).metadata is None  # a stray file that nothing vouches for
    (model / "metadata.json").unlink()
    assert ModelFolder.open(model).metadata is None
    update_model_folder(model)
    assert ModelFolder.open(model).metadata["name"] == "Tiny"


def test_a_folder_is_made_whole_or_not_at_all(tmp_path):
    from autoseg import files

    def half():
        with files.new_folder(tmp_path / "a") as folder:
            files.write_text(folder / "x", "1")
            raise ModelError("half way")

    with pytest.raises(ModelError, match="half way"):
        half()
    assert list(tmp_path.iterdir()) == []
    with files.new_folder(tmp_path / "b" / "c") as folder:
        files.write_text(folder / "deep" / "x", "1")
        assert not (tmp_path / "b" / "c").exists()
    assert (tmp_path / "b" / "c" / "deep" / "x").read_text() == "1"
    with pytest.raises(AutosegError, match="is not replaced"), files.new_folder(tmp_path / "b"):
        pass
    (tmp_path / "link").symlink_to(tmp_path / "b")
    with pytest.raises(AutosegError, match="is not replaced"), files.new_folder(tmp_path / "link"):
        pass


def test_weights_are_stored_and_documents_deflated(model, tmp_path):
    with zipfile.ZipFile(export_model(model, tmp_path / "m.zip").path) as archive:
        methods = {entry.filename: entry.compress_type for entry in archive.infolist()}
    assert methods["fold_0/model.safetensors"] == zipfile.ZIP_STORED
    assert methods["plan.json"] == zipfile.ZIP_DEFLATED


def test_the_model_that_a_cascade_continues_from_goes_along(tiny, plan, tmp_path):
    full = plan.configurations["3d_fullres"]
    second = full.model_copy(update={"previous_stage": "3d_lowres"})
    cascade = plan.model_copy(update={"configurations": {"3d_cascade_fullres": second, "3d_lowres": full}})
    model = tmp_path / "model"
    for name, folder in (("3d_cascade_fullres", model), ("3d_lowres", model / "previous_stage")):
        dataset = replace(tiny.dataset(cascade), configuration=name)
        networks = {str(fold): build_network(full.network, cascade.input_channels(name), 3, 3, seed=fold) for fold in range(2)}
        write_model_folder(
            folder, plan=cascade, dataset=dataset, weights={fold: network.state_dict() for fold, network in networks.items()}
        )
    imported = import_model(export_model(model, tmp_path / "m.zip", folds=["0"]).path, tmp_path / "in")
    assert ModelFolder.open(imported.path).key() == ModelFolder.open(model, ["0"]).key()
    assert ModelFolder.open(imported.path).previous.folds == ("0",)
    assert imported.left_out == ()
    channels = ModelFolder.open(imported.path).metadata["network_data_format"]["inputs"]["image"]["channel_def"]
    assert list(channels.values()) == ["CT", "PT", "mask of tumour from 3d_lowres", "mask of node from 3d_lowres"]
    with zipfile.ZipFile(tmp_path / "m.zip", "a") as archive:
        archive.writestr("previous_stage/fold_7/model.safetensors", b"x")
    with pytest.raises(ModelError, match="previous_stage: not what manifest.json says: fold_7/model.safetensors is not listed"):
        import_model(tmp_path / "m.zip", tmp_path / "in2")
    (model / "previous_stage" / "fold_0" / "model.safetensors").write_bytes(b"other")
    with pytest.raises(ModelError, match="fold_0/model.safetensors has 5 bytes"):
        export_model(model, tmp_path / "n.zip")
