"""The voxels' bytes of an image file, read in one pass that also proves the file whole."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from autoseg.errors import ImageError, ResourceError

GZIP_MAGIC = b"\x1f\x8b"
_CHUNK_IN = 1 << 18
_CHUNK_OUT = 1 << 20
_LARGEST_DEFLATE_RATIO = 1032
"""No deflate stream expands more (zlib's technical notes), so a shorter file cannot hold what its header promises."""


@dataclass(frozen=True)
class Payload:
    """Where a file keeps its voxels.

    Attributes:
        path: the file.
        start: bytes of the file before the (perhaps compressed) stream.
        skip: bytes of the decompressed stream before the voxels.
        compressed: a gzip or zlib stream.
        size: bytes of all voxels.
        slice_size: bytes of one slice; less than that may follow the voxels as padding.
    """

    path: Path
    start: int
    skip: int
    compressed: bool
    size: int
    slice_size: int


def check_length(payload: Payload, where: str) -> None:
    """Returns when the file can be long enough for its voxels, found without reading them.

    Raises:
        ImageError: it is too short.
    """
    present = os.stat(payload.path).st_size - payload.start
    possible = present * _LARGEST_DEFLATE_RATIO if payload.compressed else present
    if possible < payload.skip + payload.size:
        raise ImageError(
            f"{where}: the file is cut short or its header is wrong: {present} {'compressed ' if payload.compressed else ''}bytes "
            f"cannot hold the {payload.skip + payload.size} bytes that the header promises. Copy or export the file again."
        )


def read_payload(payload: Payload, offset: int, count: int, where: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """A stretch of the voxels' bytes, and notes, after the whole stream was found sound.

    Args:
        offset, count: the wanted stretch, bytes from the first voxel on.
        where: case and file, for messages.

    Returns:
        uint8 array (count,), writable; notes about bytes that follow the voxels.

    Raises:
        ImageError: the file is cut short, damaged (checksum), or holds at least a slice more than its header promises.
        ResourceError: there is no memory for the voxels.
    """
    check_length(payload, where)
    try:
        target = np.empty(count, np.uint8)
    except (MemoryError, ValueError) as error:
        raise ResourceError(
            f"{where}: {count / 2**30:.1f} GiB of memory for the voxels are not to be had. Use a machine with more."
        ) from error
    try:
        with open(payload.path, "rb", buffering=0) as stream:
            stream.seek(payload.start)
            if payload.compressed:
                return target, _inflate(stream, payload, target, offset, where)
            return target, _read_plain(stream, payload, target, offset, where)
    except OSError as error:
        raise ImageError(f"{where}: cannot be read: {error.strerror}.") from error


def first_bytes(path: Path, count: int, where: str) -> bytes:
    """Up to `count` bytes from the start of a file, decompressed where it is gzip.

    Raises:
        ImageError: the file is empty, unreadable, or damaged within these bytes.
    """
    try:
        with open(path, "rb", buffering=0) as stream:
            magic = stream.read(len(GZIP_MAGIC))
            if not magic:
                raise ImageError(f"{where}: the file is empty. Copy or export it again.")
            stream.seek(0)
            if magic != GZIP_MAGIC:
                return stream.read(count)
            head = b""
            for chunk in _Inflater(stream).chunks():
                head += chunk
                if len(head) >= count:
                    break
            return head[:count]
    except OSError as error:
        raise ImageError(f"{where}: cannot be read: {error.strerror}.") from error
    except zlib.error as error:
        raise ImageError(f"{where}: the compressed data are damaged ({error}). Copy or export the file again.") from error


def _read_plain(stream: BinaryIO, payload: Payload, target: np.ndarray, offset: int, where: str) -> tuple[str, ...]:
    stream.seek(payload.start + payload.skip + offset)
    view = memoryview(target)
    while view:
        got = stream.readinto(view[: 1 << 30])
        if not got:
            raise ImageError(f"{where}: the file is cut short: {len(view)} bytes of voxels are missing. Copy or export it again.")
        view = view[got:]
    excess = os.fstat(stream.fileno()).st_size - payload.start - payload.skip - payload.size
    return _about_excess(excess, payload, where)


def _inflate(stream: BinaryIO, payload: Payload, target: np.ndarray, offset: int, where: str) -> tuple[str, ...]:
    promised = payload.skip + payload.size
    first, last = payload.skip + offset, payload.skip + offset + target.size
    done = 0
    inflater = _Inflater(stream)
    try:
        for chunk in inflater.chunks():
            begin, end = max(first, done), min(last, done + len(chunk))
            if begin < end:
                target[begin - first : end - first] = np.frombuffer(chunk, np.uint8)[begin - done : end - done]
            done += len(chunk)
            if done - promised >= max(payload.slice_size, 1):
                break  # never inflate a bomb to its end
    except zlib.error as error:
        raise ImageError(f"{where}: the compressed data are damaged ({error}). Copy or export the file again.") from error
    notes = _about_excess(done - promised, payload, where)
    if not inflater.complete:
        missing = f"{promised - done} of {promised} bytes are missing" if done < promised else "its checksum is missing"
        raise ImageError(f"{where}: the compressed file is cut short: {missing}. Copy or export it again.")
    if done < promised:
        raise ImageError(f"{where}: {promised - done} of the {promised} bytes that the header promises are missing. Export the file again.")
    if inflater.junk:
        notes = (
            *notes,
            f"{where}: at least {inflater.junk} bytes of something else follow the end of the compressed data; they were ignored",
        )
    return notes


def _about_excess(excess: int, payload: Payload, where: str) -> tuple[str, ...]:
    if excess <= 0:
        return ()
    if excess >= max(payload.slice_size, 1):
        raise ImageError(
            f"{where}: the file holds more than its header promises ({payload.size} bytes of voxels and at least {excess} bytes more). "
            "The sizes in the header are wrong or the file is not what it seems; export it again."
        )
    return (f"{where}: {excess} bytes follow the voxels; they were ignored",)


class _Inflater:
    """Inflates one stream (zlib, or gzip with any number of members) in bounded pieces.

    Attributes:
        complete: every member came to its end and its checksum was right.
        junk: bytes seen after the end that are no further member.
    """

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self.complete = False
        self.junk = 0

    def chunks(self) -> Iterator[bytes]:
        inflater, waiting = zlib.decompressobj(wbits=47), b""  # 47: gzip or zlib, told by the first bytes
        while True:
            fresh = waiting or self._stream.read(_CHUNK_IN)
            if inflater.eof:
                inflater, fresh = self._next_member(fresh)
                if inflater is None:
                    return
            elif not fresh:
                yield inflater.flush()
                return
            piece = inflater.decompress(fresh, _CHUNK_OUT)
            waiting = inflater.unconsumed_tail
            if inflater.eof:
                self.complete = True
                waiting = inflater.unused_data
            if piece:
                yield piece

    def _next_member(self, fresh: bytes) -> tuple[zlib._Decompress | None, bytes]:
        fresh = fresh if len(fresh) > 1 else fresh + self._stream.read(_CHUNK_IN)
        if fresh[:2] != GZIP_MAGIC:
            self.junk = len(fresh)
            return None, b""
        self.complete = False
        return zlib.decompressobj(wbits=31), fresh
