"""Runs of n words, hashed straight out of a text column's bytes, without a Python object for any word.

The hash of a run is a polynomial over its bytes, modulo 2^64, with a random number in place of each byte
(Karp and Rabin 1987). Sums over prefixes give it for all runs of a column at once.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy
import pyarrow

# Columns are taken in pieces of about this size, so that the sums over prefixes stay in the processor's cache.
_BYTES_AT_ONCE = 2**16
_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 2**64)
_BYTE_VALUES = numpy.random.Generator(numpy.random.PCG64(1987)).integers(1, 2**63, 256, dtype=numpy.uint64)
_BLANK = 0x20


class Ngrams(NamedTuple):
    """The runs of n words of some documents, in their order: three arrays of the same length.

    Attributes:
        hash: 64 bits for each run; equal runs have equal hashes on every machine.
        document: row of the column in which the run stands.
        word: number of the run's first word within its document, from 0.
    """

    hash: numpy.ndarray
    document: numpy.ndarray
    word: numpy.ndarray


def ngrams(texts: pyarrow.Array, n: int) -> Iterator[Ngrams]:
    """The runs of `n` words of a column of texts, a few documents at a time.

    Words are parted by single blanks, as `deduplicate.plain` leaves them. Null texts have none.
    """
    texts = texts.cast(pyarrow.large_string())
    offsets = numpy.frombuffer(texts.buffers()[1], numpy.int64)[texts.offset : texts.offset + len(texts) + 1]
    data = numpy.frombuffer(texts.buffers()[2] or b"", numpy.uint8)
    first = 0
    while first < len(texts):
        last = int(numpy.searchsorted(offsets, offsets[first] + _BYTES_AT_ONCE, side="right")) - 1
        last = max(last, first + 1)
        yield _ngrams(data[offsets[first] : offsets[last]], offsets[first : last + 1] - offsets[first], first, n)
        first = last


def _ngrams(data: numpy.ndarray, offsets: numpy.ndarray, first_document: int, n: int) -> Ngrams:
    """The runs in the texts that begin and end at `offsets` of `data`."""
    is_letter = data != _BLANK
    is_start, is_end = is_letter.copy(), is_letter.copy()
    is_start[1:] &= ~is_letter[:-1]
    is_end[:-1] &= ~is_letter[1:]
    # Where one text touches the next, a word ends and another begins.
    touching = offsets[1:-1][(offsets[1:-1] > 0) & (offsets[1:-1] < len(data))]
    is_start[touching] = is_letter[touching]
    is_end[touching - 1] = is_letter[touching - 1]
    starts, ends = numpy.flatnonzero(is_start), numpy.flatnonzero(is_end) + 1
    first_word = numpy.searchsorted(starts, offsets[:-1])
    document = numpy.repeat(numpy.arange(len(offsets) - 1), numpy.diff(first_word, append=len(starts)))
    n_runs = max(len(starts) - n + 1, 0)
    inside = numpy.flatnonzero(document[:n_runs] == document[n - 1 :])
    starts, ends, document = starts[inside], ends[inside + n - 1], document[inside]
    sums = numpy.zeros(len(data) + 1, dtype=numpy.uint64)
    numpy.cumsum(_BYTE_VALUES[data] * _powers(_BASE, len(data)), out=sums[1:])
    # Divided by the power at its start, the sum of a run is the same wherever the run stands.
    hashes = (sums[ends] - sums[starts]) * _powers(_INVERSE, len(data))[starts]
    # The low bits of a product depend on the low bits of its factors alone: mix the high ones in.
    hashes ^= hashes >> numpy.uint64(32)
    hashes *= numpy.uint64(0xD6E8FEB86659FD93)
    hashes ^= hashes >> numpy.uint64(32)
    return Ngrams(hashes, document + first_document, inside - first_word[document])


def _powers(base: int, n: int) -> numpy.ndarray:
    """base^0 … base^(n-1), modulo 2^64."""
    if n <= 2 * _BYTES_AT_ONCE:
        return _short_powers(base)[:n]
    return _long_powers(base, n)


@lru_cache(maxsize=2)
def _short_powers(base: int) -> numpy.ndarray:
    return _long_powers(base, 2 * _BYTES_AT_ONCE)


def _long_powers(base: int, n: int) -> numpy.ndarray:
    factors = numpy.full(n, base, dtype=numpy.uint64)
    factors[:1] = 1
    return numpy.cumprod(factors)
