"""Hashes of a case's files, and when files are read again."""

import hashlib
import os
from types import SimpleNamespace

import pytest

from autoseg.preprocessing import content
from autoseg.preprocessing.content import ContentHashes, case_key


@pytest.fixture
def case(tmp_path):
    for name in ("ct", "pet", "mask"):
        write(tmp_path / name, name)
    sources = tuple(SimpleNamespace(path=tmp_path / name, component=None) for name in ("ct", "pet"))
    return SimpleNamespace(name="a", images=sources, label=tmp_path / "mask")


def write(path, text, age=10):
    path.write_text(text)
    then = path.stat().st_mtime_ns - age * 10**9
    os.utime(path, ns=(then, then))


@pytest.fixture
def reads(monkeypatch):
    files = []

    def hashed(path):
        files.append(path.name)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr(content, "sha256_file", hashed)
    return files


@pytest.mark.parametrize("name", ["ct", "pet", "mask"])
def test_any_changed_file_changes_the_key_and_back(case, tmp_path, name):
    before = case_key(case)
    write(tmp_path / name, "other")
    assert case_key(case) != before
    write(tmp_path / name, name)
    assert case_key(case) == before


def test_channels_components_and_a_missing_mask_count(case):
    keys = {case_key(case), case_key(SimpleNamespace(images=case.images[::-1], label=case.label))}
    keys.add(case_key(SimpleNamespace(images=case.images, label=None)))
    first = SimpleNamespace(path=case.images[0].path, component=1)
    keys.add(case_key(SimpleNamespace(images=(first, case.images[1]), label=case.label)))
    assert len(keys) == 4


def test_moved_files_keep_the_key(case, tmp_path):
    before = case_key(case)
    (tmp_path / "elsewhere").mkdir()
    moved = (tmp_path / "mask").rename(tmp_path / "elsewhere" / "mask2")
    assert case_key(SimpleNamespace(images=case.images, label=moved)) == before


def test_unchanged_files_are_not_read_again(case, tmp_path, reads):
    memory = tmp_path / "memory.json"
    hashes = ContentHashes(memory)
    key = case_key(case, hashes)
    hashes.save()
    assert sorted(reads) == ["ct", "mask", "pet"]
    reads.clear()
    again = ContentHashes(memory)
    assert case_key(case, again) == key
    assert reads == []
    write(tmp_path / "mask", "MASK", age=5)
    assert case_key(case, again) != key
    assert reads == ["mask"]


def test_a_file_written_just_now_is_not_trusted_by_its_time(tmp_path, reads):
    write(tmp_path / "ct", "abc", age=0)
    hashes = ContentHashes()
    hashes.of(tmp_path / "ct")
    hashes.of(tmp_path / "ct")
    assert reads == ["ct", "ct"]


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"x": 3}', '{"/y": ["a"]}'])
def test_a_broken_memory_is_started_afresh(case, tmp_path, text):
    (tmp_path / "memory.json").write_text(text)
    assert case_key(case, ContentHashes(tmp_path / "memory.json")) == case_key(case)
