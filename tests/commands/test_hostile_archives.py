"""autoseg_convert import-model against archives that somebody made to do harm, or that were damaged: a whole model or nothing at all."""

import errno
import io
import json
import os
import pickle
import random
import shutil
import signal
import struct
import zipfile
import zlib
from pathlib import Path

import pytest

from autoseg.commands import convert
from autoseg.inference import model_archive
from autoseg.inference.model_exchange import export_model

GOLDEN = Path(__file__).parents[1] / "golden" / "model-1" / "model"


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """The bytes of an honest archive."""
    path = tmp_path_factory.mktemp("packed") / "model.zip"
    export_model(GOLDEN, path)
    return path.read_bytes()


@pytest.fixture
def imported(tmp_path, monkeypatch, capsys):
    """imported(bytes) -> (exit status, what was said) of the command in this process; checks that a refusal leaves nothing behind."""
    monkeypatch.setattr("autoseg.commands.entry._start_log", lambda verbose: None)
    before = signal.getsignal(signal.SIGTERM)
    inside = tmp_path / "inside"
    inside.mkdir()

    def call(data, target="model"):
        archive = inside / "received.zip"
        archive.write_bytes(data)
        with pytest.raises(SystemExit) as end:
            convert.main(["import-model", str(archive), str(inside / target)])
        said = capsys.readouterr().err
        if end.value.code:
            assert said.startswith("error: ")
            assert [path.name for path in inside.iterdir()] == ["received.zip"]
            assert [path.name for path in tmp_path.iterdir()] == ["inside"]
        return end.value.code, said

    yield call
    signal.signal(signal.SIGTERM, before)


def entries_of(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(entry, archive.read(entry)) for entry in archive.infolist()]


def archive_of(entries):
    """Bytes of an archive of (ZipInfo or name, content)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for entry, content in entries:
            archive.writestr(entry, content)
    return buffer.getvalue()


def with_entry(data, name, content=b"x", **attributes):
    entry = zipfile.ZipInfo(name)
    entry.filename = name  # as it is: the constructor cuts at a NUL
    for key, value in attributes.items():
        setattr(entry, key, value)
    return archive_of([*entries_of(data), (entry, content)])


def with_content(data, changed, *, manifest=None):
    """The archive with other contents, and a manifest that agrees with them, as a forger would make it."""
    from autoseg.inference import model_manifest

    contents = {entry.filename: content for entry, content in entries_of(data)} | changed
    contents = {name: content for name, content in contents.items() if content is not None}
    listed = {name: model_manifest.measure(content) for name, content in contents.items() if name != model_manifest.NAME}
    contents[model_manifest.NAME] = json.dumps(model_manifest.document(listed)).encode() if manifest is None else manifest
    return archive_of(contents.items())


def test_an_honest_archive_is_imported_whole(packed, imported):
    status, said = imported(packed)
    assert (status, said) == (0, "")


def test_a_model_zipped_by_hand_in_a_folder_with_other_files_is_imported_without_these(imported, tmp_path, capsys):
    shutil.copytree(GOLDEN, tmp_path / "inside" / "by_hand" / "ball")
    (tmp_path / "inside" / "by_hand" / "ball" / "fold_0" / "logbook.jsonl").write_text("{}")
    path = Path(shutil.make_archive(str(tmp_path / "inside" / "hand"), "zip", tmp_path / "inside" / "by_hand"))
    data = path.read_bytes()
    assert imported(data)[0] == 0
    found = {p.relative_to(tmp_path / "inside" / "model").as_posix() for p in (tmp_path / "inside" / "model").rglob("*") if p.is_file()}
    assert found == {path.relative_to(GOLDEN).as_posix() for path in GOLDEN.rglob("*") if path.is_file()}


NAMES = {
    "../evil": "points out of it",
    "/evil": "points out of it",
    "a/../../evil": "points out of it",
    "fold_0/../../../evil": "points out of it",
    "..\\evil": "points out of it",
    "a\\..\\..\\evil": "points out of it",
    "C:evil": "points out of it",
    "C:/evil": "points out of it",
    "\\\\server\\share": "points out of it",
    "evil\x00.json": "control characters",
    "evil\n.json": "control characters",
    "\u202enosj.evil": "control characters",
    "./plan.json": "read as another",
    "fold_0//evil": "read as another",
    "plan.json.": "read as another",
    "plan.json ": "read as another",
    "CON": "read as another",
    "fold_0/nul.json": "read as another",
    "x" * 500: "a name of 500 letters",
    "PLAN.JSON": "twice",
    "Fold_0/model.safetensors": "twice",
    "plan.json/evil": "twice",
    "fold_0/model.safetensors/": "twice",
    "weights.pth": "pickled",
    "fold_0/MODEL.PKL": "pickled",
}


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_names_that_reach_out_deceive_or_collide(name, packed, imported):
    status, said = imported(with_entry(packed, name, b"" if name.endswith("/") else b"x"))
    assert status == 2
    assert NAMES[name] in said


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["plan.json", "manifest.json", "fold_0/model.safetensors"])
def test_a_name_that_stands_twice(name, packed, imported):
    status, said = imported(with_entry(packed, name, b"{}"))
    assert status == 2
    assert f"holds '{name}' twice" in said


def test_names_that_are_one_name_on_some_disks(packed, imported):
    status, said = imported(with_entry(with_entry(packed, "\u00e9.txt"), "e\u0301.txt"))
    assert status == 2
    assert "twice" in said


@pytest.mark.parametrize(
    ("mode", "said"), [(0o120777, "a link"), (0o010644, "no plain file"), (0o020644, "no plain file"), (0o060644, "no plain file")]
)
@pytest.mark.parametrize("name", ["extra", "metadata.json"])
def test_links_pipes_and_devices(name, mode, said, packed, imported):
    others = [(entry, content) for entry, content in entries_of(packed) if entry.filename != name]
    status, found = imported(with_entry(archive_of(others), name, b"/etc/passwd", external_attr=mode << 16))
    assert status == 2
    assert said in found


def test_a_link_to_a_folder_that_a_file_would_be_written_through(packed, imported):
    linked = with_entry(packed, "fold_1", b"/tmp", external_attr=0o120777 << 16)
    status, said = imported(with_entry(linked, "fold_1/evil"))
    assert status == 2
    assert "a link" in said


def unicode_path(name, other):
    """Info-ZIP's extra field that gives a file another name, valid for `name`."""
    content = struct.pack("<BL", 1, zlib.crc32(name.encode())) + other.encode()
    return struct.pack("<HH", 0x7075, len(content)) + content


