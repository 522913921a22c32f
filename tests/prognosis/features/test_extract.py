"""A dataset's feature table from its out-of-fold masks, through the library and the command."""

import json
import math
from argparse import ArgumentParser

import numpy as np
import pytest
from segmented import SPACING, SegmentedDataset, head

from autoseg.errors import CasesFailed
from autoseg.images import write_image
from prognosis.commands import features as command
from prognosis.errors import FeatureError
from prognosis.features.case import FEATURES, case_features
from prognosis.features.extract import Source, extract_features
from prognosis.features.table import FeatureTable


def parsed(*arguments):
    options = ArgumentParser()
    command.add(options.add_subparsers())
    return options.parse_args(["features", *map(str, arguments)])


@pytest.fixture
def segmented(tmp_path):
    dataset = SegmentedDataset(tmp_path / "D")
    dataset.predict_all({"A-001": head(1, nodes=0)[2], "B-002": head(2)[2] * 0})
    return dataset


def test_the_table_holds_what_each_mask_gives(segmented):
    table = extract_features(segmented.dataset, segmented.work, workers=0)
    assert table.patients == tuple(segmented.names)
    assert list(table.frame.columns) == list(FEATURES)
    for index in (0, 4):
        expected = case_features(*head(index), SPACING)
        for name in FEATURES:  # images are stored as float32, as they are made
            assert table.frame.loc[segmented.names[index], name] == pytest.approx(expected[name], rel=1e-5), name
    assert table.frame.loc["B-002"].isna().all()
    assert table.flags == {"A-001": ("no_nodes",), "B-002": ("empty_mask",)}
    assert table.segmentation_saw_centre is False
    assert table.masks["C-005"].fold == "C"
    assert table.unmeasured == {}


def test_processes_give_the_same_table(segmented):
    here = extract_features(segmented.dataset, segmented.work, workers=0)
    there = extract_features(segmented.dataset, segmented.work, workers=1)
    np.testing.assert_array_equal(here.frame.to_numpy(), there.frame.to_numpy())
    assert here.flags == there.flags


def test_of_several_scans_the_first_counts_and_the_others_are_named(tmp_path):
    segmented = SegmentedDataset(tmp_path / "D", patients={"A-000": "Ann", "A-001": "Ann"})
    segmented.predict_all()
    table = extract_features(segmented.dataset, segmented.work, workers=0)
    assert table.masks["Ann"].case == "A-000"
    assert any("A-001" in note for note in table.notes)


def test_patients_without_a_mask_are_listed(tmp_path):
    segmented = SegmentedDataset(tmp_path / "D")
    segmented.predict("A")
    table = extract_features(segmented.dataset, segmented.work, workers=0)
    assert table.patients == ("A-000", "A-001")
    assert set(table.unmeasured) == set(segmented.names[2:])
    assert table.failures == ()


def test_a_case_whose_images_changed_fails_alone(segmented, capsys):
    name = segmented.names[5]
    write_image(segmented.folder / "imagesTr" / f"{name}_0001.nii.gz", head(0)[1] * 2, segmented.geometry)
    with pytest.raises(CasesFailed, match="images were changed") as caught:
        command.call(parsed("-d", segmented.folder, "--workers", 0))
    assert caught.value.result["patients"] == 5
    read = FeatureTable.read(segmented.work.root / "default" / "prognosis" / "features.csv")
    assert list(read.unmeasured) == [name]
    assert "not a medical device" in capsys.readouterr().out


def test_the_command_writes_both_files_and_says_what_the_folds_allow(segmented, capsys):
    result = command.call(parsed("-d", segmented.folder, "--workers", 0))
    out = capsys.readouterr().out
    assert "segmentation_saw_centre: false" in out
    assert "1 x empty_mask" in out
    json.dumps(result, allow_nan=False)
    read = FeatureTable.read(result["features"])
    assert read.segmentation_saw_centre is False
    assert math.isnan(read.frame.loc["B-002", "volume_total_ml"])


def test_what_channels_and_labels_mean():
    source = Source.of(("PT", "ct"), {"background": 0, "gtvP": 3, "GTVn": 1})
    assert (source.ct, source.pet, source.labels) == (1, 0, {"GTVp": 3, "GTVn": 1})
    only = Source.of(("CT",), {"background": 0, "sarcoma": 1})
    assert only.labels == {"GTVp": 1}
    assert "sarcoma" in only.notes[0]
    measured = [name for name, feature in FEATURES.items() if only.measures(feature)]
    assert "shape_sphericity_gtvp" in measured
    assert not [name for name in measured if "pet" in name or "gtvn" in name or "node" in name or "suv" in name]
    named = Source.of(("CT", "PET"), {"background": 0, "T": 1, "N": 2, "organ": 3}, primary="T", nodes="N")
    assert named.labels == {"GTVp": 1, "GTVn": 2}
    assert "organ" in named.notes[0]


def test_a_region_can_be_a_structure():
    regions = {"background": 0, "GTVp": (1, 3), "core": 3, "GTVn": 2, "ignore": 4}
    source = Source.of(("CT", "PET"), regions)
    assert source.labels == {"GTVp": (1, 3), "GTVn": 2}
    assert source.names(regions) == {"GTVp": "GTVp", "GTVn": "GTVn"}
    ct, pet, mask = head(1)
    cored = mask.copy()
    cored[tuple(np.argwhere(mask == 1)[::2].T)] = 3
    whole = case_features(ct, pet, mask, SPACING)
    assert case_features(ct, pet, cored, SPACING, source.labels) == pytest.approx(whole, nan_ok=True)


@pytest.mark.parametrize(
    ("channels", "labels", "options", "told"),
    [
        (("MR",), {"GTVp": 1}, {}, "CT or PET"),
        (("CT",), {"a": 1, "b": 2}, {}, "--primary"),
        (("CT",), {"a": 1, "b": 2}, {"primary": "c"}, "no such label"),
        (("CT",), {"a": 1, "b": 2}, {"primary": "a", "nodes": "a"}, "both"),
        (("CT",), {"GTVp": (1, 2), "GTVn": (2, 3)}, {}, r"'GTVp' and 'GTVn' share the value\(s\) 2"),
        (("CT",), {"GTVp": 1, "ignore": 2}, {"nodes": "ignore"}, "no such label; there are GTVp"),
    ],
)
def test_what_cannot_be_told_apart(channels, labels, options, told):
    with pytest.raises(FeatureError, match=told):
        Source.of(channels, labels, **options)
