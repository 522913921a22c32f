import json
from dataclasses import replace

import numpy as np
import pytest

from autoseg.errors import CasesFailed, DatasetError
from autoseg.files import sha256_file
from autoseg.images import write_mask
from autoseg.preprocessing.cases import PreparedCases
from autoseg.preprocessing.prepare import prepare
from autoseg.preprocessing.previous_stage import MaskSource, onto_network_grid, open_mask, prepare_masks
from autoseg.preprocessing.store import write_case
from planners.plan import Resampling


@pytest.mark.parametrize("direction", [(1, 0, 0, 0, 1, 0, 0, 0, 1), (0, 0, -1, 1, 0, 0, 0, -1, 0)])
@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1)])
def test_a_mask_goes_the_way_of_a_reference_mask(image_of, plan_of, body, direction, transpose):
    image, mask = body
    plan = plan_of(spacing=(0.8, 1.7, 0.6), transpose=transpose)
    geometry = {"spacing": (1.0, 1.2, 0.7), "direction": direction}
    prepared = prepare([image_of(image, **geometry)], image_of(mask, **geometry), plan, "c")
    found = onto_network_grid(mask, prepared.properties, plan.configurations["c"].resampling)
    assert found.shape == prepared.data.shape[1:]
    assert np.array_equal(found, np.maximum(prepared.labels, 0))
    assert found.any()


def test_large_labels_keep_their_values(image_of, plan_of, body):
    image, mask = body
    prepared = prepare([image_of(image)], None, plan_of(), "c")
    found = onto_network_grid(mask.astype(np.uint16) * 200, prepared.properties, Resampling())
    assert found.dtype == np.int16
    assert set(np.unique(found)) == {0, 200, 400}


@pytest.fixture
def stored(tmp_path, image_of, plan_of, body):
    """A prepared case without anything cut off, and a mask file of it."""
    _, mask = body
    image = image_of(np.ones(mask.shape, np.float32) + mask)
    write_case(tmp_path / "cases", "a", prepare([image], image_of(mask), plan_of(), "c"), key="k")
    path = tmp_path / "a.nii.gz"
    write_mask(path, mask, image.geometry)
    return PreparedCases(tmp_path / "cases", {"a": "k"}, 0), MaskSource(path, sha256_file(path)), image.geometry


def test_masks_are_kept_by_content(stored, body):
    cases, source, geometry = stored
    prepared = prepare_masks(cases, {"a": source}, Resampling(), workers=0)
    key = prepared.previous["a"]
    assert np.array_equal(open_mask(cases.folder, "a", key), body[1])
    assert prepared.inputs(["a"]) == {"a": f"k+{key}"}
    path = cases.folder / "previous" / f"a.{key}.npy"
    before = path.stat().st_mtime_ns
    assert prepare_masks(cases, {"a": source}, Resampling(), workers=0) == prepared
    assert path.stat().st_mtime_ns == before
    write_mask(source.path, np.zeros_like(body[1]), geometry)
    other = prepare_masks(cases, {"a": MaskSource(source.path, sha256_file(source.path))}, Resampling(), workers=0)
    assert other.previous["a"] != key
    assert not open_mask(cases.folder, "a", other.previous["a"]).any()
    assert np.array_equal(open_mask(cases.folder, "a", key), body[1]), "what another fold reads stays"
    changed = replace(cases, keys={"a": "another"})
    assert prepare_masks(changed, {"a": MaskSource(source.path, sha256_file(source.path))}, Resampling(), workers=0).previous["a"] not in (
        key,
        other.previous["a"],
    )


def test_a_damaged_mask_is_made_anew(stored, body, caplog):
    cases, source, _ = stored
    key = prepare_masks(cases, {"a": source}, Resampling(), workers=0).previous["a"]
    path = cases.folder / "previous" / f"a.{key}.npy"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    prepare_masks(cases, {"a": source}, Resampling(), workers=0)
    assert not np.array_equal(open_mask(cases.folder, "a", key), body[1])
    prepare_masks(cases, {"a": source}, Resampling(), workers=0, verify=True)
    assert "is damaged. It is prepared anew" in caplog.text
    assert np.array_equal(open_mask(cases.folder, "a", key), body[1])
    path.unlink()
    with pytest.raises(DatasetError, match="Run autoseg_train again: it prepares this mask anew"):
        open_mask(cases.folder, "a", key)
    prepare_masks(cases, {"a": source}, Resampling(), workers=0)
    described = path.with_suffix(".json")
    for damaged in ("", "[]", '{"size": null, "sha256": "0"}'):
        described.write_text(damaged)
        prepare_masks(cases, {"a": source}, Resampling(), workers=0)
        assert json.loads(described.read_text())["schema"] == "autoseg-previous-mask/1"


def test_a_mask_of_another_image_or_one_that_changed_meanwhile_is_refused(stored, body):
    cases, source, geometry = stored
    with pytest.raises(CasesFailed, match="changed while it was being read"):
        prepare_masks(cases, {"a": replace(source, sha256="0" * 64)}, Resampling(), workers=0)
    small = replace(geometry, shape=(3, 4, 5))
    write_mask(source.path, np.zeros((3, 4, 5), np.uint8), small)
    with pytest.raises(CasesFailed, match=r"has shape \(3, 4, 5\), the image \(9, 10, 11\)"):
        prepare_masks(cases, {"a": MaskSource(source.path, sha256_file(source.path))}, Resampling(), workers=0)
