"""What the machine leaves to this process: memory and processor cores, after affinity and control groups."""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import floor
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def available_memory() -> int:
    """Bytes that this process can still take: the machine's available memory, or what its control group leaves if that is less."""
    import psutil

    return min(int(psutil.virtual_memory().available), *_memory_rooms())


def usable_cores() -> int:
    """Cores that this process may use, at least 1: its affinity, or its control group's quota rounded down if that is less."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, *(floor(quota) for quota in _core_quotas())))


def _memory_rooms() -> list[int]:
    """What each control group above this process leaves, in bytes; a huge number where there is no limit."""
    rooms = [2**62]
    for folder, version in _groups("memory"):
        names = ("memory.max", "memory.current", "inactive_file ")
        if version == 1:
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file ")
        limit_name, usage_name, cache_name = names
        try:
            limit = (folder / limit_name).read_text().strip()
            usage = int((folder / usage_name).read_text())
            # Pages of files that were read are given back on demand; they count as used, but not against us.
            statistics = (folder / "memory.stat").read_text().splitlines()
            cache = next((int(line.removeprefix(cache_name)) for line in statistics if line.startswith(cache_name)), 0)
            if limit != "max":
                rooms.append(max(0, int(limit) - usage + cache))
        except (OSError, ValueError):
            continue  # this level has no such file: not limited, or seen from inside a container whose root it is
    return rooms


def _core_quotas() -> list[float]:
    """The cores that each control group above this process allows; a huge number where there is no limit."""
    quotas = [float(2**31)]
    for folder, version in _groups("cpu"):
        try:
            if version == 2:
                quota, period = (folder / "cpu.max").read_text().split()
            else:
                quota, period = (folder / "cpu.cfs_quota_us").read_text().strip(), (folder / "cpu.cfs_period_us").read_text().strip()
            if quota not in ("max", "-1"):
                quotas.append(int(quota) / int(period))
        except (OSError, ValueError, ZeroDivisionError):
            continue  # as for memory
    return quotas


def _groups(controller: str) -> Iterator[tuple[Path, int]]:
    """The folders of this process's control groups that may limit `controller`, inner ones first, with the version (1 or 2) of each.

    Source: the Linux kernel's cgroups(7).
    """
    try:
        lines = MEMBERSHIP.read_text(encoding="utf-8").splitlines()
    except OSError:
        return  # not Linux
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            root, version = CGROUPS, 2
        elif controller in controllers.split(","):
            root, version = CGROUPS / controllers, 1
            if not root.is_dir():
                root = CGROUPS / controller
        else:
            continue
        folder = root / group.strip("/")
        while True:
            yield folder, version
            if folder == root:
                break
            folder = folder.parent
