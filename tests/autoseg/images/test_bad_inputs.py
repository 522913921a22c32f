"""Broken and odd files: each is a typed error that names case, file, fault and remedy, or a note; never a wrong image."""

import gzip
import logging
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.errors import AutosegError, ImageError
from autoseg.images import read_header, read_image, read_mask

RAMP = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
SHEAR = np.array([[1, 0.1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]])


def cut(data, count):
    return data[:-count]


def flipped(data, position):
    changed = bytearray(data)
    changed[position] ^= 0x10
    return bytes(changed)


def noise():
    return np.random.default_rng(0).integers(-1000, 1000, (8, 32, 32)).astype(np.int16)


def gz(nifti_bytes, *args, **fields):
    return gzip.compress(nifti_bytes(*args, **fields))


# name, file name, maker of the bytes, part of the message
BROKEN = [
    ("half of a gz", "a.nii.gz", lambda n: gz(n, noise())[: len(gz(n, noise())) // 2], "cut short"),
    ("gz without its last 8 bytes", "a.nii.gz", lambda n: cut(gz(n, noise()), 8), "cut short: its checksum is missing"),
    ("gz without its last byte", "a.nii.gz", lambda n: cut(gz(n, noise()), 1), "cut short"),
    ("gz whose content is too short", "a.nii.gz", lambda n: gzip.compress(cut(n(noise()), 500)), "500 of the"),
    ("half of a nii", "a.nii", lambda n: n(noise())[:8000], "cut short"),
    ("nii without its last byte", "a.nii", lambda n: cut(n(noise()), 1), "cut short"),
    ("bit flip in the data of a gz", "a.nii.gz", lambda n: flipped(gz(n, noise()), 9000), "damaged"),
    ("bit flip in the checksum of a gz", "a.nii.gz", lambda n: flipped(gz(n, noise()), -6), "damaged"),
    ("empty", "a.nii.gz", lambda n: b"", "the file is empty"),
    ("empty gz", "a.nii.gz", lambda n: gzip.compress(b""), "no single-file NIfTI"),
    ("text", "a.nii.gz", lambda n: b"this is not an image at all" * 100, "no single-file NIfTI"),
    ("text in gz", "a.nii.gz", lambda n: gzip.compress(b"hello " * 100), "no single-file NIfTI"),
    ("header of a pair", "a.nii", lambda n: n(RAMP, magic=b"ni1\0"), r"\.hdr/\.img pair"),
    ("gz named .nii", "a.nii", lambda n: gz(n, RAMP), r"Rename it to a\.nii\.gz"),
    ("huge", "a.nii.gz", lambda n: gz(n, RAMP, dim=(3, 32767, 32767, 32767)), f"{2 * 32767**3 + 352} bytes"),
    ("huge nii", "a.nii", lambda n: n(RAMP, dim=(3, 32767, 32767, 32767)), "cannot hold"),
    ("one slice too many in nii", "a.nii", lambda n: n(RAMP, dim=(3, 6, 5, 3)), "more than its header promises"),
    ("one slice too many in gz", "a.nii.gz", lambda n: gz(n, RAMP, dim=(3, 6, 5, 3)), "more than its header promises"),
    ("size 0", "a.nii", lambda n: n(RAMP, dim=(3, 6, 0, 4)), "6x0x4"),
    ("size below 0", "a.nii", lambda n: n(RAMP, dim=(3, 6, -5, 4)), "6x-5x4"),
    ("no axes", "a.nii", lambda n: n(RAMP, dim=(0, 6, 5, 4)), "0 axes"),
    ("one axis", "a.nii", lambda n: n(RAMP, dim=(1, 120)), "1 axes"),
    ("five axes", "a.nii", lambda n: n(RAMP, dim=(5, 6, 5, 2, 1, 2)), "5 axes"),
    ("pixdim 0", "a.nii", lambda n: n(RAMP, pixdim=(1, 1, 0, 1, 0, 0, 0, 0)), r"pixdim in the header is \(1, 0, 1\)"),
    ("pixdim NaN", "a.nii", lambda n: n(RAMP, pixdim=(1, 1, np.nan, 1, 0, 0, 0, 0)), r"pixdim in the header is \(1, nan, 1\)"),
    ("pixdim infinite", "a.nii", lambda n: n(RAMP, pixdim=(1, 1, np.inf, 1, 0, 0, 0, 0)), "pixdim"),
    ("pixdim negative", "a.nii", lambda n: n(RAMP, pixdim=(1, 1, -2, 1, 0, 0, 0, 0)), r"pixdim in the header is \(1, -2, 1\)"),
    ("sheared", "a.nii", lambda n: n(RAMP, qform=0, sform=1, srow=SHEAR), "right angles.*Resample"),
    ("sform of zeros", "a.nii", lambda n: n(RAMP, qform=0, sform=1, srow=SHEAR * 0), "right angles"),
    ("sform of NaN", "a.nii", lambda n: n(RAMP, qform=0, sform=1, srow=SHEAR * np.nan), "right angles"),
    ("4-D", "a.nii", lambda n: n(np.stack([RAMP, RAMP])), "holds 2 volumes"),
    ("RGB", "a.nii", lambda n: n(RAMP, datatype=128), "type RGB"),
    ("complex", "a.nii", lambda n: n(RAMP, datatype=32), "type complex"),
    ("unknown voxel type", "a.nii", lambda n: n(RAMP, datatype=999), "code 999"),
    ("vox_offset", "a.nii", lambda n: n(RAMP, offset=100), "vox_offset"),
    ("vox_offset NaN", "a.nii", lambda n: n(RAMP, offset=np.nan), "vox_offset"),
    ("all NaN", "a.nii", lambda n: n(np.full((4, 5, 6), np.nan, np.float32)), "no voxel holds a finite number"),
]


@pytest.mark.parametrize(("name", "maker", "message"), [entry[1:] for entry in BROKEN], ids=[entry[0] for entry in BROKEN])
def test_broken_nifti(tmp_path, nifti_bytes, name, maker, message):
    path = tmp_path / name
    path.write_bytes(maker(nifti_bytes))
    with pytest.raises(ImageError, match=message) as caught:
        read_image(path, case="CHUM-014")
    assert str(caught.value).startswith(f"case CHUM-014: {path}: ")


@pytest.mark.parametrize(
    ("name", "message"), [("none.nii.gz", "no such file"), ("a.dcm", "ending"), ("a.NII.GZ", "lower case"), ("folder.nii", "folder")]
)
def test_paths_that_are_no_image(tmp_path, name, message):
    (tmp_path / "folder.nii").mkdir()
    for read in (read_image, read_mask, read_header):
        with pytest.raises(ImageError, match=message):
            read(tmp_path / name)


def test_reading_the_header_finds_what_stands_in_the_header(tmp_path, nifti_bytes):
    (tmp_path / "a.nii").write_bytes(nifti_bytes(RAMP)[:-1])
    with pytest.raises(ImageError, match="cut short"):
        read_header(tmp_path / "a.nii")


def test_a_gzip_bomb_is_stopped_in_bounded_memory(tmp_path, nifti_bytes):
    deflater = zlib.compressobj(1, zlib.DEFLATED, 31)
    pieces = [deflater.compress(nifti_bytes(RAMP))] + [deflater.compress(bytes(1 << 22)) for _ in range(16)] + [deflater.flush()]
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(flipped(b"".join(pieces), -6))  # a wrong checksum, which is never reached
    assert path.stat().st_size < 400_000
    with pytest.raises(ImageError):
        read_image(path)  # imports SimpleITK before memory is counted
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match="more than its header promises"):
            read_image(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20, "64 MiB would have come out"


def test_a_header_of_terabytes_allocates_nothing(tmp_path, nifti_bytes):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(nifti_bytes(RAMP, dim=(3, 32767, 32767, 32767))))
    tracemalloc.start()
    try:
        with pytest.raises(ImageError):
            read_image(path)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


ODD = [
    ("junk after the gzip", lambda n: gz(n, RAMP) + b"junk", "4 bytes of something else"),
    ("one byte of junk", lambda n: gz(n, RAMP) + b"\x1f", "1 bytes of something else"),
    ("padding in the gzip", lambda n: gzip.compress(n(RAMP) + bytes(8)), "8 bytes follow the voxels"),
    ("not compressed", lambda n: n(RAMP), "named .gz but is not compressed"),
    ("spacing too large", lambda n: gz(n, RAMP, pixdim=(1, 1, 1, 500, 0, 0, 0, 0)), "500 mm is unusual"),
    ("spacing too small", lambda n: gz(n, RAMP, pixdim=(1, 0.001, 1, 1, 0, 0, 0, 0)), "0.001 mm is unusual"),
    ("metres", lambda n: gz(n, RAMP, units=1), "1000 mm is unusual"),
    ("no qform, no sform", lambda n: gz(n, RAMP, qform=0), "neither qform nor sform"),
]


@pytest.mark.parametrize(("maker", "note"), [entry[1:] for entry in ODD], ids=[entry[0] for entry in ODD])
def test_odd_nifti_is_read_and_noted(tmp_path, nifti_bytes, maker, note):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(maker(nifti_bytes))
    image = read_image(path, case="CHUM-014")
    np.testing.assert_array_equal(image.array, RAMP)
    assert len(image.notes) == 1
    assert image.notes[0].startswith(f"case CHUM-014: {path}: ")
    assert note in image.notes[0]


@pytest.mark.parametrize(("sform", "used", "origin"), [(1, "sform", (-10, -20, 30)), (2, "qform", (-7, -8, 9))])
def test_where_qform_and_sform_differ_itks_choice_is_used_and_stated(write_nifti, sform, used, origin):
    srow = [[1, 0, 0, 10], [0, 1, 0, 20], [0, 0, 1, 30]]
    path = write_nifti(RAMP, qform=1, sform=sform, srow=srow, qoffset=(7, 8, 9))
    image = read_image(path)
    assert image.geometry.origin == origin == SimpleITK.ReadImage(str(path)).GetOrigin()
    assert f"the {used} was used" in image.notes[0]
    assert "differ by up to 21 mm" in image.notes[0]
    agreeing = write_nifti(RAMP, qform=1, sform=sform, srow=srow, qoffset=(10, 20, 30), name="b.nii")
    assert read_image(agreeing).notes == ()


def test_sform_whose_voxels_are_not_those_of_pixdim_is_noted(write_nifti, capfd):
    image = read_image(write_nifti(RAMP, qform=0, sform=1, srow=[[2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0]]))
    assert image.geometry.spacing == (1, 1, 1)
    assert "(2, 2, 2) mm but pixdim says (1, 1, 1)" in image.notes[0]
    assert capfd.readouterr().err == "", "ITK's own warning does not reach the terminal"


@pytest.mark.parametrize("shear", [2e-4, 9e-4])
def test_a_small_shear_is_repaired_and_noted(write_nifti, shear):
    image = read_image(write_nifti(RAMP, qform=0, sform=1, srow=[[1, shear, 0, 7], [0, 1, 0, 8], [0, 0, 1, 9]]))
    direction = np.reshape(image.geometry.direction, (3, 3))
    np.testing.assert_allclose(direction.T @ direction, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(direction, np.diag([-1, -1, 1]), atol=shear)
    assert image.geometry.origin == (-7, -8, 9)
    assert "right-angled" in image.notes[0]


@pytest.mark.parametrize("values", [[np.nan], [np.inf, np.nan], [-np.inf]])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_voxels_that_are_not_finite(write_nifti, values, dtype):
    array = RAMP.astype(dtype) + 5
    array.ravel()[7 : 7 + len(values)] = values
    path = write_nifti(array)
    assert SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))).ravel()[7] == 0, "SimpleITK hides them, hence our own check"
    with pytest.raises(ImageError, match=f"{len(values)} of 120 voxels are NaN or infinite"):
        read_image(path)
    image = read_image(path, allow_nonfinite=True)
    assert np.isfinite(image.array).all()
    assert (image.array.ravel()[7 : 7 + len(values)] == 5).all()
    assert image.array.ravel()[20] == 25
    assert f"{len(values)} voxels that were NaN or infinite were replaced by the smallest value 5" in image.notes[0]


