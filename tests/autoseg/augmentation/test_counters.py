import random
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from autoseg.augmentation.counters import generator


def test_streams_do_not_depend_on_the_order_of_asking():
    keys = [(seed, epoch, sample) for seed in (1, 2) for epoch in range(3) for sample in range(4)]
    first = {key: generator(*key).random(5).tolist() for key in keys}
    random.Random(0).shuffle(keys)
    assert {key: generator(*key).random(5).tolist() for key in keys} == first


def test_another_process_gets_the_same_stream():
    code = "from autoseg.augmentation.counters import generator; print(generator(7, 'fold', 3).integers(2**62, size=3).tolist())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == str(generator(7, "fold", 3).integers(2**62, size=3).tolist())


def test_every_part_of_the_key_counts_and_its_type_too():
    keys = [(1, 2), (2, 1), (12,), ("1", 2), (1, 2, 0), (), ("",), ("a", "b"), ("ab",), (-1,), (2**80,)]
    values = [generator(*key).integers(2**62) for key in keys]
    assert len(set(values)) == len(keys)


def test_numpy_integers_are_integers():
    assert generator(np.int64(3)).random() == generator(3).random()


@pytest.mark.parametrize("part", [1.0, None, True, (1,)])
def test_other_parts_are_refused(part):
    with pytest.raises(TypeError, match="integers and strings"):
        generator(part)


def test_first_numbers_of_neighbouring_keys_are_uniform_and_uncorrelated():
    numbers = np.array([generator(0, k).random() for k in range(10_000)])
    assert stats.kstest(numbers, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.04
