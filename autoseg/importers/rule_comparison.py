"""The best threshold-and-component rule of a CT and PET dataset beside a network's masks, on cases that neither was fitted on.

One thing is in the rule's favour: which thresholds are tried is taken from all cases; only the choice among them is made without the fold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autoseg.errors import CasesFailed, DatasetError
from autoseg.importers.threshold_rule import Example, Rule, fit_rule, fit_rules

if TYPE_CHECKING:
    from autoseg.dataset import Dataset

CHANNELS = ("CT", "PET")
TEST_IMAGES, TEST_MASKS = "imagesTs", "labelsTs"
FOLD, ALL = "fold_", "fold_all"


@dataclass(frozen=True)
class Comparison:
    """A rule and a network on the same cases.

    Attributes:
        where: which cases, in words.
        cases: how many.
        rules: label -> the rule fitted on all training cases; its `dice` is on those, which flatters it.
        rule_dice: label -> mean Dice of the rule; out of fold, of the rule fitted without the fold's cases.
        network_dice: label -> mean Dice of the network's masks.
    """

    where: str
    cases: int
    rules: Mapping[str, Rule]
    rule_dice: Mapping[str, float]
    network_dice: Mapping[str, float]

    def text(self) -> str:
        """A line a label, then the means."""
        line = "{:<8} {:>15} {:>9}   {}"
        rows = [
            f"mean Dice over {self.cases} cases, {self.where}",
            line.format("", "threshold rule", "network", "the rule fitted on all training cases, and its Dice on those"),
        ]
        for name, rule in self.rules.items():
            values = (f"{dice[name]:.3f}" for dice in (self.rule_dice, self.network_dice))
            rows.append(line.format(name, *values, f"{rule}: {rule.dice:.3f}"))
        means = (float(np.mean([dice[name] for name in self.rules])) for dice in (self.rule_dice, self.network_dice))
        rows.append(line.format("mean", *(f"{mean:.3f}" for mean in means), "").rstrip())
        return "\n".join(rows)

    def to_dict(self) -> dict[str, Any]:
        """For a machine."""
        return {
            "where": self.where,
            "cases": self.cases,
            "rule": dict(self.rule_dice),
            "network": dict(self.network_dice),
            "rule_on_training_cases": {name: rule.dice for name, rule in self.rules.items()},
            "rules": {name: str(rule) for name, rule in self.rules.items()},
        }


def best_threshold_rule(folder: str | Path) -> dict[str, Rule]:
    """Label name -> the rule fitted on the training cases of a dataset with the channels CT and PET.

    Raises:
        DatasetError: the dataset is not valid, has other channels, or a label that is nowhere.
    """
    dataset = _open(folder)
    examples = list(_training_examples(dataset).values())
    return {name: _fitted(dataset, examples, name) for name in _foreground(dataset)}


def compare(folder: str | Path, masks: str | Path) -> Comparison:
    """The rule beside a network on cases that neither was fitted on.

    Args:
        folder: a dataset with the channels CT and PET.
        masks: the network's: a folder of masks of the dataset's test cases (imagesTs with labelsTs), or a model folder with the out-of-fold
            masks of its folds.

    Raises:
        DatasetError: the dataset or the masks are not what they must be.
        CasesFailed: some masks cannot be compared with their references.
    """
    masks = Path(masks)
    folds = [path for path in sorted(masks.glob(FOLD + "*")) if (path / "masks").is_dir() and path.name != ALL]
    return _out_of_fold(_open(folder), folds) if folds else _on_test_cases(_open(folder), masks)


def _on_test_cases(dataset: Dataset, masks: Path) -> Comparison:
    from autoseg.evaluation import find_masks

    references = find_masks(dataset.folder / TEST_MASKS, "test")
    network = _network_dice(dataset, references, masks)
    rules = best_threshold_rule(dataset.folder)
    images = dataset.folder / TEST_IMAGES
    examples = [
        _example([images / f"{name}_{channel:04d}{dataset.file_ending}" for channel in range(len(CHANNELS))], path, name)
        for name, path in references.items()
    ]
    by_rule = {name: _mean_dice([rule] * len(examples), examples, dataset.labels[name]) for name, rule in rules.items()}
    return Comparison("the test cases", len(references), rules, by_rule, network)


def _out_of_fold(dataset: Dataset, folds: Sequence[Path]) -> Comparison:
    from autoseg.evaluation import find_masks

    held_out = {fold.name: find_masks(fold / "masks", f"out-of-fold ({fold.name})") for fold in folds}
    references = {case.name: case.label for case in dataset.cases if case.label}
    predicted = {name: path for masks in held_out.values() for name, path in masks.items()}
    if unknown := sorted(set(predicted) - set(references)):
        raise DatasetError(f"{folds[0].parent}: has masks of {len(unknown)} case(s) that {dataset.folder} lacks, {unknown[0]} among them")
    network = _network_dice(dataset, {name: references[name] for name in predicted}, predicted)
    examples = _training_examples(dataset)
    position = {name: index for index, name in enumerate(examples)}
    trainings = [[index for name, index in position.items() if name not in masks] for masks in held_out.values()]
    rules, by_rule = {}, {}
    for name in _foreground(dataset):
        value = dataset.labels[name]
        try:
            *fitted, rules[name] = fit_rules(list(examples.values()), value, [*trainings, list(position.values())])
        except ValueError as error:
            raise DatasetError(f"{dataset.folder}: outside a fold {error}; the rule cannot be fitted without that fold") from None
        pairs = [(rule, examples[case]) for rule, masks in zip(fitted, held_out.values(), strict=True) for case in masks]
        by_rule[name] = _mean_dice([rule for rule, _ in pairs], [example for _, example in pairs], value)
    return Comparison(f"out of fold ({len(folds)} folds)", len(predicted), rules, by_rule, network)


def _mean_dice(rules: Sequence[Rule], examples: Sequence[Example], label: int) -> float:
    """Mean over the cases where Dice is defined; nan where it is nowhere."""
    from autoseg.evaluation.overlap import dice

    values = [dice(rule.apply(example), example.mask == label) for rule, example in zip(rules, examples, strict=True)]
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan


def _network_dice(dataset: Dataset, references: Mapping[str, Path], masks: Path | Mapping[str, Path]) -> dict[str, float]:
    from autoseg.evaluation import evaluate

    evaluation = evaluate(references, masks, labels=dataset.labels)
    if evaluation.failures:
        raise CasesFailed(list(evaluation.failures.values()), len(evaluation.cases))
    return {name: evaluation.summary(name).means["dice"].mean for name in _foreground(dataset)}


def _open(folder: str | Path) -> Dataset:
    from autoseg.dataset import Dataset

    dataset = Dataset.open(folder)
    if dataset.channels != CHANNELS:
        raise DatasetError(f"{folder}: the rule needs the channels {', '.join(CHANNELS)}, found {', '.join(dataset.channels)}")
    if dataset.label_scheme.has_regions or dataset.label_scheme.ignore is not None:
        raise DatasetError(f"{folder}: the rule is for plain labels, and the dataset has regions or an ignore label")
    return dataset


def _foreground(dataset: Dataset) -> list[str]:
    return list(dataset.label_scheme.foreground)


def _fitted(dataset: Dataset, examples: Sequence[Example], name: str) -> Rule:
    try:
        return fit_rule(examples, dataset.labels[name])
    except ValueError as error:
        raise DatasetError(f"{dataset.folder}: {error} ({name}); the rule cannot be fitted") from None


def _training_examples(dataset: Dataset) -> dict[str, Example]:
    return {case.name: _example([source.path for source in case.images], case.label, case.name) for case in dataset.cases if case.label}


def _example(images: Sequence[Path], mask: Path, case: str) -> Example:
    from autoseg.images import read_image, read_mask

    ct, pet = (read_image(path, case=case) for path in images)
    return Example(ct.array, pet.array, read_mask(mask, case=case).array, math.prod(ct.geometry.spacing) / 1000)
