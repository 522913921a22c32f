"""A run goes on only as what it was begun as."""

import json

import pytest

from autoseg.errors import TrainingError
from autoseg.files import sha256_json
from autoseg.training.record import NOT_PART_OF_THE_WEIGHTS, RunRecord, identity, recorded_settings, require_same_siblings
from planners.labels import LabelScheme
from planners.plan import Configuration, NoNormalisation, UNetSpec

LABELS = LabelScheme({"background": 0, "tumour": 1})
CASES = {"a": "hash-a", "b": "hash-b"}
PREPARED = "hash of the preparation"
FACTS = {"device": "cpu", "precision": "fp32", "threads": 2}


def configuration(**changes) -> Configuration:
    spec = Configuration(
        dimension=3,
        spacing=(1.0, 1.0, 1.0),
        median_shape=(8.0, 8.0, 8.0),
        patch_size=(8, 8, 8),
        batch_size=2,
        normalisation=(NoNormalisation(),),
        network=UNetSpec(features=(4,), strides=((1, 1, 1),), kernels=((3, 3, 3),), convs_per_stage=(1,), convs_per_decoder_stage=()),
    )
    document = spec.model_dump(mode="json")
    for path, value in changes.items():
        target, (*parents, last) = document, path.split("__")
        for parent in parents:
            target = target[parent]
        assert last in target
        target[last] = value
    return Configuration.model_validate(document)


WHAT = identity(configuration(), LABELS, CASES, PREPARED)


def begin(folder, what=WHAT, epochs=10, settings=(), facts=FACTS):
    return RunRecord(folder, what, epochs, dict(settings), facts)


def on_disk(folder):
    return json.loads((folder / "run.json").read_text())


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "model" / "fold_0"
    folder.mkdir(parents=True)
    return folder


# --- identity ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"training__epochs": 5},
        {"training__validation_iterations": 0},
        {"training__accumulation": 2},
        {"inference__step": 0.25},
        {"inference__mirror_axes": []},
    ],
)
def test_what_the_weights_do_not_depend_on_is_not_compared(change):
    assert identity(configuration(**change), LABELS, CASES, PREPARED) == WHAT


@pytest.mark.parametrize(
    "change",
    [
        {"training__iterations": 5},
        {"training__foreground_fraction": 0.5},
        {"training__optimiser__lr": 0.1},
        {"training__loss__batch_dice": True},
        {"training__gradient_clip": 1.0},
        {"training__ema": 0.99},
        {"training__early_stopping": {}},
        {"training__schedule__warmup_epochs": 3},
        {"batch_size": 3},
        {"patch_size": [8, 8, 16]},
        {"spacing": [1.0, 1.0, 2.0]},
        {"augmentation__mirror": None},
        {"augmentation__backend": "batchgenerators"},
        {"network__features": [8]},
        {"resampling__image_order": 1},
    ],
)
def test_what_they_do_depend_on_is(change):
    what = identity(configuration(**change), LABELS, CASES, PREPARED)
    assert {key for key in WHAT if what[key] != WHAT[key]} == {"settings"}


def test_seed_cases_and_labels_are_compared_by_themselves():
    assert identity(configuration(training__seed=7), LABELS, CASES, PREPARED) == WHAT | {"seed": 7}
    for key, what in {
        "training cases": identity(configuration(), LABELS, CASES | {"b": "corrected"}, PREPARED),
        "preparation": identity(configuration(), LABELS, CASES, "another"),
        "labels": identity(configuration(), LabelScheme({**LABELS.labels, "node": 2}), CASES, PREPARED),
    }.items():
        assert [k for k in WHAT if what[k] != WHAT[k]] == [key]
    assert identity(configuration(), LABELS, dict(reversed(CASES.items())), PREPARED) == WHAT


def test_a_run_from_before_a_field_was_added_is_the_same_run():
    document = configuration().model_dump(mode="json", exclude={"inference": True, "pretraining": True})
    for name in (*NOT_PART_OF_THE_WEIGHTS, "ema", "early_stopping", "previous_masks", "sampling"):
        del document["training"][name]
    del document["augmentation"]["previous_stage"]
    for name in ("noise", "blur", "brightness", "contrast", "gamma"):
        del document["augmentation"][name]["channels"]
    del document["training"]["schedule"]["warmup_epochs"]
    assert WHAT["settings"] == sha256_json(document)


def test_a_transform_that_is_switched_off_counts():
    off = identity(configuration(augmentation__noise=None), LABELS, CASES, PREPARED)
    assert off["settings"] != WHAT["settings"]


def test_one_that_came_to_an_early_stop_is_finished_whatever_is_asked_for(folder, caplog):
    begin(folder).update(finished_epochs=4, early_stopping={"inner": ["a"], "stopped": True})
    assert begin(folder).finished
    assert begin(folder, epochs=50).finished
    assert caplog.text == ""
    assert begin(folder, WHAT | {"seed": 7}).outdated == "seed"


