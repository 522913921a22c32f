"""Atomic writing under injected faults, hashes, manifests and locks."""

import errno
import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from autoseg import files
from autoseg.errors import AutosegError, LockError, PlanError, ResourceError

REPOSITORY = Path(__file__).parents[2]


class FailingCalls:
    """Counts calls of os.open, os.write, os.fsync and os.replace and makes the N-th of them fail."""

    def __init__(self, monkeypatch, fail_at, number=errno.ENOSPC, exception=None):
        self.count = 0
        self.failed = None
        for name in ("open", "write", "fsync", "replace"):
            original = getattr(os, name)

            def call(*args, _original=original, _name=name, **kwargs):
                self.count += 1
                if self.count == fail_at:
                    self.failed = _name
                    raise exception or OSError(number, os.strerror(number))
                return _original(*args, **kwargs)

            monkeypatch.setattr(files.os, name, call)


def by_path(path, data):
    files.replace_with(path, lambda temporary: temporary.write_bytes(data))


def raised_by(function, *args):
    try:
        function(*args)
    except AutosegError as error:
        return error
    return None


@pytest.mark.parametrize("write", [files.write_bytes, by_path], ids=["write_bytes", "replace_with"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_after_failure_of_any_call_the_old_or_the_new_content_stands_and_no_temporary_file(tmp_path, monkeypatch, write, number):
    target = tmp_path / "plan.json"
    failed = []
    for n in range(1, 20):
        target.write_bytes(b"old")
        with monkeypatch.context() as patch:
            calls = FailingCalls(patch, n, number)
            error = raised_by(write, target, b"new content")
        assert (error is None) == (calls.failed is None)
        if error is not None:
            assert str(target) in str(error)
            assert isinstance(error, ResourceError) == (number != errno.EACCES)
        assert target.read_bytes() in (b"old", b"new content")
        if calls.failed in ("open", "write", "replace") and "replace" not in failed:
            assert target.read_bytes() == b"old"
        assert os.listdir(tmp_path) == ["plan.json"]
        if calls.failed is None:
            break
        failed.append(calls.failed)
    assert target.read_bytes() == b"new content"
    assert {"open", "fsync", "replace"} <= set(failed)
    assert failed.count("fsync") == 2, "the file and its folder"


def test_interruption_leaves_the_old_content_and_no_temporary_file(tmp_path, monkeypatch):
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    with monkeypatch.context() as patch:
        FailingCalls(patch, 2, exception=KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            files.write_bytes(target, b"new")
    assert os.listdir(tmp_path) == ["a.bin"]
    assert target.read_bytes() == b"old"


def test_a_writer_that_raises_leaves_the_old_content(tmp_path):
    target = tmp_path / "a.npy"
    target.write_bytes(b"old")

    def writer(temporary):
        temporary.write_bytes(b"half")
        assert temporary.name.endswith("a.npy")
        assert temporary.parent == tmp_path
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        files.replace_with(target, writer)
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.npy"]


def test_disk_full_names_path_and_free_space(tmp_path, monkeypatch):
    FailingCalls(monkeypatch, 2)
    with pytest.raises(ResourceError, match=r"x\.bin: No space left on device.*MiB are free"):
        files.write_bytes(tmp_path / "x.bin", b"abc")


def test_writing_to_a_place_that_cannot_be_names_it(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(AutosegError, match="cannot be written"):
        files.write_bytes(tmp_path / "file" / "below", b"abc")
    (tmp_path / "folder").mkdir()
    with pytest.raises(AutosegError, match="folder: cannot be written"):
        files.write_bytes(tmp_path / "folder", b"abc")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_short_writes_are_continued(tmp_path, monkeypatch):
    original = os.write
    monkeypatch.setattr(files.os, "write", lambda descriptor, data: original(descriptor, data[:3]))
    files.write_bytes(tmp_path / "a", bytes(range(50)))
    assert (tmp_path / "a").read_bytes() == bytes(range(50))


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL; run on Linux or macOS")
def test_sigkill_at_any_moment_leaves_old_or_new_content(tmp_path):
    program = (
        "import sys; from autoseg.files import write_bytes\n"
        "print('ready', flush=True)\n"
        "n = 0\n"
        "while True:\n"
        "    n += 1\n"
        "    write_bytes(sys.argv[1], bytes([n % 256]) * 400_000)\n"
    )
    target = tmp_path / "checkpoint"
    rng = np.random.default_rng(0)
    for _ in range(3):
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        process = subprocess.Popen([sys.executable, "-c", program, str(target)], stdout=subprocess.PIPE, env=environment)
        process.stdout.readline()
        time.sleep(0.05 + 0.05 * rng.random())
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if target.exists():
            content = target.read_bytes()
            assert len(content) == 400_000
            assert len(set(content)) == 1
    files.remove_leftovers(tmp_path)
    assert set(os.listdir(tmp_path)) <= {"checkpoint"}


def test_json_round_trip_keeps_order_and_converts_numpy(tmp_path):
    path = tmp_path / "new folder" / "a.json"
    files.write_json(path, {"b": np.float32(0.5), "a": np.arange(3), "ü": Path("x") / "y", "n": None})
    assert files.read_json(path) == {"b": 0.5, "a": [0, 1, 2], "ü": os.path.join("x", "y"), "n": None}
    assert list(files.read_json(path)) == ["b", "a", "ü", "n"]
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(path, {"a": float("nan")})
    with pytest.raises(TypeError, match="object is nothing that JSON can hold"):
        files.write_json(path, {"a": object()})
    assert list(files.read_json(path)) == ["b", "a", "ü", "n"], "a value that cannot be written leaves the file alone"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' stands twice"),
        (b'{"a": 1,\n  }', "line 2, column 3"),
        (b"", "no valid JSON"),
        (b"\xff\xfe\x00", "UTF-8"),
        (b"[" * 100_000, "no valid JSON"),
        (b"1" * 5000, "no valid JSON"),
    ],
)
def test_read_json_refuses(tmp_path, content, message):
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    with pytest.raises(PlanError, match=message) as caught:
        files.read_json(path, error=PlanError)
    assert str(path) in str(caught.value)


def test_read_json_of_a_missing_file_and_with_a_byte_order_mark(tmp_path):
    with pytest.raises(AutosegError, match="No such file"):
        files.read_json(tmp_path / "none.json")
    (tmp_path / "bom.json").write_bytes(b"\xef\xbb\xbf[1]")
    assert files.read_json(tmp_path / "bom.json") == [1]


def test_hashes(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert files.sha256_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.sha256_json({"b": 1, "a": [1.5, "ü"]}) == hashlib.sha256(b'{"a":[1.5,"\\u00fc"],"b":1}').hexdigest()
    assert files.sha256_json({"b": 1, "a": 2}) == files.sha256_json({"a": 2, "b": 1}) != files.sha256_json({"a": 2, "b": 2})


def test_second_holder_is_refused_with_host_process_and_remedy(tmp_path):
    with files.FoldLock(tmp_path):
        with pytest.raises(LockError) as caught:
            files.FoldLock(tmp_path).acquire()
        assert f"process {os.getpid()} on host" in str(caught.value)
        assert "delete" in str(caught.value)
    with files.FoldLock(tmp_path):  # released on exit
        pass
    assert os.listdir(tmp_path) == []


def test_lock_is_released_after_an_error(tmp_path):
    def work():
        with files.FoldLock(tmp_path / "fold.lock"):
            assert os.listdir(tmp_path) == ["fold.lock"]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL; run on Linux or macOS")
def test_lock_of_a_killed_process_is_taken_over_and_that_of_a_living_one_is_not(tmp_path, caplog):
    program = (
        "import sys, time; from autoseg.files import FoldLock\n"
        "lock = FoldLock(sys.argv[1]).acquire(); print('held', flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, env=environment)
    try:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(LockError, match=f"process {process.pid} "):
            files.FoldLock(tmp_path, stale_after=0).acquire()  # alive: its heartbeat is not asked
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    with caplog.at_level(logging.WARNING), files.FoldLock(tmp_path):
        pass
    assert f"process {process.pid} " in caplog.text
    assert "dead" in caplog.text


def foreign_lock(folder, age, **changes):
    path = folder / files.LOCK_NAME
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "namespace": "", "started": None, "token": "t", **changes}))
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def test_lock_of_another_host_is_stale_only_by_its_heartbeat(tmp_path, caplog):
    foreign_lock(tmp_path, age=500)
    with pytest.raises(LockError, match="process 1 on host elsewhere"):
        files.FoldLock(tmp_path).acquire()
    foreign_lock(tmp_path, age=700)
    with caplog.at_level(logging.WARNING), files.FoldLock(tmp_path) as lock:
        lock.check()
        assert json.loads(lock.path.read_text())["pid"] == os.getpid()
    assert "no sign of life for 70" in caplog.text


def test_a_pid_that_was_used_again_does_not_hold_the_lock(tmp_path):
    with files.FoldLock(tmp_path) as lock:
        mine = json.loads(lock.path.read_text())
    if mine["started"] is None:
        pytest.skip("this system does not tell when a process started; run on Linux")
    foreign_lock(tmp_path, age=0, **{**mine, "started": "another boot:123", "token": "t"})
    with files.FoldLock(tmp_path):
        pass


def test_an_unreadable_lock_file_counts_as_held_until_it_is_old(tmp_path):
    path = foreign_lock(tmp_path, age=0)
    path.write_text("half writ")
    with pytest.raises(LockError, match="unknown"):
        files.FoldLock(tmp_path).acquire()
    os.utime(path, (time.time() - 700, time.time() - 700))
    with files.FoldLock(tmp_path):
        pass


def test_heartbeat_renews_the_time_stamp_and_notices_a_lost_lock(tmp_path, caplog):
    lock = files.FoldLock(tmp_path, heartbeat=0.01).acquire()
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
    with files.FoldLock(tmp_path) as lock:
        child = os.fork()
        if child == 0:
            lock.release()
            os._exit(0)
        os.waitpid(child, 0)
        assert lock.path.exists()


def test_disk_full_while_locking_leaves_no_lock(tmp_path, monkeypatch):
    FailingCalls(monkeypatch, 2)
    with pytest.raises(ResourceError):
        files.FoldLock(tmp_path).acquire()
    monkeypatch.undo()
    assert os.listdir(tmp_path) == []


def test_a_lock_is_waited_for_as_long_as_asked(tmp_path, monkeypatch):
    now, slept = [0.0], []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    with files.FoldLock(tmp_path):
        monkeypatch.setattr(files.time, "monotonic", lambda: now[0])
        monkeypatch.setattr(files.time, "sleep", sleep)
        with pytest.raises(LockError, match="is at work here"):
            files.FoldLock(tmp_path, wait=1.2).acquire()
        assert sum(slept) == pytest.approx(1.2)
        monkeypatch.undo()
