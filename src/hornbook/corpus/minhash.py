"""MinHash: near-duplicates among millions of documents without comparing all pairs.

A document is the set of its shingles, its runs of SHINGLE_WORDS words, and two documents are alike by their
Jaccard similarity: shared shingles over all shingles. The least value that a random hash takes on a set is the
same for two sets with a probability that is their similarity (Broder 1997), so N_HASHES such values, the
signature, estimate it with a standard error of sqrt(J (1 - J) / N_HASHES): 0.027 at J = 0.75. Signatures are cut
into bands of some rows, and only documents that agree in a whole band are compared (Leskovec, Rajaraman and
Ullman, Mining of Massive Datasets, section 3.4).
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy

from hornbook.corpus.engine import load_daft

if TYPE_CHECKING:
    from daft import Expression

# Half of the hashes would miss 8 in 100 pairs that are 0.05 above the threshold, these miss 2 (and of those
# evenly spread above it, 1 in 1,000).
N_HASHES = 256
# As in FineWeb (Penedo et al. 2024) and in text-dedup.
SHINGLE_WORDS = 5
# Share of the pairs just at the threshold that may meet in no band.
MISSED_AT_THRESHOLD = 0.01
_PAIRS_AT_ONCE = 2**16


def signature(plain_text: "Expression") -> "Expression":
    """N_HASHES 32-bit numbers for each text. A text of fewer than SHINGLE_WORDS words is one shingle."""
    return load_daft().functions.minhash(
        plain_text, num_hashes=N_HASHES, ngram_size=SHINGLE_WORDS, hash_function="xxhash3_64"
    )


class Banding(NamedTuple):
    """How a signature is cut: `n_bands` bands of `n_rows` numbers each."""

    n_bands: int
    n_rows: int

    def meeting(self, similarity: float) -> float:
        """The probability that two documents of this Jaccard similarity agree in at least one band."""
        return 1 - (1 - similarity**self.n_rows) ** self.n_bands


def banding(threshold: float) -> Banding:
    """The longest bands, which bring the fewest dissimilar documents together, that miss few similar ones."""
    cuts = [Banding(N_HASHES // n_rows, n_rows) for n_rows in range(N_HASHES, 0, -1)]
    return next(cut for cut in cuts if cut.meeting(threshold) >= 1 - MISSED_AT_THRESHOLD)


class Digest(NamedTuple):
    """What is kept of the signatures of n documents.

    Attributes:
        bands: (n_bands, n) 64-bit hashes of the bands.
        low_bytes: (n, N_HASHES) the low byte of each number. Different numbers share it one time in 256, which
            `estimated_jaccard` corrects for (Li and König 2010, b-bit minwise hashing): a quarter of the memory
            for nearly the same error.
    """

    bands: numpy.ndarray
    low_bytes: numpy.ndarray


def digest(signatures: numpy.ndarray, cut: Banding) -> Digest:
    """The digest of (n, N_HASHES) 32-bit signatures."""
    bands = numpy.zeros((cut.n_bands, len(signatures)), dtype=numpy.uint64)
    for row in range(cut.n_rows):
        bands ^= signatures[:, row : cut.n_bands * cut.n_rows : cut.n_rows].T
        bands *= numpy.uint64(0x9E3779B97F4A7C15)
        bands ^= bands >> numpy.uint64(29)
    return Digest(bands, signatures.astype(numpy.uint8))


def estimated_jaccard(first: numpy.ndarray, second: numpy.ndarray) -> numpy.ndarray:
    """The Jaccard similarity of pairs of documents, from two (n, N_HASHES) arrays of low bytes."""
    by_chance = 1 / 256
    return ((first == second).mean(axis=1) - by_chance) / (1 - by_chance)


class Digests(Protocol):
    """The digests of all documents, wherever they lie. Positions are numbers of documents."""

    def band(self, number: int, positions: numpy.ndarray) -> numpy.ndarray:
        """The hashes of one band."""

    def low_bytes(self, positions: numpy.ndarray) -> numpy.ndarray:
        """Rows of low bytes, in the order of `positions`."""


class StoredDigests:
    """Digests in files of numpy's, one pair for each staged file. Only what is asked for is brought into memory.

    Positions count through the files in the order in which they are given.
    """

    def __init__(self, files: list[tuple[Path, Path]]) -> None:
        self._files = files
        sizes = [numpy.load(low_bytes, mmap_mode="r").shape[0] for _, low_bytes in files]
        self._firsts = numpy.cumsum([0, *sizes])

    def band(self, number: int, positions: numpy.ndarray) -> numpy.ndarray:
        """The hashes of one band."""
        return self._gather(positions, 0, lambda stored: stored[number], numpy.empty(len(positions), numpy.uint64))

    def low_bytes(self, positions: numpy.ndarray) -> numpy.ndarray:
        """Rows of low bytes, in the order of `positions`."""
        return self._gather(
            positions, 1, lambda stored: stored, numpy.empty((len(positions), N_HASHES), dtype=numpy.uint8)
        )

    def _gather(
        self,
        positions: numpy.ndarray,
        which: int,
        part: Callable[[numpy.ndarray], numpy.ndarray],
        out: numpy.ndarray,
    ) -> numpy.ndarray:
        order = numpy.argsort(positions, kind="stable")
        cuts = numpy.searchsorted(positions[order], self._firsts)
        for file, first, start, stop in zip(self._files, self._firsts, cuts, cuts[1:], strict=False):
            if start < stop:
                # Mapped anew each time: pages of a mapping that is gone do not count as resident memory.
                stored = part(numpy.load(file[which], mmap_mode="r"))
                places = order[start:stop]
                out[places] = stored[positions[places] - first]
        return out


def find_near_duplicates(digests: Digests, positions: numpy.ndarray, cut: Banding, threshold: float) -> numpy.ndarray:
    """Which documents repeat an earlier one, nearly.

    The documents are gone through in their order, and each is dropped that is similar to an earlier one which is
    kept. So the first of a cluster stays, each dropped document has its like among the kept ones, and no two kept
    ones are similar. Joining whatever hangs together by a chain (union-find) would promise the last but not the
    second: the ends of a chain may have nothing in common.

    Args:
        digests: what is known of all documents.
        positions: where the digests of the documents in question are, in the order of the documents.
        cut: the banding with which the digests were made.
        threshold: the estimated Jaccard similarity from which two documents are similar.

    Returns for each of `positions` the number, within `positions`, of the kept document that it repeats, or -1.
    """

    def are_similar(first: numpy.ndarray, second: numpy.ndarray) -> numpy.ndarray:
        verdicts = numpy.empty(len(first), dtype=bool)
        for start in range(0, len(first), _PAIRS_AT_ONCE):
            block = slice(start, start + _PAIRS_AT_ONCE)
            pair = [digests.low_bytes(positions[side[block]]) for side in (first, second)]
            verdicts[block] = estimated_jaccard(*pair) >= threshold
        return verdicts

    keeper = numpy.full(len(positions), -1, dtype=numpy.int64)
    found: list[numpy.ndarray] = []
    while True:
        # Within a round only some pairs of a cluster are looked at. A round over the kept documents that finds no
        # pair proves that the greedy pass over what was found equals the one over all similar pairs.
        kept = active = numpy.flatnonzero(keeper < 0)
        is_similar = numpy.zeros(len(positions), dtype=bool)
        n_found = len(found)
        for number in range(cut.n_bands):
            pairs = _similar_pairs(digests.band(number, positions[active]), active, are_similar)
            if len(pairs):
                found.append(pairs)
                is_similar[pairs[:, 1]] = True
                active = active[~is_similar[active]]
        if len(found) == n_found or len(kept) < 2:
            return keeper
        keeper = _first_similar(numpy.concatenate(found), len(positions))


def _similar_pairs(
    bands: numpy.ndarray,
    documents: numpy.ndarray,
    are_similar: Callable[[numpy.ndarray, numpy.ndarray], numpy.ndarray],
) -> numpy.ndarray:
    """Similar pairs among documents that agree in a band: an (n, 2) array, the earlier document first.

    All documents of a bucket are compared with its first one. Those that are not like it are compared with the
    first among themselves, and so on, so a bucket of n copies takes n comparisons and not n^2.
    """
    order = numpy.argsort(bands, kind="stable")
    bucket, members = bands[order], documents[order]
    pairs = [numpy.empty((0, 2), dtype=documents.dtype)]
    while True:
        is_first = numpy.append(True, bucket[1:] != bucket[:-1])[: len(bucket)]
        others = numpy.flatnonzero(~is_first)
        if not len(others):
            return numpy.concatenate(pairs)
        leaders = members[is_first][numpy.cumsum(is_first)[others] - 1]
        verdicts = are_similar(leaders, members[others])
        pairs.append(numpy.stack([leaders[verdicts], members[others[verdicts]]], axis=1))
        unlike = others[~verdicts]
        bucket, members = bucket[unlike], members[unlike]


def _first_similar(pairs: numpy.ndarray, n_documents: int) -> numpy.ndarray:
    """For each document the first kept one that it is similar to, or -1 where it is itself kept."""
    keeper = [-1] * n_documents
    for first, second in pairs[numpy.lexsort((pairs[:, 0], pairs[:, 1]))].tolist():
        if keeper[second] < 0 and keeper[first] < 0:
            keeper[second] = first
    return numpy.array(keeper, dtype=numpy.int64)
