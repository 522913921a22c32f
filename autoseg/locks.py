"""Locks on folders that several processes, also on several hosts, would write into."""

from __future__ import annotations

import json
import logging
import math
import os
import secrets
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from autoseg.errors import LockError
from autoseg.files import TEMPORARY_PREFIX, write_all, write_error
from autoseg.processes import is_alive, pid_namespace, start_time

logger = logging.getLogger(__name__)

LOCK_NAME = ".autoseg-lock"
LOCK_POLL_SECONDS = 0.5


class FoldLock:
    """A lock on a folder against other processes, also on other hosts that share the disk; a context manager.

    The lock is a file made with O_CREAT | O_EXCL that holds host, process id and the process's start time; a daemon thread renews its time
    stamp. A lock is taken over, with a logged line, when its process is dead (same host), or when its time stamp is older than
    `stale_after` (otherwise).

    Args:
        path: the lock file, or the folder to lock (its file `.autoseg-lock` then).
        heartbeat: seconds between renewals.
        stale_after: seconds without renewal after which a lock of another host is dead.
        wait: seconds to wait for another process to give the lock back; None as long as it takes.

    Raises:
        LockError: on entering: another process holds the lock; tells its host, process id, age and the remedy.
    """

    def __init__(self, path: str | Path, *, heartbeat: float = 30.0, stale_after: float = 600.0, wait: float | None = 0.0):
        path = Path(path)
        self.path = path / LOCK_NAME if path.is_dir() else path
        self.heartbeat = heartbeat
        self.stale_after = stale_after
        self.wait = math.inf if wait is None else wait
        self._token = ""
        self._owner_pid = 0
        self._released = threading.Event()
        self._lost = False
        self._thread: threading.Thread | None = None

    def acquire(self) -> FoldLock:
        """This lock, held; raises LockError where another process holds it for longer than `wait`."""
        self._token = secrets.token_hex(16)
        until = time.monotonic() + self.wait
        waiting = False
        while True:
            try:
                self._take()
                break
            except LockError as error:
                if time.monotonic() >= until:
                    raise
                if not waiting:
                    logger.info("waiting: %s", error)
                waiting = True
                time.sleep(min(LOCK_POLL_SECONDS, max(0.0, until - time.monotonic())))
        self._owner_pid = os.getpid()
        self._lost = False
        self._released.clear()
        self._thread = threading.Thread(target=self._beat, name=f"heartbeat of {self.path}", daemon=True)
        self._thread.start()
        return self

    def release(self) -> None:
        """Gives the lock back; a forked child and a lock that was lost to another process leave the file alone."""
        if not self._token or self._owner_pid != os.getpid():
            return
        self._released.set()
        if self._thread is not None:
            self._thread.join()
        if _read_lock(self.path).get("token") == self._token:
            with suppress(OSError):
                os.unlink(self.path)
        self._token = ""

    def check(self) -> None:
        """Raises LockError when another process took this lock over (it may, when this one was suspended for longer than `stale_after`)."""
        if self._lost:
            raise LockError(f"{self.path}: another process took over while this one did not respond. Let the other one go on.")

    def __enter__(self) -> FoldLock:
        return self.acquire()

    def __exit__(self, *exception: object) -> None:
        self.release()

    def _take(self) -> None:
        for _ in range(10):
            if self._create():
                return
            self._take_over_or_refuse()
        raise LockError(f"{self.path}: several processes are fighting for this lock. Wait until one of them is done.")

    def _create(self) -> bool:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return False
        except OSError as error:
            raise write_error(self.path, error) from error
        try:
            write_all(descriptor, json.dumps({**_this_process(), "token": self._token}).encode())
            os.fsync(descriptor)
        except OSError as error:
            with suppress(OSError):
                os.unlink(self.path)
            raise write_error(self.path, error) from error
        finally:
            os.close(descriptor)
        return True

    def _take_over_or_refuse(self) -> None:
        holder = _read_lock(self.path)
        age = self._age()
        if age is None:
            return  # it was released in this moment
        reason = _why_stale(holder, age, self.stale_after)
        who = f"process {holder.get('pid', 'unknown')} on host {holder.get('host', 'unknown')}"
        if reason is None:
            raise LockError(
                f"{self.path.parent}: {who} is at work here (its last sign of life was {age:.0f} s ago). Wait for it to end or end it; "
                f"if you know that it is dead, delete {self.path}."
            )
        # Renaming first makes sure that of two processes that see the same dead lock, one cannot delete the other's fresh one unnoticed.
        aside = self.path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(6)}-{self.path.name[-120:]}")
        try:
            os.rename(self.path, aside)
        except FileNotFoundError:
            return
        if _read_lock(aside).get("token") != holder.get("token"):
            with suppress(OSError):
                os.link(aside, self.path)
        else:
            logger.warning("%s: taking over the lock of %s: %s", self.path, who, reason)
        with suppress(OSError):
            os.unlink(aside)

    def _age(self) -> float | None:
        """Seconds since the last heartbeat by the clock of the file system, which on a network disk is not this host's."""
        probe = self.path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(6)}-probe")
        try:
            renewed = os.stat(self.path).st_mtime
        except FileNotFoundError:
            return None
        try:
            os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            now = os.stat(probe).st_mtime
        except OSError:
            now = time.time()
        with suppress(OSError):
            os.unlink(probe)
        return max(0.0, now - renewed)

    def _beat(self) -> None:
        while not self._released.wait(self.heartbeat):
            try:
                if _read_lock(self.path).get("token") != self._token:
                    self._lost = True
                    logger.error("%s: this lock was taken over by another process or deleted", self.path)
                    return
                os.utime(self.path)
            except OSError as error:  # a network disk that comes and goes; the next beat tries again
                logger.warning("%s: the heartbeat failed: %s", self.path, error)


def _this_process() -> dict[str, Any]:
    pid = os.getpid()
    return {
        "host": socket.gethostname(),
        "pid": pid,
        "namespace": pid_namespace(),
        "started": start_time(pid),
        "since": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _read_lock(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _why_stale(holder: dict[str, Any], age: float, stale_after: float) -> str | None:
    same_host = holder.get("host") == socket.gethostname() and holder.get("namespace") == pid_namespace()
    if same_host and sys.platform != "win32":  # on Windows os.kill(pid, 0) would end the process
        return None if is_alive(int(holder.get("pid", 0)), holder.get("started")) else "the process is dead"
    return f"no sign of life for {age:.0f} s (limit {stale_after:.0f} s)" if age > stale_after else None