@pytest.mark.parametrize("other", ["../../evil", "plan.json", "weights.pth", "\u00e9.txt"])
def test_another_name_in_the_extra_fields(other, packed, imported):
    """Readers that know the field take it for the name; those that do not take the plain one."""
    before = struct.pack("<HHL", 0x5455, 4, 0)  # a time stamp in front of it
    status, said = imported(with_entry(packed, "notes.txt", extra=before + unicode_path("notes.txt", other)))
    assert status == 2
    assert "holds 'notes.txt', which is given another name beside this one" in said


def test_the_same_name_in_the_extra_fields_is_harmless(packed, imported):
    assert imported(with_entry(packed, "notes.txt", extra=unicode_path("notes.txt", "notes.txt")))[0] == 0


def test_a_list_of_files_that_would_fill_the_memory(packed, imported, monkeypatch):
    """It is refused by its size, before the names in it are taken apart."""
    monkeypatch.setattr("autoseg.inference.model_archive.MAX_DIRECTORY_BYTES", 300)
    monkeypatch.setattr(zipfile.ZipInfo, "_decodeExtra", lambda *given: pytest.fail("the list was read"))
    status, said = imported(packed)
    assert status == 2
    assert "its list of files takes 0 MiB; a model's takes at most 0" in said


def test_many_models_inside_one_another_are_judged_in_one_pass(packed, imported, monkeypatch):
    """Each file is looked at once a level, not once for each of as many folders."""
    looked = []
    by_folder = model_archive._by_folder
    monkeypatch.setattr(model_archive, "_by_folder", lambda inside: looked.append(len(inside)) or by_folder(inside))
    ensemble = json.dumps({"schema": "autoseg-ensemble/1", "members": ["m"] * 31, "postprocessing": []}).encode()
    contents = {entry.filename: content for entry, content in entries_of(packed)}
    members = {f"member_{number}/{name}": content for number in range(1, 31) for name, content in contents.items()}
    data = with_content(packed, {"ensemble.json": ensemble})
    status, said = imported(archive_of([*((entry.filename, content) for entry, content in entries_of(data)), *members.items()]))
    assert (status, said) == (0, "")
    assert sum(looked) <= 2 * (len(contents) + 1 + len(members))


