"""Broken, odd and hostile inputs through the installed commands, with real files: exit status, message, and nothing half-written.

Numbers are those of the project's list of bad inputs. A row breaks one case of a good dataset; `status` 2 must name that case, and leave no
plan; `status` 0 must say what was noticed.
"""

import gzip
import json
import os
import re
import resource
import signal
import subprocess
import time
from pathlib import Path

import nibabel
import numpy as np
import psutil
import pytest
import SimpleITK as sitk
from tiny import ONE_THREAD, QUICK, TinyDataset, command_line

BROKEN = "case03"
DIM, PIXDIM = 40, 76
"""Byte offsets of fields in a NIfTI-1 header."""


def plain(data):
    """`data` as the bytes of an uncompressed NIfTI of case03's first channel, changed by `data(bytearray)`."""

    def make(dataset):
        path = dataset.image(BROKEN, 0)
        raw = bytearray(gzip.decompress(path.read_bytes()))
        path.write_bytes(gzip.compress(bytes(data(raw) or raw)))

    return make


def packed(change):
    def make(dataset):
        path = dataset.image(BROKEN, 0)
        path.write_bytes(change(path.read_bytes()))

    return make


def header(offset, values, kind):
    def change(raw):
        raw[offset : offset + np.dtype(kind).itemsize * len(values)] = np.asarray(values, kind).tobytes()

    return plain(change)


def array(change, channel=0):
    def make(dataset):
        values = dataset.arrays(BROKEN)[channel]
        dataset.write(change(values), dataset.image(BROKEN, channel))

    return make


def mask(change):
    def make(dataset):
        dataset.write(change(dataset.arrays(BROKEN)[2]), dataset.label(BROKEN))

    return make


def nib(change):
    """Rewrites channel 0 by nibabel after `change(image)`."""

    def make(dataset):
        path = dataset.image(BROKEN, 0)
        loaded = nibabel.load(path)
        nibabel.save(change(nibabel.Nifti1Image(np.asarray(loaded.dataobj), loaded.affine)), path)

    return make


FORM_CODES, SROW = 252, 280


def forms(codes, srow=None):
    """Sets qform_code and sform_code, and overwrites numbers of the sform: {index: value}."""

    def change(raw):
        raw[FORM_CODES : FORM_CODES + 4] = np.asarray(codes, "<i2").tobytes()
        for index, value in (srow or {}).items():
            raw[SROW + 4 * index : SROW + 4 * index + 4] = np.float32(value).tobytes()

    return plain(change)


def flipped(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]


def truncated_nii(dataset):
    for name in dataset.names:
        for path in (*(dataset.image(name, c) for c in (0, 1)), dataset.label(name)):
            path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
            path.unlink()
    path = dataset.image(BROKEN, 0).with_suffix("")
    path.write_bytes(path.read_bytes()[:2000])
    dataset.describe(file_ending=".nii")


def with_value(values, value, dtype=np.float32):
    changed = values.astype(dtype)
    changed[3, 4, 5] = value
    return changed


def other_grid(dataset):
    ct, *_ = dataset.arrays(BROKEN)
    dataset.write(ct, dataset.image(BROKEN, 0), spacing=(2.0, 1.5, 1.1))


def shifted_mask(dataset):
    *_, values = dataset.arrays(BROKEN)
    dataset.write(values, dataset.label(BROKEN), spacing=(2.0, 1.5, 1.05))


def duplicate(dataset):
    path = dataset.image(BROKEN, 0)
    path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    dataset.label(BROKEN).with_suffix("").write_bytes(gzip.decompress(dataset.label(BROKEN).read_bytes()))
    document = json.loads((dataset.folder / "dataset.json").read_text())
    cases = [
        [name, {"images": [f"imagesTr/{name}_0000.nii.gz", f"imagesTr/{name}_0001.nii.gz"], "label": f"labelsTr/{name}.nii.gz"}]
        for name in dataset.names
    ]
    listed = ", ".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in [*cases, cases[3]])
    (dataset.folder / "dataset.json").write_text(json.dumps(document)[:-1] + f', "dataset": {{{listed}}}}}')


def describe(text):
    return lambda dataset: (dataset.folder / "dataset.json").write_text(text)


def all_empty(dataset):
    for name in dataset.names:
        dataset.write(np.zeros(dataset.shape, np.uint8), dataset.label(name))


