"""Samples that are spread over a whole run, and that do not depend on its order or its shards."""

import hashlib

import numpy
import pyarrow


def draws(ids: pyarrow.ChunkedArray) -> numpy.ndarray:
    """A number for each id, as if drawn by chance but always the same for the same id.

    The documents with the n smallest numbers are a sample in which each had the same chance to be.
    """
    hashes = (hashlib.blake2b(name.encode(), digest_size=8).digest() for name in ids.to_pylist())
    return numpy.frombuffer(b"".join(hashes), "<u8")