def test_scaling_beyond_what_a_float_holds_is_found(write_nifti):
    with pytest.raises(ImageError, match="119 of 120 voxels are NaN or infinite"):
        read_image(write_nifti(np.arange(120, dtype=np.int16).reshape(4, 5, 6), slope=3.3e38, inter=1e38))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([0, 1, 0.5, 1], np.float32), "1 voxels do not, such as 0.5.*nearest neighbours"),
        (np.array([0, 1, 1.002, 1], np.float32), "such as 1.002"),
        (np.array([0, -1, -1, 1], np.int16), "2 voxels have a negative label"),
        (np.array([0, np.nan, 1, 1], np.float32), "NaN"),
        (np.array([0, 1e12, 1, 1], np.float64), "label 1e"),
    ],
)
def test_masks_that_are_no_masks(write_nifti, array, message):
    with pytest.raises(ImageError, match=f"case C1: .*{message}"):
        read_mask(write_nifti(array.reshape(1, 2, 2)), case="C1")


NRRD = (
    b"NRRD0004\ntype: short\ndimension: 3\nsizes: 6 5 4\nspace: left-posterior-superior\nspace directions: (1,0,0) (0,1,0) (0,0,1)\n"
    b"space origin: (0,0,0)\nendian: little\nencoding: raw\n\n"
)
NRRD_GZ = NRRD.replace(b"encoding: raw", b"encoding: gzip")
MHA = (
    b"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
    b"TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nElementSpacing = 1 1 1\nDimSize = 6 5 4\n"
    b"ElementType = MET_SHORT\nElementDataFile = LOCAL\n"
)
MHA_Z = MHA.replace(b"CompressedData = False", b"CompressedData = True")
VOXELS = RAMP.tobytes()
TEXT_HEADERS = [
    ("nrrd raw cut", "a.nrrd", NRRD + VOXELS[:-1], "cut short"),
    ("nrrd gz cut", "a.nrrd", NRRD_GZ + gzip.compress(VOXELS)[:-1], "cut short"),
    ("nrrd gz with too little", "a.nrrd", NRRD_GZ + gzip.compress(VOXELS[:-2]), "2 of the 240 bytes"),
    ("nrrd bit flip", "a.nrrd", NRRD_GZ + flipped(gzip.compress(VOXELS), -6), "damaged"),
    ("nrrd too much", "a.nrrd", NRRD + VOXELS + bytes(60), "more than its header promises"),
    ("nrrd empty", "a.nrrd", b"", "empty"),
    ("nrrd text", "a.nrrd", b"hello\n\nhello", "no NRRD"),
    ("nrrd without end", "a.nrrd", NRRD[:50], "no end"),
    ("nrrd huge", "a.nrrd", NRRD.replace(b"6 5 4", b"999999 999999 999999") + VOXELS, "cannot hold"),
    ("nrrd size 0", "a.nrrd", NRRD.replace(b"6 5 4", b"6 0 4") + VOXELS, "6x0x4"),
    ("nrrd size no number", "a.nrrd", NRRD.replace(b"6 5 4", b"6 x 4") + VOXELS, "sizes"),
    ("nrrd spacing 0", "a.nrrd", NRRD.replace(b"(0,1,0)", b"(0,0,0)") + VOXELS, "space directions"),
    ("nrrd spacing NaN", "a.nrrd", NRRD.replace(b"(0,1,0)", b"(0,nan,0)") + VOXELS, "space directions"),
    ("nrrd sheared", "a.nrrd", NRRD.replace(b"(0,1,0)", b"(0.1,1,0)") + VOXELS, "right angles"),
    ("nrrd of vectors", "a.nrrd", NRRD.replace(b"\n\n", b"\nkinds: vector domain domain\n\n") + VOXELS, "vectors"),
    ("nrrd text encoding", "a.nrrd", NRRD.replace(b"raw", b"ascii") + VOXELS, "encoding"),
    ("nrrd in two files", "a.nrrd", NRRD.replace(b"\n\n", b"\ndata file: ../../secret\n\n"), "another file"),
    ("nrrd block type", "a.nrrd", NRRD.replace(b"short", b"block") + VOXELS, "type 'block'"),
    ("nrrd without byte order", "a.nrrd", NRRD.replace(b"endian: little\n", b"") + VOXELS, "endian"),
    ("nrrd skips", "a.nrrd", NRRD.replace(b"\n\n", b"\nbyte skip: -1\n\n") + VOXELS, "skips"),
    ("mha raw cut", "a.mha", MHA + VOXELS[:-1], "cut short"),
    ("mha z cut", "a.mha", MHA_Z + zlib.compress(VOXELS)[:-1], "cut short"),
    ("mha bit flip", "a.mha", MHA_Z + flipped(zlib.compress(VOXELS), -2), "damaged"),
    ("mha too much", "a.mha", MHA + VOXELS * 2, "more than its header promises"),
    ("mha empty", "a.mha", b"", "empty"),
    ("mha text", "a.mha", b"hello", "no MetaImage"),
    ("mha huge", "a.mha", MHA.replace(b"6 5 4", b"99999 99999 99999") + VOXELS, "cannot hold"),
    ("mha size below 0", "a.mha", MHA.replace(b"6 5 4", b"6 -5 4") + VOXELS, "6x-5x4"),
    ("mha spacing 0", "a.mha", MHA.replace(b"ElementSpacing = 1 1 1", b"ElementSpacing = 1 0 1") + VOXELS, "elementspacing"),
    ("mha spacing negative", "a.mha", MHA.replace(b"ElementSpacing = 1 1 1", b"ElementSpacing = 1 -1 1") + VOXELS, "elementspacing"),
    ("mha sheared", "a.mha", MHA.replace(b"1 0 0 0 1 0", b"1 0 0 0.1 1 0") + VOXELS, "right angles"),
    ("mha of vectors", "a.mha", MHA.replace(b"DimSize", b"ElementNumberOfChannels = 3\nDimSize") + VOXELS, "3 numbers a voxel"),
    ("mha text encoding", "a.mha", MHA.replace(b"BinaryData = True", b"BinaryData = False") + VOXELS, "as text"),
    ("mha type", "a.mha", MHA.replace(b"MET_SHORT", b"MET_STRING") + VOXELS, "MET_STRING"),
    ("mha scaled", "a.mha", MHA.replace(b"DimSize", b"ElementToIntensityFunctionSlope = 2\nDimSize") + VOXELS, "scales"),
    ("mhd elsewhere", "a.mhd", MHA.replace(b"LOCAL", b"../../secret.raw"), "same folder"),
    ("mhd absolute", "a.mhd", MHA.replace(b"LOCAL", b"/etc/passwd"), "same folder"),
    ("mhd of slices", "a.mhd", MHA.replace(b"LOCAL", b"slice%03d.raw 1 4 1"), "same folder"),
    ("mhd without data", "a.mhd", MHA.replace(b"LOCAL", b"a.raw"), "a.raw, which is not there"),
]