def misnamed(dataset):
    (dataset.folder / "imagesTr" / "case00_0000.NII.GZ").write_bytes(b"x")
    (dataset.folder / "imagesTr" / "notes.txt").write_text("x")


REFUSED = [
    ("1 truncated gz", packed(lambda data: data[: len(data) // 2]), BROKEN, "cut short"),
    ("2 truncated nii", truncated_nii, BROKEN, "cut short"),
    ("3 bit flip", packed(flipped), BROKEN, "damaged|cut short"),
    ("4 empty file", packed(lambda data: b""), BROKEN, "empty"),
    ("5 text", packed(lambda data: b"this is no image\n" * 50), BROKEN, "no single-file NIfTI"),
    ("7 huge header", header(DIM, [3, 32767, 32767, 32767], "<i2"), BROKEN, "bytes"),
    ("8 gzip bomb", packed(lambda data: gzip.compress(gzip.decompress(data) + bytes(50_000_000))), BROKEN, "more than its header promises"),
    ("9 dim 0", header(DIM, [3, 16, 0, 12], "<i2"), BROKEN, "16x0x12"),
    ("9 dim below 0", header(DIM, [3, 16, -20, 12], "<i2"), BROKEN, "-20"),
    ("10 pixdim 0", header(PIXDIM, [1, 1, 0, 2], "<f4"), BROKEN, "pixdim"),
    ("10 pixdim NaN", header(PIXDIM, [1, 1, np.nan, 2], "<f4"), BROKEN, "pixdim"),
    ("10 pixdim negative", header(PIXDIM, [1, 1, -1, 2], "<f4"), BROKEN, "pixdim"),
    ("12 sheared", forms([0, 1], {1: 0.4}), BROKEN, "right angles.*[Rr]esample"),
    ("15 4-D", nib(lambda i: nibabel.Nifti1Image(np.stack([i.dataobj] * 2, -1), i.affine)), BROKEN, "2 volumes"),
    ("15 complex", nib(lambda i: nibabel.Nifti1Image(np.asarray(i.dataobj).astype(np.complex64), i.affine)), BROKEN, "complex"),
    ("15 RGB", header(70, [128, 24], "<i2"), BROKEN, "RGB"),
    ("16 NaN", array(lambda a: with_value(a, np.nan)), BROKEN, "1 .*(NaN|finite)"),
    ("16 Inf", array(lambda a: with_value(a, np.inf), 1), BROKEN, "finite|[Ii]nf"),
    ("19 channels' grids differ", other_grid, BROKEN, "CT.*PET|PET.*CT"),
    ("19 channels' shapes differ", array(lambda a: a[:-1]), BROKEN, "11"),
    ("20 mask's grid differs", shifted_mask, BROKEN, "mask"),
    ("20 mask's shape differs", mask(lambda m: m[:, :-1]), BROKEN, "19"),
    ("21 fractional mask", mask(lambda m: m * np.float32(0.4)), BROKEN, "whole|integer"),
    ("22 unknown label", mask(lambda m: with_value(m, 7, np.uint8)), BROKEN, r"7 \(1 voxel"),
    ("23 labels not consecutive", lambda d: d.describe(labels={"background": 0, "ball": 2}), "dataset.json", "consecutive"),
    ("24 all masks empty", all_empty, "masks are empty", "nothing to learn"),
    ("26 missing channel", lambda d: d.image(BROKEN, 1).unlink(), BROKEN, "PET|_0001"),
    ("26 missing mask", lambda d: d.label(BROKEN).unlink(), BROKEN, "mask|label"),
    ("28 duplicate case", duplicate, BROKEN, "twice|duplicate"),
    ("30 broken JSON", describe('{"channel_names": '), "dataset.json", "JSON"),
    ("30 no object", describe("[1, 2]"), "dataset.json", "object"),
    ("30 wrong types", describe('{"channel_names": ["CT"], "labels": {"background": "zero"}, "file_ending": 5}'), "dataset.json", "labels"),
    ("30 duplicate keys", describe('{"labels": {"background": 0}, "labels": {"background": 0, "ball": 1}}'), "dataset.json", "labels"),
    ("no dataset.json", lambda d: (d.folder / "dataset.json").unlink(), "dataset.json", "no such file|not found|there is no"),
]


@pytest.mark.parametrize(("maker", "names", "message"), [pytest.param(*row[1:], id=row[0]) for row in REFUSED])
def test_refused_by_name_and_no_plan_is_written(tiny, run, maker, names, message):
    maker(tiny)
    done = run("plan", "-d", tiny.folder, "--workers", 0, status=2)
    assert names in done.stderr
    assert re.search(message, done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tiny.folder.rglob("plan.json"))
    assert not [path for path in tiny.folder.rglob("*") if path.name.endswith(".tmp")]


ODD = [
    ("6 junk after the gzip", packed(lambda data: data + b"junk"), "4 bytes of something else"),
    ("11 spacing", nib(lambda i: nibabel.Nifti1Image(i.dataobj, np.diag([150.0, 1.5, 2.0, 1.0]) @ np.eye(4))), "unusual"),
    ("13 no qform, no sform", forms([0, 0]), "neither qform nor sform"),
    ("14 qform and sform differ", forms([1, 1], {3: 50.0}), "qform|sform"),
    ("15 4-D of one volume", nib(lambda i: nibabel.Nifti1Image(np.asarray(i.dataobj)[..., None], i.affine)), ""),
    ("17 constant image", array(lambda a: np.full_like(a, 5)), "same value"),
    ("21 mask of 0.9999", mask(lambda m: m * np.float32(0.9999)), ""),
    ("24 empty mask", mask(lambda m: m * 0), "1 of 6 masks"),
    ("25 class in no case", lambda d: d.describe(labels={"background": 0, "ball": 1, "ghost": 2}), "ghost.*n/a"),
    ("25 class in one fold only", mask(lambda m: m), ""),
    ("27 misnamed files", misnamed, "NII.GZ"),
]


@pytest.mark.parametrize(("maker", "message"), [pytest.param(*row[1:], id=row[0]) for row in ODD])
def test_planned_and_noted(tiny, run, maker, message):
    maker(tiny)
    if message in ("unusual", "neither qform nor sform", "qform|sform"):  # both channels and the mask must share the odd grid
        grid = sitk.ReadImage(str(tiny.image(BROKEN, 0)))
        source = tiny.image(BROKEN, 0)
        for path, values in ((tiny.image(BROKEN, 1), tiny.arrays(BROKEN)[1]), (tiny.label(BROKEN), tiny.arrays(BROKEN)[2])):
            image = sitk.GetImageFromArray(values)
            image.CopyInformation(grid)
            sitk.WriteImage(image, str(path))
        assert source.exists()
    done = run("plan", "-d", tiny.folder, "--workers", 0, "--preset", "laptop")
    assert re.search(message, done.stderr), done.stderr
    assert (tiny.work / "default" / "plan.json").exists()


def test_25_a_class_in_one_fold_only_is_told(tiny, run):
    tiny.describe(labels={"background": 0, "ball": 1, "rare": 2})
    mask(lambda m: with_value(m, 2, np.uint8))(tiny)
    assert "only in cases of fold" in run("plan", "-d", tiny.folder, "--workers", 0, "--preset", "laptop").stderr


def test_all_bad_cases_come_in_one_list(tiny, run):
    array(lambda a: with_value(a, np.nan))(tiny)
    tiny.write(tiny.arrays("case01")[2][:-1], tiny.label("case01"))
    tiny.image("case05", 1).write_bytes(b"")
    done = run("plan", "-d", tiny.folder, "--workers", 2, status=2)
    assert all(name in done.stderr for name in ("3 of 6 cases", "case01", BROKEN, "case05"))
    run("plan", "-d", tiny.folder, "--workers", 0, "--preset", "laptop", "--exclude", "case01", BROKEN, "case05")


def test_29_a_patient_on_both_sides_of_a_fold(tiny, run):
    rows = [f"{name},{'P1' if name in ('case00', 'case01') else name},A" for name in tiny.names]
    (tiny.folder / "cases.csv").write_text("case,patient,centre\n" + "\n".join(rows) + "\n")
    splits = tiny.folder / "splits_final.json"
    splits.write_text(json.dumps([{"train": tiny.names[1:], "val": ["case00"]}]))
    done = run("plan", "-d", tiny.folder, "--workers", 0, "--folds", splits, status=2)
    assert "P1" in done.stderr


@pytest.fixture
def inputs(tmp_path):
    """A folder of new cases to predict: one good, one to be broken."""
    dataset = TinyDataset(tmp_path / "New", cases=0, seed=3)
    for name in ("good", BROKEN):
        dataset.add(name)
    return dataset


def predict(run, trained, inputs, out, *more, status=0):
    return run("predict", "-d", trained.folder, "-i", inputs.folder / "imagesTr", "-o", out, "--no-mirroring", *more, status=status)


PREDICTION_REFUSED = [
    row
    for row in REFUSED
    if row[0].split()[0] in {"1", "3", "4", "5", "7", "8", "9", "10", "12", "15", "16", "19", "26"} and "mask" not in row[0]
]


@pytest.mark.slow
def test_one_bad_case_does_not_stop_the_others(run, trained, tmp_path):
    """Every refused image as a case of its own in one folder, beside a good one."""
    whole = TinyDataset(tmp_path / "New", cases=0, seed=3)
    whole.add("good")
    for number, (_, maker, _, _) in enumerate(PREDICTION_REFUSED):
        single = TinyDataset(tmp_path / f"single{number}", cases=0, seed=3)
        single.add(BROKEN)
        maker(single)
        for channel in (0, 1):
            path = single.image(BROKEN, channel)
            if path.exists():
                path.rename(whole.image(f"bad{number:02d}", channel))
    out = tmp_path / "masks"
    done = predict(run, trained, whole, out, "--json", tmp_path / "result.json", status=3)
    assert sorted(path.name for path in out.glob("*.nii.gz")) == ["good.nii.gz"]
    failures = "\n".join(json.loads((tmp_path / "result.json").read_text())["failures"])
    for number, (title, _, _, message) in enumerate(PREDICTION_REFUSED):
        lines = [line for line in failures.splitlines() if f"bad{number:02d}" in line]
        assert lines, title
        assert re.search(message, " ".join(lines)), title
    assert "Traceback" not in done.stderr


def test_16_nonfinite_voxels_are_replaced_only_when_asked(run, trained, inputs, tmp_path):
    array(lambda a: with_value(a, np.nan))(inputs)
    predict(run, trained, inputs, tmp_path / "a", status=3)
    done = predict(run, trained, inputs, tmp_path / "b", "--replace-nonfinite")
    assert "1 " in done.stderr
    assert "replaced" in done.stderr
    assert (tmp_path / "b" / f"{BROKEN}.nii.gz").exists()


def test_17_18_constant_and_all_air_images_give_masks(run, trained, inputs, tmp_path):
    array(lambda a: np.full_like(a, 5))(inputs)
    inputs.add("air")
    for channel in (0, 1):
        inputs.write(np.zeros(inputs.shape, np.float32), inputs.image("air", channel))
    done = predict(run, trained, inputs, tmp_path)
    assert not sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "air.nii.gz"))).any()
    assert set(np.unique(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / f"{BROKEN}.nii.gz"))))) <= {0, 1}
    assert "air" in done.stderr


