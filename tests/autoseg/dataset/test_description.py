import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.dataset.description import Entry, parse_description, read_description
from autoseg.errors import DatasetError

GOOD = {
    "channel_names": {"0": "CT", "1": "PET"},
    "labels": {"background": 0, "node": 2, "tumour": 1},
    "numTraining": 3,
    "file_ending": ".nrrd",
}
MSD = {"name": "Prostate", "modality": {"0": "T2", "1": "ADC"}, "labels": {"0": "background", "2": "TZ", "1": "PZ"}, "numTraining": 1}


def parse(**changes):
    document = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    return parse_description(document, "dataset.json", "Dataset001_Test")


def test_second_version_of_nnunet():
    found = parse()
    assert found.channels == ("CT", "PET")
    assert found.labels == {"background": 0, "tumour": 1, "node": 2}
    assert list(found.labels) == ["background", "tumour", "node"]
    assert (found.name, found.file_ending, found.count) == ("Dataset001_Test", ".nrrd", 3)
    assert (found.listed, found.training, found.test) == (None, None, ())


def test_decathlon():
    training = [{"image": "./imagesTr/prostate_00.nii.gz", "label": "./labelsTr/prostate_00.nii.gz"}]
    found = parse_description({**MSD, "training": training, "test": ["./imagesTs/prostate_03.nii.gz"]}, "dataset.json", "Task05")
    assert found.name == "Prostate"
    assert found.channels == ("T2", "ADC")
    assert found.labels == {"background": 0, "PZ": 1, "TZ": 2}
    assert found.training == (Entry("prostate_00", ("./imagesTr/prostate_00.nii.gz",), "./labelsTr/prostate_00.nii.gz"),)
    assert found.test == ("./imagesTs/prostate_03.nii.gz",)
    assert found.file_ending == ".nii.gz"


def test_channels_are_in_the_order_of_their_index_not_of_the_text():
    names = {str(index): f"c{index}" for index in (*range(1, 12), 0)}
    assert parse(channel_names=names).channels == tuple(f"c{index}" for index in range(12))


