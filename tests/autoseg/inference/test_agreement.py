"""How folds and flips agree: against masks held whole; and that listening changes no mask."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from autoseg.images import Geometry, Image
from autoseg.inference.agreement import Agreement
from autoseg.inference.predictor import Predictor
from autoseg.inference.review import Review
from autoseg.inference.sliding_window import Window, slide

PATCH = (6, 8, 8)


class Pixelwise(torch.nn.Module):
    """Sees one voxel at a time, so that a tile tells the same of it as the whole image would."""

    def __init__(self, seed, outputs=3):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = torch.randn((outputs, 1, 1, 1, 1), generator=generator) * 2
        self.bias = torch.randn(outputs, generator=generator) * 0.5

    def forward(self, values):
        return torch.nn.functional.conv3d(values, self.weight, self.bias)


def slid(networks, data, agreement, regions=False, mirror_axes=()):
    window = Window(PATCH, 3, mirror_axes=mirror_axes)
    blocks = slide(networks, data, 2 if regions else 3, window, device=torch.device("cpu"), agreement=agreement)
    return np.concatenate([block.numpy().copy() for _, block in blocks], axis=1)


def pooled_dice(masks):
    pairs = list(itertools.combinations(masks, 2))
    return sum(2 * (a & b).sum() for a, b in pairs) / sum(a.sum() + b.sum() for a, b in pairs)


@pytest.mark.parametrize("regions", [False, True])
def test_agreement_and_confidence_are_those_of_whole_masks(regions):
    data = np.random.default_rng(0).normal(size=(1, 13, 15, 21)).astype(np.float32)
    outputs = 2 if regions else 3
    networks = [Pixelwise(seed, outputs) for seed in range(3)]
    agreement = Agreement(regions)
    mean = slid(networks, data, agreement, regions)
    with torch.inference_mode():
        logits = [network(torch.from_numpy(data)[None])[0].numpy() for network in networks]
    present = range(2) if regions else (1, 2)
    marked = [[(one[c] > 0) if regions else one.argmax(0) == c for c in present] for one in logits]
    expected = np.mean([pooled_dice(masks) for masks in zip(*marked, strict=True)])
    assert agreement.agreement == pytest.approx(expected, abs=1e-5)

    shifted = np.exp(mean - mean.max(0))
    likely = 1 / (1 + np.exp(-mean)) if regions else shifted / shifted.sum(0)
    likely = np.where(likely >= 0.05, likely, 0)
    masks = mean > 0 if regions else np.stack([mean.argmax(0) == c for c in range(3)])
    sure = [2 * likely[c][masks[c]].sum() / (masks[c].sum() + likely[c].sum()) for c in present]
    assert agreement.confidence == pytest.approx(np.mean(sure), abs=1e-5)


def test_one_fold_is_rated_by_its_flips():
    data = np.random.default_rng(1).normal(size=(1, 9, 9, 9)).astype(np.float32)
    alone = Agreement()
    slid([Pixelwise(0)], data, alone)
    assert alone.agreement is None
    assert 0 < alone.confidence < 1
    flipped = Agreement()
    slid([Pixelwise(0)], data, flipped, mirror_axes=(0, 2))
    assert flipped.agreement == pytest.approx(1.0)  # a network that sees single voxels does not mind flips


def test_equal_folds_agree_and_nothing_found_is_nothing_told():
    data = np.random.default_rng(2).normal(size=(1, 9, 9, 9)).astype(np.float32)
    same = Agreement()
    slid([Pixelwise(4), Pixelwise(4)], data, same)
    assert same.agreement == pytest.approx(1.0)
    empty = Agreement()
    background = Pixelwise(0)
    background.weight, background.bias = torch.zeros_like(background.weight), torch.tensor([5.0, 0.0, 0.0])
    slid([background, background], data, empty)
    assert empty.agreement is None
    assert Review.of(empty, (), found=False, unlabelled=0.0).score == 0
    assert Review.of(empty, (), found=False, unlabelled=0.0).reasons
    assert Review.of(empty, (), found=False, unlabelled=0.4).score == 0.4
    unknown = Review.of(empty, (), found=False, unlabelled=None)
    assert unknown.score == 0
    assert unknown.reasons == ("nothing was found; whether training images were without anything labelled is not known",)


def resident(field):
    """Bytes of this process' memory: "VmRSS" now, "VmHWM" at most since it was last reset."""
    return next(int(line.split()[1]) << 10 for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is told by Linux' /proc alone; run on Linux")
def test_listening_holds_little_beside_the_logits_of_a_tile_however_many_outputs():
    shape = (100, 48, 48, 48)
    logits, weight = torch.randn(shape), torch.ones(shape[1:])
    agreement, place = Agreement(), (slice(None),) * 3
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    for _ in range(2):
        agreement.vote(logits)
    agreement.add(logits, weight, place)
    assert agreement.agreement == 1
    assert resident("VmHWM") - before < 4 * logits.numel() * 4


@pytest.mark.parametrize("folds", [("0",), ("0", "1", "2")])
def test_masks_are_the_same_bits_with_and_without_listening(make_model, plan, folds):
    predictor = Predictor(make_model(plan, folds), device="cpu", precision="fp32")
    rng = np.random.default_rng(3)
    geometry = Geometry((11, 13, 12), (2.0, 2.0, 2.0))
    images = [Image(rng.normal(0, scale, geometry.shape).astype(np.float32), geometry) for scale in (200, 3)]
    found = predictor.predict(images, probabilities=True)
    waiting = predictor.prepare(predictor_images(images, predictor), "image")
    silent = np.empty_like(found.probabilities)
    mask = predictor.ensemble.segment(waiting.ready, "image", silent)
    assert np.array_equal(mask, found.mask)
    assert np.array_equal(silent, found.probabilities)
    assert 0 < found.review.score < 1
    assert found.review.agreement is not None


def predictor_images(images, predictor):
    from autoseg.inference.case_images import check_channels

    return check_channels(images, predictor.plan, "image")