def test_a_bomb_by_its_ratio(packed, imported):
    for name in ("extra.txt", "metadata.json"):
        others = [(entry, content) for entry, content in entries_of(packed) if entry.filename != name]
        status, said = imported(with_entry(archive_of(others), name, bytes(8 << 20), compress_type=zipfile.ZIP_DEFLATED))
        assert status == 2
        assert "times its" in said


def test_a_bomb_of_overlapping_files(packed, imported):
    """Many entries of the directory that all point to one file's bytes."""
    data = with_entry(packed, "one", random.Random(1).randbytes(5000))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        one, start = archive.getinfo("one"), archive.start_dir
    record = central_records(data, start)[-1]
    more = b"".join(record.replace(b"one", f"{number:03d}".encode()) for number in range(200))
    forged = rebuilt(data, start, [*central_records(data, start), more], count=len(central_records(data, start)) + 200)
    assert one.file_size == 5000
    status, said = imported(forged)
    assert status == 2
    assert "shares bytes with another file" in said


@pytest.mark.parametrize("size", [1, 100, 3 << 30, 0xFFFFFFFE])
def test_a_size_that_is_not_the_announced_one(size, packed, imported):
    """Smaller than what comes out, a little larger, and gigabytes, in the directory alone: it is what readers go by."""
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        start, names = archive.start_dir, archive.namelist()
    records = central_records(packed, start)
    index = names.index("plan.json")
    records[index] = records[index][:24] + struct.pack("<L", size) + records[index][28:]
    status, said = imported(rebuilt(packed, start, records))
    assert status == 2
    assert "plan.json" in said


def test_too_many_files_or_bytes(packed, imported, monkeypatch):
    monkeypatch.setattr("autoseg.inference.archive_directory.MAX_ENTRIES", 5)
    status, said = imported(packed)
    assert (status, "a model has at most 5" in said) == (2, True)
    monkeypatch.undo()
    monkeypatch.setattr("autoseg.commands.entry._start_log", lambda verbose: None)
    monkeypatch.setattr("autoseg.inference.archive_directory.MAX_UNPACKED_BYTES", 1000)
    status, said = imported(packed)
    assert (status, "would unpack to" in said) == (2, True)


def test_a_disk_that_is_full_before_and_while_writing(packed, imported, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
        status, said = imported(packed)
        assert (status, "are free" in said) == (2, True)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    status, said = imported(packed)
    assert status == 1
    assert "MiB are free on" in said


def test_encrypted_and_unusual_compression(packed, imported):
    start = zipfile.ZipFile(io.BytesIO(packed)).start_dir
    records = central_records(packed, start)
    records[1] = records[1][:8] + struct.pack("<H", 1) + records[1][10:]
    status, said = imported(rebuilt(packed, start, records))
    assert (status, "encrypted" in said) == (2, True)
    status, said = imported(with_entry(packed, "more", b"y" * 50, compress_type=zipfile.ZIP_LZMA))
    assert (status, "packed with method 14" in said) == (2, True)


def test_contents_that_the_manifest_does_not_vouch_for(packed, imported):
    contents = {entry.filename: content for entry, content in entries_of(packed)}
    weights = bytearray(contents["fold_0/model.safetensors"])
    weights[-5] ^= 1
    for changed, said in (
        ({"fold_0/model.safetensors": bytes(weights)}, "fold_0/model.safetensors has another SHA-256"),
        ({"plan.json": contents["plan.json"].replace(b"27.464", b"27.465")}, "plan.json has another SHA-256"),
        ({"README.md": b"trust me"}, "README.md has 8 bytes where"),
        ({"plan.json": None, "a/plan.json": contents["plan.json"]}, "manifest.json missing"),
        ({"fingerprint.json": None}, "fingerprint.json is missing"),
        ({"fold_1/model.safetensors": bytes(weights)}, "fold_1/model.safetensors is not listed"),
        ({"manifest.json": None}, "manifest.json missing"),
        ({"plan.json": None}, "there is no plan.json in it"),
    ):
        files = {name: content for name, content in (contents | changed).items() if content is not None}
        status, found = imported(archive_of(files.items()))
        assert (status, said in found) == (2, True), found


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"{}",
        b"[" * 100_000,
        b'{"schema": "autoseg-manifest/1", "files": 3}',
        b'{"schema": "autoseg-manifest/1", "files": {}, "files": {}}',
        b'{"schema": "autoseg-manifest/1", "files": {"../../evil": {"size": 1, "sha256": "0"}}}',
        b'{"schema": "autoseg-manifest/9", "files": {}}',
        b'{"schema": "autoseg-manifest/1", "files": {"plan.json": {"size": [], "sha256": {}}}}',
        b"\xff\xfe",
    ],
)
def test_a_manifest_that_is_none(manifest, packed, imported):
    status, said = imported(with_content(packed, {}, manifest=manifest))
    assert status == 2
    assert "manifest" in said