@pytest.mark.parametrize(("name", "content", "message"), [entry[1:] for entry in TEXT_HEADERS], ids=[entry[0] for entry in TEXT_HEADERS])
def test_broken_nrrd_and_metaimage(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError, match=message) as caught:
        read_image(tmp_path / name, case="C1")
    assert str(caught.value).startswith(f"case C1: {tmp_path / name}: ")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.nrrd", NRRD + VOXELS),
        ("a.nrrd", NRRD_GZ + gzip.compress(VOXELS)),
        ("a.nrrd", NRRD.replace(b"\n", b"\r\n") + VOXELS),
        ("a.mha", MHA + VOXELS),
        ("a.mha", MHA_Z + zlib.compress(VOXELS)),
    ],
)
def test_the_unbroken_forms_of_the_same_files_are_read(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    np.testing.assert_array_equal(read_image(tmp_path / name).array, RAMP)


def test_nrrd_and_mha_with_nan(tmp_path):
    voxels = np.full(120, np.nan, "<f4")
    voxels[1:] = 3
    (tmp_path / "a.nrrd").write_bytes(NRRD.replace(b"short", b"float") + voxels.tobytes())
    (tmp_path / "a.mha").write_bytes(MHA.replace(b"MET_SHORT", b"MET_FLOAT") + voxels.tobytes())
    for name in ("a.nrrd", "a.mha"):
        with pytest.raises(ImageError, match="1 of 120 voxels"):
            read_image(tmp_path / name)


def path_or_message(path):
    try:
        read_mask(path)
    except AutosegError as error:
        return str(error)
    return str(path)


@settings(deadline=None, max_examples=80)
@given(st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=6), st.booleans())
def test_any_change_of_header_bytes_gives_an_image_or_a_typed_error(tmp_path_factory, nifti_bytes, changes, compressed):
    data = bytearray(nifti_bytes(RAMP, sform=1, srow=np.eye(3, 4)))
    for position, value in changes:
        data[position] = value
    path = tmp_path_factory.getbasetemp() / ("fuzz.nii.gz" if compressed else "fuzz.nii")
    path.write_bytes(gzip.compress(data, 1) if compressed else data)
    assert str(path) in path_or_message(path)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(0, 255), st.integers(0, 300))