def regions(order, **labels):
    """Changes that make a dataset of regions; without labels those of BraTS."""
    named = labels or {"whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
    return {"labels": {"background": 0, **named}, "regions_class_order": order}


def test_regions_keep_their_order_and_labels_are_sorted():
    found = parse(**regions([1, 3, 2], kidney=[1, 2, 3], masses=[2, 3], tumour=[2]))
    assert list(found.labels.items()) == [("background", 0), ("kidney", (1, 2, 3)), ("masses", (2, 3)), ("tumour", 2)]
    assert found.region_order == (1, 3, 2)
    plain = parse(labels={"background": 0, "ignore": 3, "node": 2, "tumour": 1})
    assert list(plain.labels) == ["background", "tumour", "node", "ignore"]
    assert plain.region_order == ()


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"channel_names": None}, ["channel_names: missing"]),
        ({"channel_names": ["CT"]}, ["channel_names: must be an object", "a list"]),
        ({"channel_names": {}}, ["channel_names", "nothing in it"]),
        ({"channel_names": {"1": "CT"}}, ["'0'", "found '1'"]),
        ({"channel_names": {"0": 3}}, ["channel_names.0: must be a channel's name, found 3"]),
        ({"labels": None}, ["labels: missing"]),
        ({"labels": [0, 1]}, ["labels: must be an object", "a list"]),
        ({"labels": {"background": 0, "tumour": "1"}}, ["labels.tumour: must be a whole number, found '1'"]),
        ({"labels": {"background": 0, "tumour": True}}, ["labels.tumour: must be a whole number, found True"]),
        ({"labels": {"background": 0, "tumour": 1.0}}, ["labels.tumour: must be a whole number, found 1.0"]),
        ({"labels": {"background": 0, "whole": [1, 2.5]}}, ["labels.whole: a region must be a list of whole numbers, found [1, 2.5]"]),
        ({"labels": {"background": 0, "ignore": 1}}, ["nothing but background and 'ignore'"]),
        ({"labels": {"background": 0, "tumour": 1, "Ignore": 2}}, ["labels.Ignore", "must be called 'ignore'"]),
        ({"labels": {"background": 0, "tumour": 2, "ignore": 1}}, ["labels.ignore: must be the highest value, found 1 beside [0, 2]"]),
        ({"labels": {"background": 0, "tumour": 1, "ignore": [2, 3]}}, ["labels.ignore: must be one value, found [2, 3]"]),
        ({"labels": {"tumour": 1}}, ["no class has the value 0", "[1]"]),
        ({"labels": {"background": 0}}, ["nothing but background"]),
        ({"labels": {"background": 0, "a": 1, "b": 3, "c": 7}}, ["consecutive", "[0, 1, 3, 7]", "3 -> 2, 7 -> 3"]),
        ({"labels": {"background": 0, "a": 1, "b": 1}}, ["'a' and 'b' have the same value 1"]),
        ({"labels": {"0": "background", "1": "a", "2": "a"}}, ["two values have the name 'a'"]),
        ({"file_ending": ".png"}, ["file_ending", ".nii.gz, .nii, .nrrd, .mha", "'.png'"]),
        ({"file_ending": 3}, ["file_ending", "3"]),
        ({"numTraining": "20"}, ["numTraining: must be a whole number, found '20'"]),
        ({"dataset": []}, ["dataset: must be an object of cases"]),
        ({"dataset": {"a": "a.nii.gz"}}, ["dataset.a"]),
        ({"dataset": {"a": {"images": "a.nii.gz", "label": "b"}}}, ["dataset.a.images: must be a list"]),
        ({"dataset": {"a": {"images": ["a.nii.gz"], "label": 3}}}, ["dataset.a.label: must be a file name, found 3"]),
        ({"training": {}}, ["training: must be a list"]),
        ({"training": [{"label": "x"}]}, ["training[0]"]),
        ({"test": 3}, ["test: must be a list"]),
        ({"name": 3}, ["name: must be a text"]),
        ({"regions_class_order": [1, 2]}, ["regions_class_order: stands without a region"]),
        (regions([1, 2]), ["each of the 3 classes (whole, core, enhancing;", "found [1, 2]"]),
        (regions(None), ["regions_class_order: must give each of the 3 classes", "found none"]),
        (regions("123"), ["regions_class_order: must be a list of mask values", "'123'"]),
        (regions([4, 2, 3]), ["'whole' is painted with 4, which is none of its values [1, 2, 3]"]),
        (regions([1, 3, 2]), ["'enhancing' is painted with 2, which is none of its values [3]"]),
        (regions([1, 1], a=[1], b=[1, 2]), ["'a' and 'b' are painted with the same value 1"]),
        (regions([2, 1], core=[2, 3], whole=[1, 2, 3]), ["cover all of 'core'", "larger regions first"]),
        (regions([1, 2], a=[1, 2], b=[2, 1]), ["labels.b: is the same region as 'a', [1, 2]"]),
        (regions([1], a=[1, 2, 2]), ["labels.a: names a value twice"]),
        (regions([1], a=[0, 1]), ["labels.a: holds 0, which is the background"]),
        (regions([1, 2], a=[1, 2], b=[]), ["labels.b: a region needs at least one value"]),
        (regions([1, 3], a=[1, 2], b=[3], ignore=3), ["'b' and 'ignore' have the same value 3"]),
        (regions([1], a=[1, 2, 3], ignore=3), ["labels.a: holds 3, the value of 'ignore'"]),
        (regions([1, 4], a=[1, 2], b=[4]), ["consecutive from 0, found [0, 1, 2, 4]"]),
        (regions([1], a=[1, 2], whole=None), ["labels.whole: must be a whole number, found None"]),
    ],
)
def test_wrong_content_names_the_field(changes, parts):
    with pytest.raises(DatasetError) as caught:
        parse(**changes)
    for part in ["dataset.json", *parts]:
        assert part in str(caught.value)


def test_all_problems_stand_in_one_message():
    with pytest.raises(DatasetError) as caught:
        parse(channel_names=None, file_ending=".png", numTraining="x", labels={"a": 1})
    for field in ("channel_names", "file_ending", "numTraining", "labels"):
        assert f"  - {field}" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('{"labels": {"a": 0, "a": 1}}', "'a' stands twice"),
        ("{broken", "no valid JSON"),
        ("[]", "must be a JSON object"),
        ("", "no valid JSON"),
    ],
)
def test_broken_files(tmp_path, text, part):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(DatasetError) as caught:
        read_description(tmp_path)
    assert part in str(caught.value)
    assert "dataset.json" in str(caught.value)


def test_missing_folder_and_missing_file(tmp_path):
    with pytest.raises(DatasetError, match="no such folder"):
        read_description(tmp_path / "absent")
    with pytest.raises(DatasetError, match=r"no dataset\.json"):
        read_description(tmp_path)


def test_byte_order_mark(tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps(GOOD), encoding="utf-8-sig")
    assert read_description(tmp_path).channels == ("CT", "PET")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 4)
    | st.floats(allow_nan=False)
    | st.sampled_from(["0", "1", "CT", "background", "ignore", ""]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["0", "1", "a", "image", "label", "images"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.sampled_from([*GOOD, "modality", "dataset", "training", "test", "name"]), JSON))
def test_any_json_is_a_description_or_a_typed_error(document):
    try:
        found = parse_description({**GOOD, **document}, "dataset.json", "name")
    except DatasetError:
        return
    assert list(found.labels.values()) == list(range(len(found.labels)))
    assert len(found.labels) > 1
    assert found.channels
