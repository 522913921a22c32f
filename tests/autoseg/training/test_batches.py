"""Batches as pure functions of their counters. The cases' channels are their own coordinates, so a patch tells where it was cut."""

from collections import Counter
from contextlib import closing
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from autoseg.augmentation.pipeline import Augmenter
from autoseg.errors import DatasetError
from autoseg.files import sha256_file
from autoseg.images import Geometry, Image, write_mask
from autoseg.preprocessing.cases import PreparedCases
from autoseg.preprocessing.prepare import prepare
from autoseg.preprocessing.previous_stage import MaskSource, prepare_masks
from autoseg.preprocessing.store import write_case
from autoseg.training import batches
from autoseg.training.batches import (
    PLAIN,
    CaseCache,
    SampleSource,
    centred_corner,
    forced_foreground,
    random_corner,
    read_box,
)
from autoseg.training.loading import SegmentationBatches, _Keyed
from planners.plan import Augmentation, Configuration, NoNormalisation, Plan, Resampling, Spatial, Training, UNetSpec

SHAPES = {"a": (12, 14, 10), "b": (9, 11, 16), "c": (5, 13, 6)}


def configuration(patch=(8, 8, 8), batch_size=2, augmentation=PLAIN, **training):
    dimension = len(patch)
    return Configuration(
        dimension=dimension,
        spacing=(1.0,) * dimension,
        median_shape=(10.0,) * dimension,
        patch_size=patch,
        batch_size=batch_size,
        normalisation=(NoNormalisation(),) * 4,
        network=UNetSpec(
            features=(4,), strides=((1,) * dimension,), kernels=((3,) * dimension,), convs_per_stage=(1,), convs_per_decoder_stage=()
        ),
        augmentation=augmentation,
        training=Training(**{"epochs": 3, "iterations": 4, "validation_iterations": 3} | training),
        inference={"mirror_axes": ()},
    )