def test_a_forged_model_whose_manifest_agrees(packed, imported):
    """Nothing in it runs, and what does not fit the closed schemas is refused."""

    class Harm:
        def __reduce__(self):
            return (open, ("executed", "w"))

    contents = {entry.filename: content for entry, content in entries_of(packed)}
    plan = json.loads(contents["plan.json"])
    plan["configurations"]["3d_fullres"]["network"]["network_class_name"] = "os.system"
    dataset = json.loads(contents["dataset.json"]) | {"labels": {"background": 0, "other": 1}}
    for changed, said in (
        ({"plan.json": json.dumps(plan).encode()}, "network_class_name: is not a known field"),
        ({"plan.json": contents["plan.json"].replace(b"autoseg-plan/1", b"autoseg-plan/99")}, "Install an autoseg release that reads"),
        ({"dataset.json": json.dumps(dataset).encode()}, "labels or channels"),
        ({"metadata.json": b"[1]"}, "metadata.json: 'schema' must be"),
        ({"fold_0/model.safetensors": pickle.dumps(Harm())}, "not the weights of the plan's network"),
        ({"fold_0/model.safetensors": struct.pack("<Q", 1 << 62)}, "not the weights of the plan's network"),
        ({"fold_0/model.safetensors": None}, "no fold is finished"),
    ):
        status, found = imported(with_content(packed, changed))
        assert (status, said in found) == (2, True), found
        assert "autoseg-tmp" not in found


def test_a_plan_of_a_huge_network_takes_no_memory(packed, imported):
    contents = {entry.filename: content for entry, content in entries_of(packed)}
    plan = json.loads(contents["plan.json"])
    network = plan["configurations"]["3d_fullres"]["network"]
    network["features"] = [1 << 26 for _ in network["features"]]  # each convolution's weights: 5 x 10^17 bytes
    status, said = imported(with_content(packed, {"plan.json": json.dumps(plan).encode()}))
    assert status == 2
    assert "these are not the weights of the plan's network" in said


@pytest.mark.parametrize("ending", ["/../../evil.nii.gz", "\\..\\evil.nii.gz", "", ".txt"])
def test_masks_that_would_be_written_elsewhere(ending, packed, imported):
    """The plan names the ending of masks, which becomes a part of their paths."""
    contents = {entry.filename: content for entry, content in entries_of(packed)}
    changed = {name: json.dumps(json.loads(contents[name]) | {"file_ending": ending}).encode() for name in ("plan.json", "dataset.json")}
    status, said = imported(with_content(packed, changed))
    assert status == 2
    assert "file_ending" in said


@pytest.mark.parametrize("name", ["plan.json", "dataset.json", "fingerprint.json", "metadata.json"])
@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a":' * 100_000, b"null", b"{}", b"\xff", b""], ids=lambda content: content[:5])
def test_documents_that_are_none(name, content, packed, imported):
    status, said = imported(with_content(packed, {name: content}))
    assert status == 2
    assert name in said


