"""Hidden blocks and the error over them, against values worked out by hand."""

import numpy as np
import pytest
import torch

from autoseg.augmentation.counters import generator
from autoseg.training.masked_images import hidden_blocks, hidden_error


def test_the_error_is_that_of_hidden_voxels_alone():
    images = torch.tensor([[[[1.0, 2.0, 3.0]]], [[[4.0, 5.0, 6.0]]]])
    hidden = torch.tensor([[[True, False, True]], [[False, True, False]]])
    outputs = torch.zeros_like(images).requires_grad_()
    error = hidden_error(outputs, (images, hidden))
    assert error.item() == pytest.approx(((1 + 9) / 2 + 25) / 2)
    error.backward()
    assert (outputs.grad[0, 0, 0] != 0).tolist() == [True, False, True]
    changed = torch.where(hidden.unsqueeze(1), images, torch.full_like(images, torch.nan))
    assert hidden_error(outputs, (changed, hidden)).item() == error.item()


def test_channels_count_alike_and_a_sample_with_nothing_hidden_counts_nothing():
    images = torch.stack([torch.full((2, 2), 3.0), torch.full((2, 2), 1.0)]).unsqueeze(0)
    hidden = torch.tensor([[[True, False], [False, False]]])
    assert hidden_error(torch.zeros_like(images), (images, hidden)).item() == 5  # (9 + 1) / 2
    assert hidden_error(torch.zeros_like(images), (images, torch.zeros_like(hidden))).item() == 0


@pytest.mark.parametrize(
    ("patch", "blocks", "share", "edges", "count"),
    [
        ((16, 16, 16), 4, 0.75, (4, 4, 4), 48),
        ((4, 32, 24), 8, 0.5, (1, 4, 3), 128),
        ((20, 20), 8, 0.6, (3, 3), 29),
        ((2, 2), 2, 0.99, (1, 1), 3),
    ],
)
def test_whole_blocks_are_hidden(patch, blocks, share, edges, count):
    hidden = hidden_blocks(generator("test"), patch, blocks, share)
    assert hidden.shape == patch
    starts = tuple(slice(None, None, edge) for edge in edges)
    assert hidden[starts].sum() == count
    whole = hidden[starts]
    for axis, edge in enumerate(edges):
        whole = whole.repeat(edge, axis=axis)
    assert np.array_equal(whole[tuple(slice(size) for size in patch)], hidden)


def test_blocks_belong_to_their_key():
    first, again, other = (hidden_blocks(generator(key), (16, 16, 16), 8, 0.75) for key in ("one", "one", "other"))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
