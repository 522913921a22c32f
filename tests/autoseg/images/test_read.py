"""Good files: what is read is what SimpleITK reads, for every format, voxel type, byte order and scaling; and for the real data."""

import gzip
import itertools
import math
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from scipy.spatial.transform import Rotation

from autoseg.errors import ImageError
from autoseg.images import from_sitk, read_channels, read_header, read_image, read_mask, to_sitk
from autoseg.images.payload import read_payload

REAL_FILES = (
    "msd_hippocampus/imagesTr/hippocampus_00*.nii.gz",
    "msd_hippocampus/labelsTr/hippocampus_00*.nii.gz",
    "sts_raw_grids/*/*.nii.gz",
    "sts_petct_petgrid/imagesTr/*1_000*.nii.gz",
    "totalseg_example/*.nii.gz",
    "ibsi/**/*.nii.gz",
    "pyradiomics/data/*.nrrd",
    "hntsmrg_metric_check/prediction_masks/*.nii.gz",
)


def assert_reads_as_itk(path):
    ours, itk = read_image(path), SimpleITK.ReadImage(str(path))
    array = SimpleITK.GetArrayFromImage(itk)
    assert ours.array.dtype == array.dtype
    assert ours.array.flags.writeable
    np.testing.assert_array_equal(ours.array, array.reshape(ours.array.shape))
    count = itk.GetDimension()
    assert ours.geometry.dimension == count
    assert ours.geometry.shape[::-1][:count] == itk.GetSize()
    assert ours.geometry.spacing[::-1][:count] == itk.GetSpacing()
    assert ours.geometry.origin[:count] == itk.GetOrigin()
    direction = np.reshape(ours.geometry.direction, (3, 3))[:count, :count]
    assert tuple(direction.ravel()) == itk.GetDirection()
    header = read_header(path)
    assert (header.geometry, header.dtype, header.components) == (ours.geometry, ours.array.dtype.name, 1)
    assert (header.shape, header.spacing) == (ours.array.shape, ours.geometry.spacing)
    return ours


@pytest.mark.parametrize("pattern", REAL_FILES)
def test_real_files_read_as_itk_reads_them(real_data, pattern):
    paths = sorted(real_data.glob(pattern))
    if not paths:
        pytest.skip(f"no {pattern} in {real_data}: fetch that set")
    small = [path for path in paths if math.prod(read_header(path).shape) < 3_000_000]
    for path in small[:4] or paths[:1]:
        assert_reads_as_itk(path)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
@pytest.mark.parametrize("scaling", [{}, {"slope": 1.7, "inter": -3.25}])
def test_voxel_types_byte_orders_and_scaling(write_nifti, kind, order, scaling):
    values = np.arange(-60, 60) * (1_000_003 if kind[1] in "48" else 1)
    array = (values if kind[0] in "if" else np.abs(values)).astype(kind).reshape(4, 5, 6)
    image = assert_reads_as_itk(write_nifti(array, order=order, **scaling))
    if not scaling:
        np.testing.assert_array_equal(image.array, array)
        assert image.array.dtype.isnative


@pytest.mark.parametrize(
    ("slope", "inter"),
    [(1, 3), (0, 5), (-1, 0), (1e-9, 0), (1 + 1e-6, 0), (math.nan, math.nan), (2, math.nan), (math.inf, 0), (math.nan, 5)],
)
def test_odd_scalings_are_read_as_itk_reads_them(write_nifti, ramp, slope, inter):
    assert_reads_as_itk(write_nifti(ramp, slope=slope, inter=inter))


def itk_image(dimension=3, dtype=np.int16):
    array = np.random.default_rng(0).integers(0, 200, (4, 5, 6)).astype(dtype)
    image = SimpleITK.GetImageFromArray(array[0] if dimension == 2 else array)
    image.SetSpacing((0.7, 1.3, 3.1)[:dimension])
    image.SetOrigin((-12.3, 45.6, -789.01)[:dimension])
    rotation = Rotation.from_euler("xyz", [10, -20, 30] if dimension == 3 else [0, 0, 30], degrees=True).as_matrix()
    image.SetDirection(rotation[:dimension, :dimension].ravel())
    return image


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha", ".mhd"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64, np.int64])
def test_formats(tmp_path, dimension, compressed, ending, dtype):
    path = tmp_path / f"image{ending}"
    SimpleITK.WriteImage(itk_image(dimension, dtype), str(path), useCompression=compressed)
    image = assert_reads_as_itk(path)
    assert image.notes == ()
    if dimension == 2:
        assert image.geometry.spacing[0] == max(image.geometry.spacing[1:])


def test_big_endian_nrrd_and_mha(tmp_path, ramp):
    voxels = ramp.astype(">i2").tobytes()
    (tmp_path / "a.nrrd").write_bytes(
        b"NRRD0004\n# comment: here\ntype: short\ndimension: 3\nsizes: 6 5 4\nspacings: 1 2 3\nendian: big\nencoding: raw\n\n" + voxels
    )
    (tmp_path / "a.mha").write_bytes(
        b"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = True\nElementSpacing = 1 2 3\nDimSize = 6 5 4\n"
        b"ElementType = MET_SHORT\nElementDataFile = LOCAL\n" + voxels
    )
    for name in ("a.nrrd", "a.mha"):
        np.testing.assert_array_equal(assert_reads_as_itk(tmp_path / name).array, ramp)