@pytest.mark.parametrize("change", [{"shape": [0, 9, 9]}, {"shape": [9, -1, 9]}, {"spacing": [0, 1, 1]}, {"foreground": [], "body": []}])
def test_a_forged_fingerprint(change, packed, imported):
    """Shift checks take logarithms of it, and look up the plan's channels in it."""
    contents = {entry.filename: content for entry, content in entries_of(packed)}
    document = json.loads(contents["fingerprint.json"])
    document["cases"] = [case | change for case in document["cases"]]
    if "body" in change:
        document["channels"] = []
        document["cases"] = [case | {"measures": []} for case in document["cases"]]
    status, said = imported(with_content(packed, {"fingerprint.json": json.dumps(document).encode()}))
    assert status == 2
    assert "fingerprint.json" in said


def test_archives_that_are_none(imported, packed):
    several = archive_of([("a/plan.json", b""), ("b/plan.json", b"")])
    for data in (b"", b"PK\x05\x06" + bytes(18), b"nothing", packed[:-30], packed[:1000], several):
        assert imported(data)[0] == 2


def test_damage_anywhere_leaves_a_whole_model_or_nothing(packed, imported, tmp_path):
    rng = random.Random(7)
    expected = {path.name: path.read_bytes() for path in GOLDEN.rglob("*.safetensors")}
    imports = 0
    for number in range(60):
        data = bytearray(packed)
        first = len(data) - 700 if number % 2 else 0  # half of the damage in the directory at the end
        for _ in range(rng.choice([1, 1, 4])):
            data[rng.randrange(first, len(data))] ^= 1 << rng.randrange(8)
        status, _ = imported(bytes(data))
        assert status in (0, 2)
        if status == 0:  # the byte stood in a time stamp or a comment
            imports += 1
            target = tmp_path / "inside" / "model"
            assert {path.name: path.read_bytes() for path in target.rglob("*.safetensors")} == expected
            shutil.rmtree(target)
    assert imports < 50


def test_nothing_is_replaced(packed, imported, tmp_path, capsys):
    target = tmp_path / "inside" / "model"
    target.mkdir()
    assert imported(packed)[0] == 0  # an empty folder may be filled
    before = {path: path.stat().st_mtime_ns for path in target.rglob("*")}
    with pytest.raises(SystemExit) as end:
        convert.main(["import-model", str(tmp_path / "inside" / "received.zip"), str(target)])
    assert end.value.code == 2
    assert "is not replaced" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in target.rglob("*")} == before


def test_an_interrupt_leaves_nothing(packed, imported, tmp_path, monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    archive = tmp_path / "inside" / "received.zip"
    archive.write_bytes(packed)
    for place in ("rename", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(os, place, interrupted)
            with pytest.raises(SystemExit) as end:
                convert.main(["import-model", str(archive), str(tmp_path / "inside" / "model")])
        assert end.value.code == 130
        assert [path.name for path in (tmp_path / "inside").iterdir()] == ["received.zip"]


def test_the_installed_command_refuses_and_predicting_does_too(packed, run, tmp_path):
    (tmp_path / "bad.zip").write_bytes(with_entry(packed, "../evil"))
    said = run("convert", "import-model", tmp_path / "bad.zip", tmp_path / "model", status=2).stderr
    assert "points out of it; refused before anything was written" in said
    images = GOLDEN.parent / "images"
    said = run("predict", "-m", tmp_path / "bad.zip", "-i", images, "-o", tmp_path / "masks", status=2).stderr
    assert "points out of it" in said
    assert [path.name for path in tmp_path.iterdir()] == ["bad.zip"]
    assert not (tmp_path.parent / "evil").exists()


def central_records(data, start):
    """The directory's records, one a file."""
    records, place = [], start
    while data[place : place + 4] == b"PK\x01\x02":
        lengths = struct.unpack("<HHH", data[place + 28 : place + 34])
        records.append(data[place : place + 46 + sum(lengths)])
        place += len(records[-1])
    return records


def rebuilt(data, start, records, count=None):
    """The archive with another directory."""
    directory = b"".join(records)
    count = len(records) if count is None else count
    return data[:start] + directory + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, len(directory), start, 0)
