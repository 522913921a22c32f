"""Tiny NIfTI files with any header, written byte by byte and not by the code under test; and the real data."""

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest

CODES = {"u1": 2, "i2": 4, "i4": 8, "f4": 16, "f8": 64, "i1": 256, "u2": 512, "u4": 768, "i8": 1024, "u8": 1280}


def nifti_bytes(array, *, order="<", dim=None, datatype=None, pixdim=(1, 1, 1, 1, 1, 0, 0, 0), qform=1, sform=0, srow=None, **fields):
    """The bytes of a NIfTI-1 file of an array (z, y, x) or (t, z, y, x).

    Args:
        fields: offset, slope, inter, units, quatern, qoffset, magic.
    """
    array = np.asarray(array)
    kind = array.dtype.str[1:]
    dim = (array.ndim, *array.shape[::-1]) if dim is None else dim
    header = bytearray(352)
    struct.pack_into(order + "i", header, 0, 348)
    struct.pack_into(order + "8h", header, 40, *dim, *[1] * (8 - len(dim)))
    struct.pack_into(order + "2h", header, 70, CODES.get(kind, 0) if datatype is None else datatype, array.itemsize * 8)
    struct.pack_into(order + "8f", header, 76, *pixdim)
    struct.pack_into(order + "3f", header, 108, fields.get("offset", 352), fields.get("slope", 0), fields.get("inter", 0))
    header[123] = fields.get("units", 2)
    struct.pack_into(order + "2h", header, 252, qform, sform)
    struct.pack_into(order + "6f", header, 256, *fields.get("quatern", (0, 0, 0)), *fields.get("qoffset", (0, 0, 0)))
    if srow is not None:
        struct.pack_into(order + "12f", header, 280, *np.ravel(srow))
    header[344:348] = fields.get("magic", b"n+1\0")
    return bytes(header) + array.astype(order + kind).tobytes()


@pytest.fixture(name="nifti_bytes", scope="session")
def nifti_bytes_fixture():
    return nifti_bytes


@pytest.fixture
def ramp():
    """int16 (4, 5, 6): every voxel another value."""
    return np.arange(120, dtype=np.int16).reshape(4, 5, 6)


@pytest.fixture
def write_nifti(tmp_path):
    """Writes an array with `nifti_bytes`' fields to a .nii or .nii.gz file of the test's folder and returns the path."""

    def write(array, name="image.nii.gz", **fields):
        data = nifti_bytes(array, **fields)
        path = tmp_path / name
        path.write_bytes(gzip.compress(data, 1) if name.endswith(".gz") else data)
        return path

    return write


@pytest.fixture(scope="session")
def real_data():
    folder = Path(os.environ.get("AUTOSEG_DATA", Path(__file__).parents[4] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the real data are not at {folder}: put them there or name their folder in AUTOSEG_DATA")
    return folder
