"""The raw headers of NRRD and MetaImage: text before the voxels.

Source: teem.sourceforge.net, "Definition of NRRD File Format"; Kitware's MetaIO documentation of MetaImage.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import numpy as np

from autoseg.errors import ImageError
from autoseg.images.headers import RawHeader, check_sizes, check_spacing, voxel_bytes
from autoseg.images.payload import Payload

_LONGEST_HEADER = 1 << 20

_NRRD_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_META_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}


def read_nrrd_header(path: Path, where: str) -> RawHeader:
    """The checked header of a .nrrd file.

    Raises:
        ImageError: it is no NRRD, keeps its voxels elsewhere, or a field cannot be.
    """
    head = _head(path, where)
    if not head.startswith(b"NRRD000"):
        raise ImageError(f"{where}: is no NRRD image: it begins with {head[:12]!r}. Export it again.")
    end = re.search(rb"\r?\n\r?\n", head)
    if end is None:
        raise ImageError(
            f"{where}: the header has no end: the file is cut short or keeps its voxels elsewhere (.nhdr). Save it as one .nrrd file."
        )
    fields = {}
    for line in head[: end.start()].decode("latin-1").splitlines()[1:]:
        key, separator, value = line.partition(": ")
        if separator and not line.startswith("#"):
            fields[key.strip().lower()] = value.strip()
    if "data file" in fields or "datafile" in fields:
        raise ImageError(f"{where}: keeps its voxels in another file, which is not supported. Save it as one .nrrd file.")
    if any(fields.get(key, "0") != "0" for key in ("line skip", "lineskip", "byte skip", "byteskip")):
        raise ImageError(f"{where}: skips bytes before its voxels, which is not supported. Save it again.")
    encoding = fields.get("encoding", "").lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise ImageError(f"{where}: its encoding is {encoding!r}; expected is raw or gzip. Save it again.")
    code = next((code for code, names in _NRRD_TYPES.items() if fields.get("type", "").lower() in names), None)
    if code is None:
        raise ImageError(f"{where}: its voxels are of type {fields.get('type')!r}; expected is one plain number a voxel. Convert it first.")
    endian = fields.get("endian", "" if code[1] != "1" else "little").lower()
    if endian not in ("little", "big"):
        raise ImageError(f"{where}: the byte order (endian) is {endian!r}; expected is little or big. Save it again.")
    sizes = check_sizes(_integers(fields.get("sizes", ""), where, "sizes"), where)
    _check_nrrd_spacing(fields, where)
    _refuse_nrrd_vectors(fields, where)
    dtype = np.dtype((">" if endian == "big" else "<") + code)
    return RawHeader(Payload(path, end.end(), 0, encoding != "raw", *voxel_bytes(sizes, dtype)), dtype, sizes, "NrrdImageIO")


def read_meta_header(path: Path, where: str) -> RawHeader:
    """The checked header of an .mha file, or of an .mhd file with its voxels in one other file of the same folder.

    Raises:
        ImageError: it is no MetaImage, its voxels lie outside the folder, or a field cannot be.
    """
    head = _head(path, where)
    end = re.search(rb"(?:^|\n)[ \t]*ElementDataFile[ \t]*=[ \t]*([^\r\n]*)\r?\n?", head)
    if end is None:
        raise ImageError(f"{where}: is no MetaImage, or its header is cut short: there is no ElementDataFile. Export it again.")
    fields = {}
    for line in head[: end.start() + 1].decode("latin-1").splitlines():
        key, _, value = line.partition("=")
        fields[key.strip().lower()] = value.strip()
    _refuse_unsupported_meta(fields, where)
    dtype = _meta_dtype(fields, where)
    sizes = check_sizes(_integers(fields.get("dimsize", ""), where, "DimSize"), where)
    for key in ("elementspacing", "elementsize"):
        if key in fields:
            check_spacing(_floats(fields[key], where, key), where, key)
    size, slice_size = voxel_bytes(sizes, dtype)
    data, start = _meta_data(path, end.group(1).decode("latin-1").strip(), end.end(), where)
    compressed = _is_true(fields.get("compresseddata", "False"))
    skip = _integers(fields.get("headersize", "0"), where, "HeaderSize")[0]
    if skip < 0:  # MetaIO: the voxels are the last bytes of the file
        start = max(start, _file_size(data, where) - size)
    return RawHeader(Payload(data, start + max(skip, 0), 0, compressed, size, slice_size), dtype, sizes, "MetaImageIO")


def _head(path: Path, where: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            head = stream.read(_LONGEST_HEADER)
    except OSError as error:
        raise ImageError(f"{where}: cannot be read: {error.strerror}.") from error
    if not head:
        raise ImageError(f"{where}: the file is empty. Copy or export it again.")
    return head


def _check_nrrd_spacing(fields: dict[str, str], where: str) -> None:
    if "spacings" in fields:
        check_spacing(_floats(fields["spacings"], where, "spacings"), where, "spacings")
    vectors = re.findall(r"\(([^)]*)\)", fields.get("space directions", ""))
    check_spacing(
        [math.hypot(*_floats(vector.replace(",", " "), where, "space directions")) for vector in vectors], where, "space directions"
    )


def _refuse_nrrd_vectors(fields: dict[str, str], where: str) -> None:
    kinds = fields.get("kinds", "").split()
    odd = [kind for kind in kinds[:3] if kind not in ("domain", "space", "???", "none")]
    if odd:
        raise ImageError(
            f"{where}: is an image of vectors (kind {odd[0]!r}); expected is one plain number a voxel. Split it into single images."
        )


def _refuse_unsupported_meta(fields: dict[str, str], where: str) -> None:
    if fields.get("elementnumberofchannels", "1") != "1":
        raise ImageError(
            f"{where}: has {fields['elementnumberofchannels']} numbers a voxel (vector or RGB); expected is one. Split the image."
        )
    if not _is_true(fields.get("binarydata", "True")):
        raise ImageError(f"{where}: its voxels are written as text, which is not supported. Save it again as binary data.")
    for key, neutral in (("elementtointensityfunctionslope", 1.0), ("elementtointensityfunctionoffset", 0.0)):
        if key in fields and _floats(fields[key], where, key) != (neutral,):
            raise ImageError(
                f"{where}: scales its values ({key} = {fields[key]}), which readers treat differently. Save it with the values applied."
            )


def _meta_dtype(fields: dict[str, str], where: str) -> np.dtype:
    kind = fields.get("elementtype", "").upper()
    if kind not in _META_TYPES:
        raise ImageError(f"{where}: its voxels are of type {kind!r}; expected is one of {', '.join(_META_TYPES)}. Convert it first.")
    is_big = _is_true(fields.get("elementbyteordermsb", fields.get("binarydatabyteordermsb", "False")))
    return np.dtype((">" if is_big else "<") + _META_TYPES[kind])


def _meta_data(path: Path, name: str, end: int, where: str) -> tuple[Path, int]:
    if name.upper() == "LOCAL":
        return path, end
    if not name or name.upper().startswith("LIST") or "%" in name or Path(name).name != name or "\\" in name or name in (".", ".."):
        raise ImageError(
            f"{where}: keeps its voxels in {name!r}; expected is LOCAL or the name of one file in the same folder. Save it as .mha."
        )
    data = path.parent / name
    _file_size(data, where)
    return data, 0


def _file_size(path: Path, where: str) -> int:
    if not os.path.isfile(path):
        raise ImageError(f"{where}: its voxels should be in {path.name}, which is not there. Copy both files, or save the image as .mha.")
    return os.stat(path).st_size


def _is_true(text: str) -> bool:
    return text.strip().lower() in ("true", "1")


def _integers(text: str, where: str, field: str) -> tuple[int, ...]:
    numbers = _floats(text, where, field)
    if not numbers or any(not math.isfinite(number) or number != int(number) for number in numbers):
        raise ImageError(f"{where}: {field} in the header is {text[:60]!r}; expected are whole numbers. Export the file again.")
    return tuple(int(number) for number in numbers)


def _floats(text: str, where: str, field: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split())
    except ValueError:
        raise ImageError(f"{where}: {field} in the header is {text[:60]!r}; expected are numbers. Export the file again.") from None
