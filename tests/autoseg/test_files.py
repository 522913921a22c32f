"""Atomic writing under injected faults, reading and hashes."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from failing_calls import FailingCalls

from autoseg import files
from autoseg.errors import AutosegError, PlanError, ResourceError

REPOSITORY = Path(__file__).parents[2]


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
    (tmp_path / f"{files.TEMPORARY_PREFIX}0-model").mkdir()  # what a killed `new_folder` leaves
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