def write(folder: Path, name: str, shape, number: int, mask: np.ndarray) -> None:
    """A prepared case whose channels are its number and each voxel's z, y, x, all counted from 1."""
    channels = [np.full(shape, number), *np.indices(shape)]
    images = [
        Image((c + 1).astype(np.float32), Geometry(shape, (1.0,) * 3, (0.0,) * 3, tuple(np.eye(3).ravel())), Path(name), ())
        for c in channels
    ]
    plan = Plan(
        channels=("case", "z", "y", "x"),
        labels={"background": 0, "large": 1, "small": 2},
        file_ending=".nii.gz",
        orientation="as_stored",
        configurations={"c": configuration()},
    )
    prepared = prepare(images, Image(mask, images[0].geometry, Path(name), ()), plan, "c")
    assert prepared.data.shape == (4, *shape)
    write_case(folder, name, prepared)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three cases: a and b with a large and a small label, c without foreground."""
    folder = tmp_path_factory.mktemp("cases")
    for number, (name, shape) in enumerate(SHAPES.items()):
        mask = np.zeros(shape, np.uint8)
        if name != "c":
            mask[2:8, 3:9, 2:9] = 1
            mask[8, 10, 1] = 2
        write(folder, name, shape, number, mask)
    return folder


def draw(source, purpose, epoch, iteration, augmentation=PLAIN, cache=None):
    augmenter = Augmenter(augmentation, source.configuration.patch_size)
    return source.batch(purpose, epoch, iteration, augmenter, cache or CaseCache(source))


def corner_of(patch) -> tuple[int, ...]:
    """Where a patch was cut: from the coordinates in the voxels that lie in the image."""
    inside = np.argwhere(patch[0] > 0)[0]
    return tuple(int(patch[(1 + axis, *inside)]) - 1 - int(inside[axis]) for axis in range(patch.ndim - 1))


def same(first, second) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


# --- the rules ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch_size", "forced"), [(2, 1), (3, 1), (4, 1), (5, 2), (6, 2), (7, 2), (8, 3), (9, 3), (10, 3), (11, 4), (12, 4)]
)
def test_the_last_third_of_a_batch_is_forced_onto_foreground(batch_size, forced):
    assert [forced_foreground(j, batch_size, 0.33) for j in range(batch_size)] == [False] * (batch_size - forced) + [True] * forced


@pytest.mark.parametrize(("batch_size", "forced"), [(1, 1), (3, 1), (5, 3), (7, 3)])
def test_halves_round_to_even(batch_size, forced):
    assert sum(forced_foreground(j, batch_size, 0.5) for j in range(batch_size)) == forced


@pytest.mark.parametrize(("fraction", "forced"), [(0.0, 0), (1.0, 4)])
def test_none_and_all_forced(fraction, forced):
    assert sum(forced_foreground(j, 4, fraction) for j in range(4)) == forced


@pytest.mark.parametrize(("extent", "wanted", "corners"), [(10, 4, range(7)), (8, 8, [0]), (4, 8, [-2]), (2, 3, [-1, 0]), (4, 7, [-2, -1])])
def test_random_corners_are_drawn_evenly_from_all_that_fit(extent, wanted, corners):
    rng = np.random.default_rng(7)
    found = Counter(random_corner(rng, (extent,), (wanted,))[0] for _ in range(3500))
    assert sorted(found) == list(corners)
    if len(found) > 1:
        assert stats.chisquare(list(found.values())).pvalue > 1e-3


@settings(deadline=None, max_examples=60)
@given(shape=st.tuples(*[st.integers(1, 20)] * 3), size=st.tuples(*[st.integers(1, 20)] * 3), seed=st.integers(0, 1000))
def test_a_random_box_lies_in_the_image_or_around_it_in_the_middle(shape, size, seed):
    for corner, extent, wanted in zip(random_corner(np.random.default_rng(seed), shape, size), shape, size, strict=True):
        before, after = -corner, corner + wanted - extent
        if wanted <= extent:
            assert before <= 0
            assert after <= 0
        else:
            assert abs(before - after) <= 1
            assert min(before, after) >= 0


@pytest.mark.parametrize(
    ("voxel", "shape", "size", "corner"),
    [
        ((5, 5, 5), (10, 10, 10), (4, 4, 4), (3, 3, 3)),
        ((0, 1, 2), (10, 10, 10), (4, 4, 4), (0, 0, 0)),
        ((9, 8, 7), (10, 10, 10), (4, 4, 4), (7, 6, 5)),  # over the high end, and left there
        ((0, 3), (4, 4), (8, 8), (-2, -1)),
        ((0, 3), (4, 4), (7, 7), (-2, 0)),  # an odd voxel of padding goes before
        ((6, 6), (9, 9), (5, 5), (4, 4)),
    ],
)
def test_a_centred_box_is_clamped_at_the_low_end_only(voxel, shape, size, corner):
    assert centred_corner(voxel, shape, size) == corner


@settings(deadline=None, max_examples=80)
@given(data=st.data())
def test_read_box_is_pad_and_crop(data):
    dimension = data.draw(st.integers(1, 3))
    shape = data.draw(st.tuples(*[st.integers(1, 6)] * dimension))
    lead = data.draw(st.sampled_from([(), (2,)]))
    size = data.draw(st.tuples(*[st.integers(1, 7)] * dimension))
    corner = data.draw(st.tuples(*[st.integers(-9, 9)] * dimension))
    fill = data.draw(st.sampled_from([0, -1]))
    array = np.arange(1, 1 + np.prod((*lead, *shape)), dtype=np.int16).reshape(*lead, *shape)
    margin = 16
    padded = np.pad(array, [(0, 0)] * len(lead) + [(margin, margin)] * dimension, constant_values=fill)
    expected = padded[(..., *(slice(c + margin, c + margin + s) for c, s in zip(corner, size, strict=True)))]
    box = read_box(array, corner, size, fill)
    assert box.dtype == array.dtype
    np.testing.assert_array_equal(box, expected)
    assert not np.shares_memory(box, array)


# --- samples -----------------------------------------------------------------------------------------------------------------------


def test_a_patch_is_cut_out_of_one_case_and_padded_with_nothing(folder):
    source = SampleSource(folder, tuple(SHAPES), configuration(), seed=3, fold="0")
    seen, cache = set(), CaseCache(source)
    for iteration in range(15):
        data, labels = draw(source, "train", 0, iteration, cache=cache)
        assert (data.dtype, labels.dtype) == (torch.float32, torch.int64)
        assert data.shape == (2, 4, 8, 8, 8)
        assert labels.shape == (2, 8, 8, 8)
        for patch, mask in zip(data.numpy(), labels.numpy(), strict=True):
            number = int(patch[0].max()) - 1
            name = list(SHAPES)[number]
            seen.add(name)
            whole = cache.get(name).data
            corner = corner_of(patch)
            padded = np.pad(whole, [(0, 0)] + [(16, 16)] * 3)
            where = tuple(slice(c + 16, c + 24) for c in corner)
            np.testing.assert_array_equal(patch, padded[(slice(None), *where)])
            expected = np.pad(cache.get(name).labels, 16)[where]
            np.testing.assert_array_equal(mask, expected)
    assert seen == set(SHAPES)


def test_forced_samples_are_centred_on_foreground_and_the_labels_take_turns(folder):
    source = SampleSource(folder, ("a", "b"), configuration(patch=(4, 4, 4), foreground_fraction=1.0), seed=0, fold="0")
    centres = Counter()
    cache = CaseCache(source)
    for iteration in range(150):
        data, labels = draw(source, "train", 0, iteration, cache=cache)
        for patch, mask in zip(data.numpy(), labels.numpy(), strict=True):
            assert (mask > 0).any()
            # label 2 is one voxel, in x one from the low end: its box is clamped there
            small = np.argwhere(mask == 2)
            clamped = corner_of(patch)[2] == 0 and any(tuple(voxel) == (2, 2, 1) for voxel in small.tolist())
            centres[2 if clamped else int(mask[2, 2, 2])] += 1
    assert set(centres) <= {0, 1, 2}
    assert centres[0] == 0
    assert stats.binomtest(centres[2], centres.total(), 0.5).pvalue > 1e-3, "two labels, one of them a single voxel: each half the time"


def test_a_case_without_foreground_gives_random_patches_instead(folder):
    source = SampleSource(folder, ("c",), configuration(foreground_fraction=1.0), seed=0, fold="0")
    data, labels = draw(source, "train", 0, 0)
    assert not labels.any()
    assert (data[:, 0] == 3).any()


def test_cases_are_drawn_evenly(folder):
    source = SampleSource(folder, tuple(SHAPES), configuration(patch=(2, 2, 2), batch_size=12), seed=5, fold="0")
    cache = CaseCache(source)
    numbers = Counter(int(n) for i in range(50) for n in draw(source, "train", 0, i, cache=cache)[0][:, 0].amax((1, 2, 3)))
    assert len(numbers) == 3
    assert stats.chisquare(list(numbers.values())).pvalue > 1e-3


def test_two_dimensional_patches_are_slices_of_the_first_axis(folder):
    source = SampleSource(folder, ("a",), configuration(patch=(8, 6), batch_size=6, foreground_fraction=0.5), seed=1, fold="0")
    cache = CaseCache(source)
    random_planes = Counter()
    for iteration in range(80):
        data, labels = draw(source, "train", 0, iteration, cache=cache)
        assert data.shape == (6, 4, 8, 6)
        assert labels.shape == (6, 8, 6)
        for sample, (patch, mask) in enumerate(zip(data.numpy(), labels.numpy(), strict=True)):
            planes = set(patch[1][patch[0] > 0].tolist())
            assert len(planes) == 1
            plane = int(planes.pop()) - 1
            if sample < 3:
                random_planes[plane] += 1
            else:
                assert (mask > 0).any()
                assert 2 <= plane <= 8
    assert sorted(random_planes) == list(range(12))
    assert stats.chisquare(list(random_planes.values())).pvalue > 1e-3


@pytest.mark.parametrize("patch", [(8, 8, 8), (6, 10, 8), (7, 9, 5), (8, 6)])
def test_rotating_and_scaling_keep_the_centre_of_the_patch(tmp_path, patch):
    """A linear image's mean over a box, however rotated and scaled, is its value at the box's centre."""
    shape = (28, 28, 28)
    write(tmp_path, "ramp", shape, 0, np.ones(shape, np.uint8))
    turn = Spatial(rotation_probability=1, scaling_probability=1, rotation_degrees=(-30.0, 30.0), scaling=(0.8, 1.2))
    moving = PLAIN.model_copy(update={"spatial": turn})
    source = SampleSource(tmp_path, ("ramp",), configuration(patch=patch, batch_size=8, foreground_fraction=0.5), seed=2, fold="0")
    cache, checked = CaseCache(source), 0
    for iteration in range(4):
        plain, _ = draw(source, "train", 0, iteration, cache=cache)
        moved, _ = draw(source, "train", 0, iteration, moving, cache)
        for before, after in zip(plain.numpy(), moved.numpy(), strict=True):
            if before[0].all() and np.allclose(after[0], 1, atol=1e-6):  # both lie in the image and in what was read
                coordinates = slice(4 - len(patch), 4)
                centre = before[coordinates].reshape(len(patch), -1).mean(1)
                np.testing.assert_allclose(after[coordinates].reshape(len(patch), -1).mean(1), centre, atol=1e-3)
                assert not np.allclose(before, after)
                checked += 1
    assert checked >= 4


# --- counters ----------------------------------------------------------------------------------------------------------------------


def test_the_same_counters_give_the_same_batch_whatever_ran_before(folder):
    everything = Augmentation()
    source = SampleSource(folder, tuple(SHAPES), configuration(augmentation=everything), seed=3, fold="0")
    alone = draw(source, "train", 2, 1, everything)
    cache = CaseCache(source, limit=1)
    np.random.default_rng(0)
    torch.manual_seed(99)
    for epoch, iteration in [(0, 0), (2, 2), (1, 1), (0, 3)]:
        draw(source, "train", epoch, iteration, everything, cache)
    assert same(draw(source, "train", 2, 1, everything, cache), alone)


def test_every_part_of_the_key_counts(folder):
    def batch(seed=3, fold="0", purpose="train", epoch=2, iteration=1):
        return draw(SampleSource(folder, tuple(SHAPES), configuration(), seed, fold), purpose, epoch, iteration)

    first = batch()
    assert same(first, batch())
    for other in ({"seed": 4}, {"fold": "1"}, {"purpose": "validation"}, {"epoch": 1}, {"iteration": 2}, {"epoch": 1, "iteration": 2}):
        assert not same(first, batch(**other)), other
    assert not torch.equal(first[0][0], first[0][1])


def batches_of(folder, workers=0, augmentation=PLAIN, **training):
    source = SampleSource(folder, tuple(SHAPES), configuration(augmentation=augmentation, **training), seed=3, fold="0")
    return SegmentationBatches(source, ("a",), workers)


def test_a_stream_from_the_middle_is_the_tail_of_the_whole(folder):
    whole = list(batches_of(folder).stream(0, 0))
    assert len(whole) == 3 * 4
    for epoch, iteration in [(0, 1), (1, 0), (2, 3), (3, 0)]:
        tail = list(batches_of(folder).stream(epoch, iteration))
        assert len(tail) == 12 - 4 * epoch - iteration
        assert all(map(same, tail, whole[4 * epoch + iteration :]))


def test_more_epochs_leave_the_first_ones_as_they_were(folder):
    longer = list(batches_of(folder, epochs=5).stream(0, 0))
    assert len(longer) == 20
    assert all(map(same, longer, batches_of(folder).stream(0, 0)))


@pytest.mark.slow
def test_two_loader_workers_give_the_same_bits_as_none(folder):
    everything = Augmentation()
    here = list(batches_of(folder, 0, everything).stream(1, 1))
    before = set(active_children())
    with closing(batches_of(folder, 2, everything)) as made:
        there = list(made.stream(1, 1))
        loaders = set(active_children()) - before
        lingering = made._ahead  # as in a traceback
    assert len(here) == len(there) == 7
    assert all(map(same, here, there))
    assert lingering
    assert len(loaders) == 2
    assert not loaders & set(active_children()), "deaf to signals as they are, they would keep the training from ending"


class MadeAhead(SegmentationBatches):
    """With a stand-in for the loader processes, and nothing made besides what these make."""

    def _loader(self, keys):
        self._here, self.made = None, []
        return (self.made.append(key) or _Keyed(self._sources)[key] for key in keys)


STOPPING = {"early_stopping": {"iterations": 2}}


@pytest.mark.parametrize("start", [(0, 0), (1, 3), (1, 4), (2, 0)])
def test_what_judges_an_epoch_is_made_ahead_too(folder, start):
    """Asked for as the loop does, also from the middle and after the last iteration of an epoch."""
    source = SampleSource(folder, tuple(SHAPES), configuration(**STOPPING), seed=3, fold="0")

    def asked_for(made):
        stream, found = made.stream(*start), []
        for epoch in range(start[0], 3):
            found += [next(stream) for _ in range(start[1] if epoch == start[0] else 0, 4)]
            found += [*made.validation(epoch), *made.inner()]
        return found

    ahead = MadeAhead(source, ("a",), 1, ("b",))
    found, expected = asked_for(ahead), asked_for(SegmentationBatches(source, ("a",), 0, ("b",)))
    assert len(found) == len(expected) == len(ahead.made)
    assert all(map(same, found, expected))


def test_validation_that_nobody_asks_for_holds_nothing_up(folder):
    source = SampleSource(folder, tuple(SHAPES), configuration(), seed=3, fold="0")
    found = list(MadeAhead(source, ("a",), 1).stream(0, 0))
    assert len(found) == 12
    assert all(map(same, found, SegmentationBatches(source, (), 0).stream(0, 0)))


def test_validation_patches_are_those_of_the_epoch_unaugmented_and_of_validation_cases(folder):
    made = batches_of(folder, augmentation=Augmentation())
    first = list(made.validation(0))
    assert len(first) == 3
    assert all(map(same, first, batches_of(folder, augmentation=Augmentation()).validation(0)))
    assert not all(map(same, first, made.validation(1)))
    for data, _ in first:
        assert set(data[:, 0].unique().tolist()) <= {0.0, 1.0}, "of case a only, as it is stored"


@pytest.mark.parametrize("beside", [None, lambda labels: (labels > 0).astype(np.int16)])
def test_a_blank_batch_is_like_the_others(folder, beside):
    source = SampleSource(folder, ("a",), configuration(), seed=0, fold="all", beside=beside)
    found, other = source.blank(4), next(SegmentationBatches(source, (), 0).stream(0, 0))

    def kinds(things):
        return [kinds(thing) if isinstance(thing, tuple) else (thing.shape, thing.dtype) for thing in things]

    assert kinds(found) == kinds(other)
    assert not found[0].any()


def test_without_validation_cases_there_is_no_validation_batch(folder):
    source = SampleSource(folder, ("a",), configuration(), seed=0, fold="all")
    assert list(SegmentationBatches(source, (), 0).validation(0)) == []


def test_the_case_not_used_for_longest_is_closed(folder, monkeypatch):
    opened = []
    open_case = batches.open_case
    monkeypatch.setattr(batches, "open_case", lambda folder, name: opened.append(name) or open_case(folder, name))
    cache = CaseCache(SampleSource(folder, tuple(SHAPES), configuration(), seed=0, fold="0"), limit=2)
    for name in "abaca":
        cache.get(name)
    assert opened == ["a", "b", "c"]
    cache.get("b")
    assert opened == ["a", "b", "c", "b"]


def test_a_case_that_was_prepared_anew_from_other_files_is_refused(folder):
    source = SampleSource(folder, ("a", "b"), configuration(), seed=0, fold="0", keys={"a": "", "b": "of the files as they were"})
    cache = CaseCache(source)
    assert cache.get("a").key == ""
    with pytest.raises(DatasetError, match="case b: its image or mask was changed.*--restart"):
        cache.get("b")


def test_batches_are_pinned_only_for_training_on_a_gpu(folder, monkeypatch):
    """Not wherever there is one: pinning opens a context on it, also when training runs on the CPU."""
    taken = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("autoseg.training.loading.DataLoader", lambda *_, **options: taken.append(options["pin_memory"]) or [])
    source = SampleSource(folder, ("a",), configuration(), seed=0, fold="0")
    for options in ({}, {"pinned": True}):
        SegmentationBatches(source, (), 1, **options)._loader(iter(()))
    assert taken == [False, True]


# --- a previous stage's masks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patch", [(8, 8, 8), (8, 8)])
def test_a_previous_stages_masks_are_cut_where_the_image_is(folder, tmp_path, patch):
    """The mask is 1 where y is even and 2 where it is not, so each patch's coordinates tell what its mask channels must be."""
    sources = {}
    for name, shape in SHAPES.items():
        path = tmp_path / f"{name}.nii.gz"
        mask = np.broadcast_to(1 + np.arange(shape[1])[:, None] % 2, shape).astype(np.uint8)
        write_mask(path, mask, Geometry(shape, (1.0,) * 3, (0.0,) * 3, tuple(np.eye(3).ravel())))
        sources[name] = MaskSource(path, sha256_file(path))
    prepared = prepare_masks(PreparedCases(folder, dict.fromkeys(SHAPES, ""), 0), sources, Resampling(), workers=0)
    plain = SampleSource(folder, tuple(SHAPES), configuration(patch), 1, "0")
    source = replace(plain, previous=prepared.previous, classes=((1,), (2,)))
    augmenter, cache = source.augmenter(PLAIN), CaseCache(source)
    for iteration in range(6):
        data, labels = source.batch("train", 0, iteration, augmenter, cache)
        expected, expected_labels = draw(plain, "train", 0, iteration)
        assert data.shape == (2, 6, *patch)
        assert torch.equal(data[:, :4], expected)
        assert torch.equal(labels, expected_labels)
        inside, even = data[:, 0] > 0, data[:, 2] % 2 == 1  # coordinates count from 1
        assert torch.equal(data[:, 4], (inside & even).float())
        assert torch.equal(data[:, 5], (inside & ~even).float())
    batches = SegmentationBatches(source, ("a",), 0)
    assert next(iter(batches.validation(0)))[0].shape == (2, 6, *patch)
    assert next(batches.stream(0, 0))[0].shape == (2, 6, *patch)
