import numpy as np
import pytest

from autoseg.importers.phantom import CENTRES, generate_case
from autoseg.importers.threshold_rule import Example, Rule, Thresholds, fit_rule


def example(sizes_and_labels, *, pet=5.0, seed=0):
    """Bright cubes side by side in a dark image, each with a label."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((8, 8, 60), np.uint8)
    bright = np.zeros(mask.shape, bool)
    start = 1
    for size, value in sizes_and_labels:
        part = (slice(1, 1 + size), slice(1, 1 + size), slice(start, start + size))
        mask[part], bright[part] = value, True
        start += size + 3
    return Example(
        np.where(bright, 50.0, 0.0) + rng.normal(size=mask.shape), np.where(bright, pet, 1.0) + 0.1 * rng.normal(size=mask.shape), mask
    )


def test_finds_a_dataset_that_thresholds_and_sizes_solve():
    examples = [example([(6, 0), (5, 1), (3, 2)], seed=1), example([(3, 2), (6, 0), (5, 1)], seed=2)]
    rules = [fit_rule(examples, value) for value in (1, 2)]
    assert [rule.dice for rule in rules] == pytest.approx([1, 1], abs=0.03)
    assert [(rule.first, rule.last) for rule in rules][0] == (2, 2)
    assert np.array_equal(rules[0].apply(examples[0]), examples[0].mask == 1) or rules[0].dice < 1


def test_the_reported_dice_is_that_of_its_masks():
    examples = [example([(6, 0), (5, 1), (4, 1)], seed=1), example([(3, 1), (6, 1), (5, 0)], seed=2)]
    rule = fit_rule(examples, 1)
    by_hand = [2 * np.sum(rule.apply(e) & (e.mask == 1)) / (np.sum(rule.apply(e)) + np.sum(e.mask == 1)) for e in examples]
    assert rule.dice == pytest.approx(np.mean(by_hand))


def test_no_plain_threshold_is_better():
    examples = [example([(6, 0), (5, 1), (4, 1)], seed=1), example([(3, 1), (6, 1), (5, 0)], seed=2)]
    best = fit_rule(examples, 1).dice
    for pet in (2.0, 4.0, 4.9):
        masks = [e.pet >= pet for e in examples]
        plain = np.mean([2 * np.sum(m & (e.mask == 1)) / (m.sum() + np.sum(e.mask == 1)) for m, e in zip(masks, examples, strict=True)])
        assert best >= plain - 1e-9


def test_reads_as_a_sentence():
    assert str(Rule(Thresholds(2.5, 10, 200), 1, 3, 0.5)) == "PET >= 2.50, CT 10 to 200, components 1 to 3 by size"


def test_a_label_that_is_nowhere():
    with pytest.raises(ValueError, match="no case holds the label 7"):
        fit_rule([example([(3, 1)])], 7)


@pytest.mark.slow
def test_stays_below_06_on_the_generated_dataset():
    def cases(first, count):
        phantoms = (generate_case(1, number, 0, CENTRES[number % 2]) for number in range(first, first + count))
        return [Example(*phantom.images, phantom.labels) for phantom in phantoms]

    training = cases(1, 10)
    for value in (1, 2):
        assert 0.2 < fit_rule(training, value).dice < 0.6