@pytest.mark.parametrize("shape", [(1, 20, 16), (5, 4, 3), (40, 9, 70)])
def test_31_one_slice_and_smaller_than_the_patch(run, trained, tmp_path, shape):
    inputs = TinyDataset(tmp_path / "New", cases=0, shape=shape)
    inputs.add("odd")
    predict(run, trained, inputs, tmp_path / "masks")
    assert sitk.ReadImage(str(tmp_path / "masks" / "odd.nii.gz")).GetSize() == shape[::-1]


def test_32_an_image_beyond_memory_is_refused_with_the_estimate_before_it_is_read(run, trained, inputs, tmp_path):
    for channel in (0, 1):
        raw = bytearray(gzip.decompress(inputs.image(BROKEN, channel).read_bytes())[:352])
        raw[DIM : DIM + 8] = np.asarray([3, 8000, 8000, 1000], "<i2").tobytes()
        path = inputs.image(BROKEN, channel).with_suffix("")
        with path.open("wb") as file:
            file.write(raw)
            file.truncate(352 + 8000 * 8000 * 1000 * 4)  # sparse: takes no disk
        inputs.image(BROKEN, channel).unlink()
    done = predict(run, trained, inputs, tmp_path / "masks", status=3)
    assert BROKEN in done.stderr
    assert re.search(r"\d Gi?B", done.stderr)
    assert (tmp_path / "masks" / "good.nii.gz").exists()


