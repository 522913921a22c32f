"""Locks against living, killed, suspended and foreign processes."""

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from failing_calls import FailingCalls

from autoseg import locks
from autoseg.errors import LockError, ResourceError
from autoseg.locks import FoldLock

REPOSITORY = Path(__file__).parents[2]


def test_second_holder_is_refused_with_host_process_and_remedy(tmp_path):
    with FoldLock(tmp_path):
        with pytest.raises(LockError) as caught:
            FoldLock(tmp_path).acquire()
        assert f"process {os.getpid()} on host" in str(caught.value)
        assert "delete" in str(caught.value)
    with FoldLock(tmp_path):  # released on exit
        pass
    assert os.listdir(tmp_path) == []


def test_lock_is_released_after_an_error(tmp_path):
    def work():
        with FoldLock(tmp_path / "fold.lock"):
            assert os.listdir(tmp_path) == ["fold.lock"]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL; run on Linux or macOS")
def test_lock_of_a_killed_process_is_taken_over_and_that_of_a_living_one_is_not(tmp_path, caplog):
    program = (
        "import sys, time; from autoseg.locks import FoldLock\n"
        "lock = FoldLock(sys.argv[1]).acquire(); print('held', flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, env=environment)
    try:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(LockError, match=f"process {process.pid} "):
            FoldLock(tmp_path, stale_after=0).acquire()  # alive: its heartbeat is not asked
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    with caplog.at_level(logging.WARNING), FoldLock(tmp_path):
        pass
    assert f"process {process.pid} " in caplog.text
    assert "dead" in caplog.text


def foreign_lock(folder, age, **changes):
    path = folder / locks.LOCK_NAME
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "namespace": "", "started": None, "token": "t", **changes}))
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def test_lock_of_another_host_is_stale_only_by_its_heartbeat(tmp_path, caplog):
    foreign_lock(tmp_path, age=500)
    with pytest.raises(LockError, match="process 1 on host elsewhere"):
        FoldLock(tmp_path).acquire()
    foreign_lock(tmp_path, age=700)
    with caplog.at_level(logging.WARNING), FoldLock(tmp_path) as lock:
        lock.check()
        assert json.loads(lock.path.read_text())["pid"] == os.getpid()
    assert "no sign of life for 70" in caplog.text


def test_a_pid_that_was_used_again_does_not_hold_the_lock(tmp_path):
    with FoldLock(tmp_path) as lock:
        mine = json.loads(lock.path.read_text())
    if mine["started"] is None:
        pytest.skip("this system does not tell when a process started; run on Linux")
    foreign_lock(tmp_path, age=0, **{**mine, "started": "another boot:123", "token": "t"})
    with FoldLock(tmp_path):
        pass


def test_an_unreadable_lock_file_counts_as_held_until_it_is_old(tmp_path):
    path = foreign_lock(tmp_path, age=0)
    path.write_text("half writ")
    with pytest.raises(LockError, match="unknown"):
        FoldLock(tmp_path).acquire()
    os.utime(path, (time.time() - 700, time.time() - 700))
    with FoldLock(tmp_path):
        pass


def test_heartbeat_renews_the_time_stamp_and_notices_a_lost_lock(tmp_path, caplog):
    lock = FoldLock(tmp_path, heartbeat=0.01).acquire()
    os.utime(lock.path, (0, 0))
    deadline = time.monotonic() + 10
    while lock.path.stat().st_mtime == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert lock.path.stat().st_mtime > 0
    lock.check()
    with caplog.at_level(logging.ERROR):
        foreign_lock(tmp_path, age=0)
        while not caplog.records and time.monotonic() < deadline:
            time.sleep(0.01)
    with pytest.raises(LockError, match="took over"):
        lock.check()
    lock.release()
    assert json.loads(lock.path.read_text())["host"] == "elsewhere", "the other process's lock is left alone"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork; run on Linux or macOS")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_does_not_release_its_parents_lock(tmp_path):
    with FoldLock(tmp_path) as lock:
        child = os.fork()
        if child == 0:
            lock.release()
            os._exit(0)
        os.waitpid(child, 0)
        assert lock.path.exists()


def test_disk_full_while_locking_leaves_no_lock(tmp_path, monkeypatch):
    FailingCalls(monkeypatch, 2)
    with pytest.raises(ResourceError):
        FoldLock(tmp_path).acquire()
    monkeypatch.undo()
    assert os.listdir(tmp_path) == []


def test_a_lock_is_waited_for_as_long_as_asked(tmp_path, monkeypatch):
    now, slept = [0.0], []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    with FoldLock(tmp_path):
        monkeypatch.setattr(locks.time, "monotonic", lambda: now[0])
        monkeypatch.setattr(locks.time, "sleep", sleep)
        with pytest.raises(LockError, match="is at work here"):
            FoldLock(tmp_path, wait=1.2).acquire()
        assert sum(slept) == pytest.approx(1.2)
        monkeypatch.undo()
