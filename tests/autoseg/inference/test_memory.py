"""Estimates against counts by hand; the limit of a control group against files laid out like the kernel's."""

import pytest

from autoseg.errors import ResourceError
from autoseg.inference.memory import _rooms, activation_bytes, available_memory, check_fits, memory_estimate


def test_parts_by_hand(plan, tiny):
    name = tiny.name(plan)
    estimate = memory_estimate(plan, name, (40, 30, 20), (2.0, 4.0, 2.0))
    # 2 mm target: the second axis doubles, so that the grid is 40 x 60 x 20
    assert estimate.images == 2 * 40 * 30 * 20 * 4
    assert estimate.prepared == 2 * 40 * 60 * 20 * 4
    assert estimate.slab == 3 * 4 * (8 * 60 * 20 + 4 * 60 * 20)
    assert estimate.mask == 40 * 30 * 20 * 2
    assert estimate.weights == 0
    assert memory_estimate(plan, name, (40, 30, 20), (2.0, 4.0, 2.0), folds=2).weights > 0
    assert estimate.peak == estimate.prepared + max(estimate.images + estimate.preparing, estimate.slab + estimate.network + estimate.mask)


def test_activations_by_hand(plan, tiny):
    settings = plan.configurations[tiny.name(plan)]
    # 4 features at 8^3 and 8 at 4^3 wait; 5 more maps of 4 features; 2 channels twice, 3 classes four times
    assert activation_bytes(settings, 2, 3) == 4 * (4 * 512 + 8 * 64 + 5 * 4 * 512 + (2 * 2 + 4 * 3) * 512)


def test_the_slab_does_not_grow_with_the_depth_of_the_image(plan, tiny):
    short, long = (memory_estimate(plan, tiny.name(plan), (depth, 30, 30), (2.0, 2.0, 2.0)) for depth in (50, 5000))
    assert short.slab == long.slab
    assert short.network == long.network


def test_what_cannot_fit_is_refused_with_the_estimate(plan, tiny):
    estimate = memory_estimate(plan, tiny.name(plan), (1000, 2000, 2000), (2.0, 2.0, 2.0))
    with pytest.raises(ResourceError, match=r"case P1: prediction needs about \d+\.\d\d GiB \(images .*4\.00 GiB are available"):
        check_fits(estimate, "P1", available=4 << 30)
    check_fits(estimate, "P1", available=estimate.peak)


def test_available_memory_is_some():
    assert 0 < available_memory() < 2**62


@pytest.mark.parametrize("version", [1, 2])
def test_the_tightest_control_group_above_counts(tmp_path, version):
    names = ("memory.max", "memory.current", "inactive_file ") if version == 2 else ("limit", "usage", "total_inactive_file ")
    for folder, limit, usage in ((tmp_path, "max", 0), (tmp_path / "a", "1000", 900), (tmp_path / "a" / "b", "5000", 100)):
        folder.mkdir(exist_ok=True)
        (folder / names[0]).write_text(f"{limit}\n")
        (folder / names[1]).write_text(f"{usage}\n")
        (folder / "memory.stat").write_text(f"anon 3\n{names[2]}50\n")
    assert sorted(_rooms(tmp_path, "/a/b", *names)) == [150, 4950]