def test_33_a_full_disk_leaves_the_old_mask(run, trained, inputs, tmp_path):
    """A file-size limit stands in for a full disk: the write fails in the middle, as it does there."""
    out = tmp_path / "masks"
    predict(run, trained, inputs, out)
    before = {path.name: path.read_bytes() for path in out.glob("*.nii.gz")}

    def small_files():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))

    command = command_line("predict", "-d", trained.folder, "-i", inputs.folder / "imagesTr", "-o", out, "--no-mirroring")
    # without the test run's own coverage, which would want to write, too
    environment = {key: value for key, value in os.environ.items() if not key.startswith("COV")} | ONE_THREAD
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=small_files, env=environment, check=False)
    assert done.returncode in (1, 3)
    assert "Traceback" not in done.stderr
    assert {path.name: path.read_bytes() for path in out.glob("*.nii.gz")} == before
    assert sorted(path.name for path in out.iterdir() if path.suffix not in {".jsonl", ".csv"}) == sorted(before)


def test_35_a_killed_worker_is_named_and_its_case_tried_again(tmp_path, run):
    dataset = TinyDataset(tmp_path / "Tiny", cases=30)
    process = subprocess.Popen(
        command_line("plan", "-d", dataset.folder, "--workers", 2, "--preset", "laptop"),
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | ONE_THREAD,
    )
    killed = False
    for _ in range(600):
        time.sleep(0.05)
        children = (
            [c for c in psutil.Process(process.pid).children() if "LokyProcess" in " ".join(c.cmdline())] if process.poll() is None else []
        )
        if children:
            time.sleep(0.5)
            children[0].kill()
            killed = True
            break
    error = process.communicate(timeout=300)[1]
    assert killed
    assert process.returncode == 0, error
    assert "SIGKILL" in error or "killed" in error


