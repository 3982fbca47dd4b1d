"""How often each document is taken: the weights of the sources.

A weight is the number of times that a document of its source stands in the training split, on average: 1 is
once, 2 is twice, 0.5 takes a half of the documents, and 2.5 takes all of them twice and a half of them once
more. Which documents are in the half is decided by the hash of the text, so it is the same half in every run,
on every machine and in every corpus that holds them, and a greater weight keeps all that a smaller one took.

Weights come last, after deduplication, when the shards are written: so an intended repetition is not taken
for an accident, and of a text that several sources hold, the weight of the first one counts. Documents for
validation are taken once, whatever their weight: a repetition would only count some of them twice.
"""

import numpy

from hornbook.runtime import derive_seed

# The reason with which documents that a weight below 1 leaves out are dropped.
NOT_TAKEN = "weight"


def repetitions(key: numpy.ndarray, weight: numpy.ndarray) -> numpy.ndarray:
    """How many times each document is taken.

    Args:
        key: 64-bit hash of each text, uint64; the split into training and validation may use the same keys,
            because they are hashed once more here.
        weight: of each document's source, 0 or more.

    Returns an int64 array of the same length.
    """
    whole = numpy.floor(weight)
    return whole.astype(numpy.int64) + (_uniform(key) < weight - whole)


def _uniform(key: numpy.ndarray) -> numpy.ndarray:
    """Each key as a number from 0 to 1, by the finalizer of SplitMix64 (Steele, Lea and Flood 2014)."""
    z = key.astype(numpy.uint64) ^ numpy.uint64(derive_seed(0, "weights of the sources") & (2**64 - 1))
    z = (z ^ (z >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> numpy.uint64(31))) >> numpy.uint64(11)).astype(numpy.float64) * 2.0**-53
