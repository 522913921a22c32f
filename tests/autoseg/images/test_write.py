"""What is written is whole, is on the image's grid as SimpleITK reads it, and tells nothing about the patient."""

import errno
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from autoseg.errors import GeometryError, ImageError, ResourceError
from autoseg.images import Geometry, corner_displacement, read_image, read_mask, to_sitk, write_image, write_mask
from autoseg.images import write as write_module

REPOSITORY = Path(__file__).parents[3]
ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")
OBLIQUE = tuple(Rotation.from_euler("xyz", [10, -20, 30], degrees=True).as_matrix().ravel())
GRID = Geometry((4, 5, 6), (3.0, 1.5, 0.75), (-12.5, 45.25, -789.0), OBLIQUE)


def labels(largest=3):
    return np.random.default_rng(0).integers(0, largest + 1, GRID.shape)


def itk_grid(path):
    image = SimpleITK.ReadImage(str(path))
    return image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection()


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_mask_comes_back_and_itk_reads_the_grid_that_itk_itself_would_have_written(tmp_path, ending):
    path, oracle = tmp_path / f"mask{ending}", tmp_path / f"itk{ending}"
    write_mask(path, labels(), GRID)
    SimpleITK.WriteImage(to_sitk(labels().astype(np.uint8), GRID), str(oracle))
    for ours, itk in zip(itk_grid(path), itk_grid(oracle), strict=True):
        np.testing.assert_allclose(ours, itk, rtol=0, atol=1e-7 if ".nii" in ending else 1e-15)
    mask = read_mask(path)
    np.testing.assert_array_equal(mask.array, labels())
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))), labels())
    assert mask.notes == ()
    assert corner_displacement(mask.geometry, GRID) < 1e-4


@pytest.mark.parametrize(
    "pattern", ["msd_hippocampus/imagesTr/*0[0-9].nii.gz", "sts_raw_grids/STS_0[13]*/*mask*.nii.gz", "totalseg_example/*.nii.gz"]
)
def test_on_real_grids_itk_reads_the_images_grid_from_the_mask(real_data, tmp_path, pattern):
    paths = sorted(path for path in real_data.glob(pattern) if path.stat().st_size < 4_000_000)[:4]
    if not paths:
        pytest.skip(f"no {pattern} in {real_data}: fetch that set")
    for path in paths:
        image = read_image(path)
        write_mask(tmp_path / "mask.nii.gz", np.zeros(image.array.shape, np.uint8), image.geometry)
        for ours, theirs in zip(itk_grid(tmp_path / "mask.nii.gz"), itk_grid(path), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.booleans())
def test_any_rotation_and_handedness_survives_nifti(tmp_path_factory, seed, mirrored):
    rotation = Rotation.random(random_state=seed).as_matrix() * (1, 1, -1 if mirrored else 1)
    grid = Geometry(GRID.shape, GRID.spacing, GRID.origin, tuple(rotation.ravel()))
    path = tmp_path_factory.getbasetemp() / "turned.nii"
    write_mask(path, labels(), grid)
    assert corner_displacement(read_mask(path).geometry, grid) < 1e-4
    data = bytearray(path.read_bytes())
    struct.pack_into("<h", data, 254, 0)  # without the sform, the qform alone must say the same
    path.write_bytes(data)
    # near a half turn the fourth number of the quaternion is the root of a difference of float32s, so no more than 3e-4 is left of it
    assert corner_displacement(read_mask(path).geometry, grid) < 0.02


@pytest.mark.parametrize("quarter_turns", range(4))
@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_half_turns_survive_the_qform(tmp_path, axis, quarter_turns):
    rotation = np.rint(Rotation.from_euler(axis, 90 * quarter_turns, degrees=True).as_matrix())
    grid = Geometry(GRID.shape, GRID.spacing, GRID.origin, tuple(rotation.ravel()))
    write_mask(tmp_path / "a.nii", labels(), grid)
    read = read_mask(tmp_path / "a.nii")
    assert read.geometry == grid
    assert read.notes == (), "qform and sform agree"


