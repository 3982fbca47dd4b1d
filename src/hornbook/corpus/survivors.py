"""Which documents stay, and in which split: decided in one place, from keys and digests, without any text."""

from dataclasses import dataclass

import numpy
import pyarrow
import pyarrow.compute

from hornbook.corpus import deduplicate, minhash
from hornbook.corpus.staging import Staging
from hornbook.recipe_data import CorpusSection


@dataclass(frozen=True)
class Survivors:
    """The documents that no rule drops, in the order of their indices: arrays of the same length, and a table.

    Attributes:
        index: their indices.
        repeats: for each the number, within these arrays, of the kept document that it repeats, or -1.
        is_near: whether it repeats that one only nearly.
        is_validation: whether it belongs to the validation split.
        repeated: id and source of each document that is repeated, by its number.
    """

    index: numpy.ndarray
    repeats: numpy.ndarray
    is_near: numpy.ndarray
    is_validation: numpy.ndarray
    repeated: dict[int, tuple[str, str]]


def find_survivors(staging: Staging, corpus: CorpusSection) -> Survivors:
    """Mark repeats among the documents that broke no rule, and set some of them apart for validation.

    The key of the text decides the split, so a text is in the same split in every corpus that holds it, and
    copies of it never stand in both. With near-duplicates dropped, no two of the kept documents are similar, so
    none of them has its like in the other split either. Where no key is small enough, the smallest one makes
    the validation split.
    """
    is_sound = pyarrow.compute.is_null(staging.column("problem")).to_numpy()
    for reasons in ("reasons", "overlaps"):
        is_sound = is_sound & (pyarrow.compute.list_value_length(staging.column(reasons)).to_numpy() == 0)
    index = staging.column("index").to_numpy()
    positions = numpy.flatnonzero(is_sound)
    positions = positions[numpy.argsort(index[positions])]
    key = staging.column("key").to_numpy()[positions]
    repeats = numpy.full(len(positions), -1, dtype=numpy.int64)
    is_near = numpy.zeros(len(positions), dtype=bool)
    if corpus.deduplicate != "none":
        repeats = deduplicate.find_repeats(key)
    if corpus.deduplicate == "minhash":
        firsts = numpy.flatnonzero(repeats < 0)
        threshold = corpus.deduplicate_threshold
        cut = minhash.banding(threshold)
        near = minhash.find_near_duplicates(staging.digests(), positions[firsts], cut, threshold)
        is_near[firsts] = near >= 0
        repeats[firsts[near >= 0]] = firsts[near[near >= 0]]
        # A copy of a near-duplicate repeats what that one repeats.
        again = numpy.flatnonzero((repeats >= 0) & (repeats[repeats] >= 0))
        is_near[again], repeats[again] = True, repeats[repeats[again]]
    if corpus.validation_source:
        is_validation = staging.column("for_validation").to_numpy()[positions]
    else:
        is_validation = key < numpy.uint64(corpus.validation_fraction * 2**64)
        if len(key) and not is_validation[repeats < 0].any():
            is_validation = key == key[repeats < 0].min()
    numbers = numpy.unique(repeats[repeats >= 0])
    rows = pyarrow.array(positions[numbers])
    named = [staging.column(name).take(rows).to_pylist() for name in ("id", "source")]
    repeated = dict(zip(numbers.tolist(), zip(*named, strict=True), strict=True))
    return Survivors(index[positions], repeats, is_near, is_validation, repeated)