@pytest.mark.parametrize("order", ["<", ">"])
def test_nifti_2(tmp_path, ramp, order):
    header = bytearray(544)
    struct.pack_into(order + "i", header, 0, 540)
    header[4:12] = b"n+2\0\r\n\x1a\n"
    struct.pack_into(order + "2h8q", header, 12, 4, 16, 3, 6, 5, 4, 1, 1, 1, 1)
    struct.pack_into(order + "8d", header, 104, 1, 2, 3, 4, 0, 0, 0, 0)
    struct.pack_into(order + "q2d", header, 168, 544, 0, 0)
    struct.pack_into(order + "2i", header, 344, 0, 1)
    struct.pack_into(order + "12d", header, 400, 0, -3, 0, 7, 2, 0, 0, 8, 0, 0, 4, 9)  # voxel x runs to anterior, y to left
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(bytes(header) + ramp.astype(order + "i2").tobytes()))
    image = read_image(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(image.array, ramp)
    assert image.geometry.spacing == (4, 3, 2)
    assert image.geometry.origin == (-7, -8, 9)
    assert image.geometry.direction == (0, 1, 0, -1, 0, 0, 0, 0, 1)
    assert image.notes == ()


def test_gzip_in_several_members_as_bgzip_writes(tmp_path, nifti_bytes, ramp):
    data = nifti_bytes(ramp)
    for cuts in ((0, 100, len(data)), (0, 400, 401, 500, len(data))):
        pieces = [gzip.compress(data[a:b]) for a, b in itertools.pairwise(cuts)]
        (tmp_path / "a.nii.gz").write_bytes(b"".join(pieces))
        image = read_image(tmp_path / "a.nii.gz")
        np.testing.assert_array_equal(image.array, ramp)
        assert image.notes == ()


def test_four_axes_with_a_single_volume_and_volumes_of_a_4d_file(write_nifti, ramp):
    single = read_image(write_nifti(ramp[None]))
    np.testing.assert_array_equal(single.array, ramp)
    several = write_nifti(np.stack([ramp, -ramp, ramp + 7]))
    for component, expected in enumerate((ramp, -ramp, ramp + 7)):
        image = read_image(several, component=component)
        np.testing.assert_array_equal(image.array, expected)
        assert image.geometry == single.geometry
    assert read_header(several).components == 3
    assert read_header(several).geometry == single.geometry
    for component in (3, -1):
        with pytest.raises(ImageError, match="the file holds 3"):
            read_image(several, component=component)
    with pytest.raises(ImageError, match="the file holds 1"):
        read_image(write_nifti(ramp), component=1)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0), (1,), (2, 2)])
def test_channels_of_a_4d_file_come_in_one_pass(write_nifti, ramp, order, monkeypatch):
    several, plain = write_nifti(np.stack([ramp, -ramp, ramp + 7]), "several.nii.gz"), write_nifti(ramp * 3, "plain.nii.gz")
    passes = []
    monkeypatch.setattr("autoseg.images.read.read_payload", lambda *given: passes.append(given[0].path) or read_payload(*given))
    images = read_channels([*((several, component) for component in order), (plain, None)])
    expected = [read_image(several, component=component) for component in order] + [read_image(plain)]
    assert passes[:2] == [several, plain]
    assert len(passes) == 2 + len(order) + 1
    for image, single in zip(images, expected, strict=True):
        np.testing.assert_array_equal(image.array, single.array)
        assert (image.geometry, image.path, image.notes) == (single.geometry, single.path, single.notes)


def test_large_payloads_are_put_together_from_their_pieces(write_nifti):
    array = np.random.default_rng(0).integers(0, 30_000, (5, 400, 401)).astype(np.int16)  # several pieces of 1 MiB, hardly compressible
    for name in ("a.nii", "a.nii.gz"):
        np.testing.assert_array_equal(read_image(write_nifti(array, name)).array, array)
    np.testing.assert_array_equal(read_image(write_nifti(np.stack([array, array + 1]), "b.nii.gz"), component=1).array, array + 1)


def test_from_sitk_and_to_sitk_are_inverse():
    for dimension in (2, 3):
        image = itk_image(dimension)
        ours = from_sitk(image)
        back = to_sitk(ours.array, ours.geometry)
        assert ours.path is None
        for name in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection", "GetPixelID"):
            assert getattr(back, name)() == getattr(image, name)()
        np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(back), SimpleITK.GetArrayFromImage(image))
    for bad in (SimpleITK.Image([3, 3, 3, 3], SimpleITK.sitkUInt8), SimpleITK.Image([3, 3, 3], SimpleITK.sitkVectorFloat32, 3)):
        with pytest.raises(ImageError, match="one real number a voxel"):
            from_sitk(bad)


@pytest.mark.parametrize(
    ("dtype", "largest", "expected"), [("i2", 3, "uint8"), ("f4", 255, "uint8"), ("i4", 256, "uint16"), ("f8", 70_000, "uint32")]
)
def test_masks_become_the_smallest_unsigned_integers(write_nifti, dtype, largest, expected):
    array = np.zeros((2, 3, 4), dtype)
    array[1, 1, 1] = largest
    mask = read_mask(write_nifti(array))
    assert mask.array.dtype.name == expected
    np.testing.assert_array_equal(mask.array, array)
    assert mask.notes == ()


def test_masks_of_almost_whole_floats_are_rounded_and_noted(write_nifti):
    array = np.array([0, 0.9999, 2.0005, 3], np.float32).reshape(1, 2, 2)
    mask = read_mask(write_nifti(array))
    assert mask.array.ravel().tolist() == [0, 1, 2, 3]
    assert "rounded" in mask.notes[0]


def test_relative_paths_and_strings(write_nifti, ramp, monkeypatch):
    path = write_nifti(ramp)
    monkeypatch.chdir(path.parent)
    image = read_image(path.name)
    assert image.path == Path(path.name)
    np.testing.assert_array_equal(image.array, ramp)