@pytest.mark.parametrize(("largest", "expected"), [(0, "uint8"), (254, "uint8"), (255, "uint16"), (65535, "uint16")])
@pytest.mark.parametrize("ending", ENDINGS)
def test_labels_of_255_and_more_take_16_bits(tmp_path, largest, expected, ending):
    array = np.zeros(GRID.shape, np.int64)
    array[0, 0, 0] = largest
    path = tmp_path / f"mask{ending}"
    write_mask(path, array, GRID)
    image = read_image(path)
    assert image.array.dtype.name == expected
    np.testing.assert_array_equal(image.array, array)


@pytest.mark.parametrize("ending", ENDINGS)
def test_images_are_float32_and_flat_ones_stay_flat(tmp_path, ending):
    path = tmp_path / f"image{ending}"
    array = np.random.default_rng(0).normal(size=GRID.shape)
    write_image(path, array, GRID)
    image = read_image(path)
    assert image.array.dtype == np.float32
    np.testing.assert_array_equal(image.array, array.astype(np.float32))
    flat = Geometry((1, 5, 6), (2.0, 2.0, 0.5), (1.0, 2.0, 0.0), dimension=2)
    write_mask(path, labels()[:1], flat)
    assert SimpleITK.ReadImage(str(path)).GetDimension() == 2
    assert read_mask(path).geometry == flat


def test_views_and_odd_types(tmp_path):
    path = tmp_path / "a.nii.gz"
    turned = labels().astype(np.uint8).transpose(2, 1, 0)[::-1].copy()[::-1].transpose(2, 1, 0)
    assert not turned.flags.c_contiguous
    write_mask(path, turned, GRID)
    np.testing.assert_array_equal(read_mask(path).array, turned)
    write_mask(path, labels() > 1, GRID)
    np.testing.assert_array_equal(read_mask(path).array, labels() > 1)
    write_mask(path, labels().astype(np.float64), GRID)
    np.testing.assert_array_equal(read_mask(path).array, labels())


def test_the_same_mask_gives_the_same_bytes_with_nothing_about_the_patient(tmp_path):
    for name in ("a.nii", "b.nii"):
        write_mask(tmp_path / name, labels(), GRID)
    for name in ("a.nii.gz", "b.nii.gz"):
        write_mask(tmp_path / name, labels(), GRID)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    data = (tmp_path / "a.nii").read_bytes()
    assert data == (tmp_path / "b.nii").read_bytes()
    # data_type and db_name; descrip and aux_file; intent_name; extension flags
    for begin, end in ((4, 32), (148, 252), (328, 344), (348, 352)):
        assert not any(data[begin:end])
    assert (tmp_path / "a.nii.gz").read_bytes()[4:8] == bytes(4), "no time of writing"
    write_mask(tmp_path / "a.mha", labels(), GRID)
    keys = {line.split(b" = ")[0] for line in (tmp_path / "a.mha").read_bytes().split(b"ElementDataFile")[0].splitlines()}
    assert not {key for key in keys if b"ITK" in key or b"Patient" in key or b"Name" in key}


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (np.full(GRID.shape, 0.5), ImageError, "whole numbers"),
        (np.full(GRID.shape, np.nan), ImageError, "whole numbers"),
        (np.full(GRID.shape, -1), ImageError, "from -1 to -1"),
        (np.full(GRID.shape, 65536), ImageError, "65536"),
        (np.zeros((5, 4, 6), int), GeometryError, r"\(5, 4, 6\).*\(4, 5, 6\)"),
    ],
)
def test_masks_that_cannot_be_written_leave_the_old_file(tmp_path, array, error, message):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(b"old")
    with pytest.raises(error, match=message):
        write_mask(path, array, GRID)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.nii.gz"]


