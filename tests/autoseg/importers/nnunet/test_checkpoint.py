"""Checkpoints are read without running what stands in them."""

import pickle
import zipfile

import numpy as np
import pytest
import torch
from nnunet_model import checkpoint

from autoseg.errors import ModelError
from autoseg.importers.nnunet.checkpoint import read_checkpoint

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3)}


def saved(tmp_path, document):
    torch.save(document, tmp_path / "checkpoint_final.pth")
    return tmp_path / "checkpoint_final.pth"


def test_weights_trainer_configuration_and_flips_are_read(tmp_path):
    found = read_checkpoint(saved(tmp_path, checkpoint(STATE, inference_allowed_mirroring_axes=[0, 1])))
    assert torch.equal(found.weights["a.weight"], STATE["a.weight"])
    assert (found.trainer, found.configuration, found.mirror_axes) == ("nnUNetTrainer", "3d_fullres", (0, 1))


def test_a_log_of_numpy_arrays_is_passed_over(tmp_path):
    read_checkpoint(saved(tmp_path, checkpoint(STATE, logging={"dice": np.arange(3.0), "lr": [np.float64(1)]})))


def test_names_of_the_first_numpy_are_known(tmp_path):
    path = saved(tmp_path, checkpoint(STATE))
    rewritten = tmp_path / "old.pth"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(rewritten, "w") as target:
        for entry in source.infolist():
            content = source.read(entry)
            assert not entry.filename.endswith("data.pkl") or b"numpy._core.multiarray" in content
            target.writestr(entry.filename, content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert read_checkpoint(rewritten).trainer == "nnUNetTrainer"


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_an_object_that_would_run_code_is_named_and_not_made(tmp_path):
    path = saved(tmp_path, checkpoint(STATE, logging=Touch(tmp_path / "touched")))
    with pytest.raises(ModelError, match=r"checkpoint_final.pth: asks for the type .*\bopen\b"):
        read_checkpoint(path)
    assert not (tmp_path / "touched").exists()
    with open(tmp_path / "plain.pth", "wb") as file:
        pickle.dump(checkpoint(STATE), file)
    with pytest.raises(ModelError, match="is damaged, or no checkpoint"):
        read_checkpoint(tmp_path / "plain.pth")


def test_compressed_entries_are_refused(tmp_path):
    path = saved(tmp_path, checkpoint(STATE))
    bomb = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    with pytest.raises(ModelError, match="holds the compressed entry"):
        read_checkpoint(bomb)


def test_a_cut_file_is_damaged(tmp_path):
    path = saved(tmp_path, checkpoint(STATE))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ModelError, match="is damaged, or no checkpoint"):
        read_checkpoint(path)
    with pytest.raises(ModelError, match="there is no such file"):
        read_checkpoint(tmp_path / "none.pth")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network_weights": {}}, "must hold tensors, found none"),
        ({"network_weights": None}, "network_weights: must be an object, found None"),
        ({"trainer_name": 3}, "'trainer_name' must be a text, found 3"),
        ({"init_args": {}}, "init_args: 'configuration' is missing"),
        ({"inference_allowed_mirroring_axes": (0, "x")}, "must be a list of axes"),
        ({"inference_allowed_mirroring_axes": (np.int64(1),)}, "must be a list of axes"),
    ],
)
def test_entries_of_another_kind_are_named(tmp_path, change, message):
    with pytest.raises(ModelError, match=message):
        read_checkpoint(saved(tmp_path, checkpoint(STATE, **change)))


def test_another_network_s_checkpoint_is_told(tmp_path):
    with pytest.raises(ModelError, match="'network_weights' is missing"):
        read_checkpoint(saved(tmp_path, {"state_dict": STATE}))
