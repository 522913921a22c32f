"""Memory and cores as the machine, the affinity and the control groups leave them."""

import os

import psutil
import pytest

from autoseg import resources


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """A function that makes a control group /a/b of a version below a made-up root, and returns its folders from the root inwards."""

    def make(controller, version):
        root = tmp_path / "cgroup"
        inner = root if version == 2 else root / controller
        (inner / "a" / "b").mkdir(parents=True)
        membership = tmp_path / "membership"
        membership.write_text("0::/a/b\n" if version == 2 else f"7:pids:/x\n3:{controller}:/a/b\n")
        monkeypatch.setattr(resources, "CGROUPS", root)
        monkeypatch.setattr(resources, "MEMBERSHIP", membership)
        return inner, inner / "a", inner / "a" / "b"

    return make


def test_there_is_some_of_both():
    assert 0 < resources.available_memory() <= psutil.virtual_memory().total
    assert 1 <= resources.usable_cores() <= os.cpu_count()


@pytest.mark.parametrize("version", [1, 2])
def test_the_tightest_control_group_above_limits_memory(groups, version):
    names = ("memory.max", "memory.current", "inactive_file ")
    if version == 1:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file ")
    for folder, limit, usage in zip(groups("memory", version), ("max", "1000", "5000"), (0, 900, 100), strict=True):
        (folder / names[0]).write_text(f"{limit}\n")
        (folder / names[1]).write_text(f"{usage}\n")
        (folder / "memory.stat").write_text(f"anon 3\n{names[2]}50\n")
    assert resources.available_memory() == 150  # 1000 - 900 + 50 that can be given back


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("tight", "cores"), [("350000", 3), ("50000", 1)])
def test_the_tightest_control_group_above_limits_cores(groups, monkeypatch, version, tight, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    for folder, quota in zip(groups("cpu", version), ("max", tight, "600000"), strict=True):
        if version == 2:
            (folder / "cpu.max").write_text(f"{quota} 100000\n")
        else:
            (folder / "cpu.cfs_quota_us").write_text(f"{'-1' if quota == 'max' else quota}\n")
            (folder / "cpu.cfs_period_us").write_text("100000\n")
    assert resources.usable_cores() == cores


def test_affinity_limits_cores_and_no_control_group_is_no_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "MEMBERSHIP", tmp_path / "none")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5}, raising=False)
    assert resources.usable_cores() == 2
    assert resources.available_memory() > 0
