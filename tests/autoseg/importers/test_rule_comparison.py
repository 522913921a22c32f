import json
import shutil

import numpy as np
import pytest

from autoseg.commands import convert
from autoseg.dataset import Dataset
from autoseg.errors import CasesFailed, DatasetError
from autoseg.images import read_image, read_mask
from autoseg.importers.generated import write_generated_dataset
from autoseg.importers.rule_comparison import Comparison, best_threshold_rule, compare
from autoseg.importers.threshold_rule import Rule, Thresholds


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    return write_generated_dataset(tmp_path_factory.mktemp("rule") / "set", cases=4, test_cases=2, seed=4, shape=(16, 26, 26))


@pytest.fixture
def model(tiny, tmp_path):
    """Out-of-fold masks of the tiny dataset, two cases a fold, all of them right."""
    folder = tmp_path / "model"
    for number, name in enumerate(tiny.names):
        masks = folder / f"fold_{number // 2}" / "masks"
        masks.mkdir(parents=True, exist_ok=True)
        shutil.copy(tiny.label(name), masks)
    return folder


def by_hand(rule, case):
    ct, pet = (read_image(source.path).array for source in case.images)
    reference = read_mask(case.label).array == 1
    t = rule.thresholds
    found = (pet >= t.pet) & (ct >= t.ct_lower) & (ct <= t.ct_upper)
    return 2 * np.sum(found & reference) / (found.sum() + reference.sum())


def test_reads_well():
    rules = {name: Rule(Thresholds(2.5, 10, 200), 1, 1, 0.45) for name in ("GTVp", "GTVn")}
    comparison = Comparison("out of fold (3 folds)", 30, rules, {"GTVp": 0.4, "GTVn": 0.5}, {"GTVp": 0.9, "GTVn": 0.8})
    lines = comparison.text().splitlines()
    assert lines[0] == "mean Dice over 30 cases, out of fold (3 folds)"
    assert lines[2].split()[:3] == ["GTVp", "0.400", "0.900"]
    assert lines[2].endswith("component 1 by size: 0.450")
    assert lines[-1].split() == ["mean", "0.450", "0.850"]


def test_on_test_cases(generated):
    comparison = compare(generated, generated / "labelsTs")
    assert comparison.cases == 2
    assert dict(comparison.network_dice) == {"GTVp": 1, "GTVn": 1}
    assert max(comparison.rule_dice.values()) < 0.95
    assert comparison.rules == best_threshold_rule(generated)


def test_out_of_fold(tiny, model):
    comparison = compare(tiny.folder, model)
    assert comparison.cases == 6
    assert "3 folds" in comparison.where
    assert comparison.network_dice["ball"] == 1
    rule = comparison.rules["ball"]
    # the ball is the only bright thing: out of fold, the rule is as good as on its own training cases, and both as good as by hand
    assert comparison.rule_dice["ball"] == pytest.approx(rule.dice, abs=0.05)
    assert rule.dice >= np.mean([by_hand(rule, case) for case in Dataset.open(tiny.folder).cases]) - 1e-6


def test_a_held_out_case_does_not_choose_its_rule(tiny, model):
    """Where fold 0's masks are somewhere dark, only a rule that saw them would find them."""
    for name in tiny.names[:2]:
        ct, pet, mask = tiny.arrays(name)
        tiny.write(np.flip(mask, (0, 1, 2)).copy() * (pet < 2) * (mask == 0), tiny.label(name))
        shutil.copy(tiny.label(name), model / "fold_0" / "masks")
    comparison = compare(tiny.folder, model)
    assert comparison.network_dice["ball"] == 1
    expected = np.mean([0, 0, *(by_hand(comparison.rules["ball"], case) for case in Dataset.open(tiny.folder).cases[2:])])
    assert comparison.rule_dice["ball"] == pytest.approx(expected, abs=0.08)


def test_fold_all_does_not_count(tiny, model):
    shutil.copytree(model / "fold_0", model / "fold_all")
    assert compare(tiny.folder, model).cases == 6


def test_masks_that_do_not_fit(tiny, model, tmp_path):
    tiny.write(np.zeros((3, 4, 5), np.uint8), model / "fold_1" / "masks" / "case02.nii.gz")
    with pytest.raises(CasesFailed, match="case02"):
        compare(tiny.folder, model)
    tiny.write(np.zeros((3, 4, 5), np.uint8), model / "fold_1" / "masks" / "stranger.nii.gz")
    with pytest.raises(DatasetError, match="masks of 1 case.* lacks, stranger"):
        compare(tiny.folder, model)
    with pytest.raises(DatasetError, match="labelsTs.*does not exist"):
        compare(tiny.folder, tmp_path)


def test_other_channels(tiny):
    tiny.describe(channel_names={"0": "MR", "1": "PET"})
    with pytest.raises(DatasetError, match="needs the channels CT, PET, found MR, PET"):
        best_threshold_rule(tiny.folder)


def test_a_label_that_is_nowhere(tiny):
    tiny.describe(labels={"background": 0, "ball": 1, "cube": 2})
    with pytest.raises(DatasetError, match="no case holds the label 2 .cube."):
        best_threshold_rule(tiny.folder)


def test_command(tiny, model, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        convert.main(["rule", str(tiny.folder), str(model), "--json", str(tmp_path / "result.json")])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("mean Dice over 6 cases, out of fold (3 folds)")
    result = json.loads((tmp_path / "result.json").read_text())["result"]
    assert result["network"] == {"ball": 1}
    assert result["rule"]["ball"] > 0.8