def test_36_a_corrupt_newest_checkpoint_falls_back_and_says_so(tiny, run):
    run("plan", "-d", tiny.folder, "--workers", 0, "--preset", "laptop")
    run("train", 0, "-d", tiny.folder, *QUICK, "--workers", 0)
    fold = tiny.work / "default" / "3d_fullres" / "cv5" / "fold_0"
    newest = max(fold.glob("checkpoint-*"), key=lambda path: path.stat().st_mtime_ns)
    newest.write_bytes(newest.read_bytes()[:-100])
    longer = ("--epochs", 3, "--iterations", 3, "--set", "training.validation_iterations=1")
    assert "Falling back" in run("train", 0, "-d", tiny.folder, *longer, "--workers", 0).stderr


def test_39_two_trainings_in_one_folder_ctrl_c_and_a_folder_that_cannot_be_written(tiny, run):
    run("plan", "-d", tiny.folder, "--workers", 0, "--preset", "laptop")
    long = ("--epochs", 100, "--iterations", 50, "--set", "training.validation_iterations=0")
    command = command_line("train", 0, "-d", tiny.folder, *long, "--workers", 0)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | ONE_THREAD) as first:
        for line in first.stderr:
            if "training and" in line:
                break
        done = run("train", 0, "-d", tiny.folder, *QUICK, "--workers", 0, status=2)
        assert str(first.pid) in done.stderr
        time.sleep(2)
        first.send_signal(signal.SIGINT)
        first.stderr.read()
        assert first.wait(timeout=120) == 130
    fold = tiny.work / "default" / "3d_fullres" / "cv5" / "fold_0"
    assert list(fold.glob("checkpoint-*"))
    assert not (fold / "lock.json").exists()
    blocked = run("plan", "-d", tiny.folder, "--work", "/proc/autoseg", status=2)
    assert "--work" in blocked.stderr


def test_37_a_pickle_and_a_class_name_are_refused(run, trained, inputs, tmp_path):
    import shutil

    model = tmp_path / "model"
    shutil.copytree(trained.work / "default" / "3d_fullres" / "cv5", model)
    (model / "fold_0" / "weights.pth").write_bytes(b"\x80\x04.")
    done = run("predict", "-m", model, "-i", inputs.folder / "imagesTr", "-o", tmp_path / "out", status=2)
    assert "weights.pth" in done.stderr
    (model / "fold_0" / "weights.pth").unlink()
    plan = model / "plan.json"
    plan.write_text(plan.read_text().replace('"kind": "unet"', '"kind": "os.system"', 1))
    done = run("predict", "-m", model, "-i", inputs.folder / "imagesTr", "-o", tmp_path / "out", status=2)
    assert "plan.json" in done.stderr
    assert not Path(tmp_path / "out").exists() or not list((tmp_path / "out").glob("*.nii.gz"))