def test_the_order_of_regions_is_part_of_what_a_run_is():
    regions = {"background": 0, "whole": (1, 2), "core": 2}
    swapped = {"background": 0, "core": 2, "whole": (1, 2)}
    found = [
        identity(configuration(), LabelScheme(labels, order), CASES, PREPARED)["labels"]
        for labels, order in ((regions, (1, 2)), (swapped, (2, 1)), (regions, (2, 1)))
    ]
    assert len(set(found)) == 3


def test_the_fields_left_out_are_fields_of_training():
    assert set(NOT_PART_OF_THE_WEIGHTS) < set(configuration().training.model_dump())


# --- the record --------------------------------------------------------------------------------------------------------------------


def test_a_run_that_begins_is_recorded(folder):
    assert recorded_settings(folder) == {}
    record = begin(folder, settings={"training.epochs": 10})
    document = on_disk(folder)
    assert document["schema"] == "autoseg-run/1"
    assert document["identity"] == WHAT
    assert (document["epochs"], document["finished_epochs"]) == (10, 0)
    assert {key: document[key] for key in FACTS} == FACTS == {key: record[key] for key in FACTS}
    assert {"python", "torch", "numpy"} <= set(document["versions"])
    assert recorded_settings(folder) == {"training.epochs": 10}
    assert not record.finished
    assert not record.outdated


def test_one_that_goes_on_keeps_how_it_was_begun(folder):
    begin(folder)
    again = begin(folder, facts={"device": "cuda", "precision": "bf16", "threads": 64}, settings={"training.seed": 1234})
    assert {key: again[key] for key in FACTS} == FACTS
    assert recorded_settings(folder) == {"training.seed": 1234}


@pytest.mark.parametrize("key", list(WHAT))
def test_an_unfinished_run_refuses_to_become_another(folder, key):
    begin(folder)
    before = on_disk(folder)
    with pytest.raises(TrainingError, match=f"fold_0.*other {key}.*--restart"):
        begin(folder, WHAT | {key: "another"})
    assert on_disk(folder) == before


def test_a_finished_one_stays_as_it_is_and_says_so(folder, caplog):
    begin(folder, settings={"training.seed": 3}).update(finished_epochs=10)
    before = on_disk(folder)
    caplog.clear()
    record = begin(folder, WHAT | {"training cases": "corrected"}, epochs=12)
    assert record.finished
    assert record.outdated == "training cases"
    assert on_disk(folder) == before
    assert "fold_0 is finished, but was trained with other training cases" in caplog.text
    assert "--restart" in caplog.text


def test_finished_means_all_epochs_that_are_asked_for(folder):
    record = begin(folder)
    record.update(finished_epochs=9)
    assert not record.finished
    record.update(finished_epochs=10)
    assert record.finished
    assert begin(folder).finished


def test_more_epochs_go_on_with_a_warning(folder, caplog):
    begin(folder).update(finished_epochs=10)
    caplog.clear()
    longer = begin(folder, epochs=15)
    assert not longer.finished
    assert on_disk(folder)["epochs"] == 15
    assert "15 epochs now, 10 before" in caplog.text
    caplog.clear()
    begin(folder, epochs=15)
    assert caplog.text == ""


def test_fewer_epochs_than_are_trained_are_refused(folder):
    begin(folder).update(finished_epochs=10)
    with pytest.raises(TrainingError, match=r"trained for 10 epochs.*asks for fewer.*--restart"):
        begin(folder, epochs=9)
    assert on_disk(folder)["epochs"] == 10


def test_validated_is_about_the_final_weights_and_the_held_out_files(folder):
    held_out = {"c": "hash-c"}
    record = begin(folder)
    record.update(finished_epochs=10)
    assert not record.validated(held_out)
    record.update(validated={"epochs": 10, "cases": held_out})
    assert record.validated(held_out)
    assert begin(folder).validated(held_out)
    assert not record.validated({"c": "corrected"})
    assert not record.validated(held_out | {"new": "hash"})
    record = begin(folder, epochs=12)
    record.update(finished_epochs=12)
    assert not record.validated(held_out)


def test_folds_of_one_model_share_their_settings(folder):
    begin(folder)
    other = folder.with_name("fold_1")
    with pytest.raises(TrainingError, match=r"fold_0 was trained with other settings than fold_1.*--set"):
        require_same_siblings(other, WHAT | {"settings": "another"})
    require_same_siblings(other, WHAT | {"training cases": "those of fold 1", "seed": 9})
    require_same_siblings(folder, WHAT | {"settings": "another"})  # its own record is not a sibling's


@pytest.mark.parametrize("schema", ["autoseg-run/2", None])
def test_a_run_of_another_release_is_refused(folder, schema):
    begin(folder)
    (folder / "run.json").write_text(json.dumps(on_disk(folder) | {"schema": schema}))
    for read in (recorded_settings, begin):
        with pytest.raises(TrainingError, match=r"run\.json: schema is .*this release reads 'autoseg-run/1'.*--restart"):
            read(folder)