def test_images_and_endings_that_cannot_be_written(tmp_path):
    with pytest.raises(ImageError, match="NaN"):
        write_image(tmp_path / "a.nii.gz", np.full(GRID.shape, np.nan), GRID)
    with pytest.raises(ImageError, match="endings"):
        write_mask(tmp_path / "a.mhd", labels(), GRID)
    with pytest.raises(ImageError, match="at most 32767"):
        write_mask(tmp_path / "a.nii.gz", np.zeros((1, 1, 40_000), np.uint8), Geometry((1, 1, 40_000), (1, 1, 1)))
    assert os.listdir(tmp_path) == []


def fail_at(patch, n):
    """Makes the n-th of the calls that write fail; returns the list of calls."""
    calls = []
    for name in ("open", "write", "fsync", "replace"):
        original = getattr(os, name)

        def call(*args, _original=original, _name=name, **kwargs):
            calls.append(_name)
            if len(calls) == n:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return _original(*args, **kwargs)

        patch.setattr(os, name, call)
    return calls


def message_of(function, *args):
    try:
        function(*args)
    except ResourceError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("ending", ENDINGS)
def test_failure_of_any_call_leaves_the_old_mask_or_the_new_one(tmp_path, monkeypatch, ending):
    path = tmp_path / f"mask{ending}"
    write_mask(path, labels(), GRID)
    old, new = labels(), 3 - labels()
    for n in range(1, 40):
        with monkeypatch.context() as patch:
            calls = fail_at(patch, n)
            message = message_of(write_mask, path, new, GRID)
        assert os.listdir(tmp_path) == [path.name]
        found = read_mask(path).array
        assert np.array_equal(found, old) or np.array_equal(found, new)
        if len(calls) < n:
            assert message == ""
            break
        assert str(path) in message
        write_mask(path, old, GRID)
    assert n > 3
    np.testing.assert_array_equal(read_mask(path).array, new)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes; run on Linux or macOS")
def test_a_disk_that_takes_only_a_part_is_an_error_and_leaves_the_old_file(tmp_path):
    # A limit on the size of files stands in for a full disk: the system takes a part of the write and refuses the rest.
    paths = [tmp_path / f"image{ending}" for ending in ENDINGS]
    for path in paths:
        write_mask(path, labels(), GRID)
    program = (
        "import resource, signal, sys, numpy as np\n"
        "from autoseg.errors import ResourceError\n"
        "from autoseg.images import Geometry, write_image\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "array = np.random.default_rng(0).normal(size=(20, 50, 50))\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n"
        "        write_image(path, array, Geometry(array.shape, (1, 1, 1)))\n"
        "    except ResourceError as error:\n"
        "        print(error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", program, *map(str, paths)], capture_output=True, text=True, env=environment, check=True)
    messages = done.stdout.splitlines()
    assert len(messages) == len(paths)
    for path, message in zip(paths, messages, strict=True):
        assert str(path) in message
        assert "the old file is intact" in message
        np.testing.assert_array_equal(read_mask(path).array, labels())
    assert sorted(os.listdir(tmp_path)) == sorted(path.name for path in paths)


def test_what_cannot_be_read_back_does_not_take_the_old_files_place(tmp_path, monkeypatch):
    path = tmp_path / "a.nii"
    write_mask(path, labels(), GRID)
    original = write_module._write_nifti

    def damaged(temporary, array, geometry):
        original(temporary, array, geometry)
        data = bytearray(temporary.read_bytes())
        data[-1] ^= 1
        temporary.write_bytes(data)

    monkeypatch.setattr(write_module, "_write_nifti", damaged)
    with pytest.raises(ResourceError, match="not what was written"):
        write_mask(path, 3 - labels(), GRID)
    np.testing.assert_array_equal(read_mask(path).array, labels())
    assert os.listdir(tmp_path) == ["a.nii"]
