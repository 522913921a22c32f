"""Counter-based randomness: every random number belongs to a key, never to the order in which workers ask."""

from __future__ import annotations

import hashlib
import json

import numpy as np


def generator(*key: int | str) -> np.random.Generator:
    """The random generator that belongs to a key, e.g. `generator(seed, fold, epoch, iteration, sample)`.

    The same key gives the same stream in any process, in any order; different keys give independent streams: (1, 2), (12,) and ("1", 2) all
    differ.

    Args:
        key: integers (numpy ones too) and strings.

    Raises:
        TypeError: a part of the key is neither an integer nor a string.

    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011 (Philox); the key is the SHA-256 of the parts.
    """
    digest = hashlib.sha256(json.dumps([_plain(part) for part in key]).encode()).digest()
    words = [int.from_bytes(digest[start : start + 8], "little") for start in range(0, 32, 8)]
    # Philox takes 128 bits of key and a 256-bit counter. The counter starts at the key's other half in its upper words, so all of the hash
    # counts and a stream has 2**128 blocks of its own.
    counter = np.array([0, 0, words[2], words[3]], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=np.array(words[:2], dtype=np.uint64), counter=counter))


def _plain(part: int | str) -> int | str:
    if isinstance(part, str):
        return part
    if isinstance(part, (int, np.integer)) and not isinstance(part, bool):
        return int(part)
    raise TypeError(f"a key holds integers and strings, found {part!r} ({type(part).__name__})")
