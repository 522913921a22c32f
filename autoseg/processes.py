"""Processes beyond their number: whether one that was noted is still alive, what memory it holds, and when to end with it."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

PARENT_CHECK_SECONDS = 0.5


def pid_namespace() -> str:
    """What process ids count in; "" where the system does not tell. Two containers may share a host name while each counts processes
    from 1: an id then says nothing about the other one."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def start_time(pid: int) -> str | None:
    """A process's start in clock ticks since boot with the boot's id (tells a pid from its later re-use), or None without /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}:{Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}"
    except (OSError, IndexError):
        return None


def is_alive(pid: int, started: str | None) -> bool:
    """Whether the process of this number that was `started` then still runs, in this namespace; of another user too."""
    if sys.platform == "win32":  # os.kill(pid, 0) would end it there
        import psutil

        return bool(psutil.pid_exists(pid))
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # alive, but another user's
    return started is None or start_time(pid) in (None, started)


def memory_of(pid: int) -> tuple[int, int] | None:
    """Bytes of memory that a process holds now and held at most; None when it is gone."""
    if sys.platform == "linux":
        with suppress(OSError, ValueError):
            fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            if "VmRSS" in fields:
                return int(fields["VmRSS"].split()[0]) * 1024, int(fields["VmHWM"].split()[0]) * 1024
        return None
    import psutil

    with suppress(psutil.Error):
        held = psutil.Process(pid).memory_info().rss
        return held, held
    return None


def end_with_parent(parent: int) -> None:
    """Ends this process when its parent is gone, so that a killed command leaves no orphan at work; for a daemon thread."""
    import psutil

    while os.getppid() == parent and psutil.pid_exists(parent):
        time.sleep(PARENT_CHECK_SECONDS)
    os._exit(1)