def test_any_change_of_compressed_bytes_gives_the_right_voxels_or_a_typed_error(tmp_path_factory, nifti_bytes, position, value, missing):
    data = bytearray(gzip.compress(nifti_bytes(RAMP)))
    data[position % len(data)] = value
    path = tmp_path_factory.getbasetemp() / "fuzz.nii.gz"
    path.write_bytes(data[: len(data) - missing % len(data)])
    try:
        image = read_image(path)
    except AutosegError:
        return
    np.testing.assert_array_equal(image.array, RAMP)


@settings(deadline=None, max_examples=80)
@given(st.sampled_from(["a.nrrd", "a.mha"]), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_change_of_a_text_header_gives_an_image_or_a_typed_error(tmp_path_factory, name, changes):
    data = bytearray(NRRD if name == "a.nrrd" else MHA)
    for position, value in changes:
        data[position % len(data)] = value
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(bytes(data) + VOXELS)
    assert str(path) in path_or_message(path)


def test_a_float_header_field_of_every_special_value(write_nifti, caplog):
    with caplog.at_level(logging.WARNING):
        for offset in (76, 80, 108, 112, 116, 256, 268, 280, 292):
            for special in (np.nan, -np.inf, 0.0, -1.0, 3e38, 1e-45):
                path = write_nifti(RAMP, "special.nii", sform=1, srow=np.eye(3, 4))
                data = bytearray(path.read_bytes())
                struct.pack_into("<f", data, offset, special)
                path.write_bytes(data)
                assert str(path) in path_or_message(path)
