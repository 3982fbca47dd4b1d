"""Decontamination: documents that give away what a benchmark asks are dropped, with a receipt.

What counts as given away stands in `passages`.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy
import pyarrow
import pyarrow.compute

from hornbook.corpus.benchmarks import Benchmark
from hornbook.corpus.engine import load_daft
from hornbook.corpus.ngrams import ngrams
from hornbook.corpus.passages import RUN_WORDS, Passages
from hornbook.corpus.short_passages import ShortPassage

if TYPE_CHECKING:
    from daft import Expression

# The reason with which such documents are dropped.
CONTAMINATED = "contaminated"
OVERLAP_CHARACTERS = 500


def overlaps(plain_text: "Expression", passages: Passages) -> "Expression":
    """What each document gives away: a list of (passage, share of its runs that was found, the words themselves).

    Args:
        plain_text: string column, as `deduplicate.plain` leaves it.
        passages: what to look for.
    """
    daft = load_daft()
    fields = {
        "passage": daft.DataType.int64(),
        "share": daft.DataType.float64(),
        "overlap": daft.DataType.string(),
    }

    @daft.func.batch(return_dtype=daft.DataType.list(daft.DataType.struct(fields)))
    def find_batch(texts):  # type: ignore[no-untyped-def]
        return find_overlaps(texts.to_arrow(), passages)

    return find_batch(plain_text)


def find_overlaps(texts: pyarrow.Array, passages: Passages) -> list[list[dict[str, Any]]]:
    """The same for a column of plain texts."""
    found: list[list[dict[str, Any]]] = [[] for _ in range(len(texts))]
    if not len(passages.run):
        return found
    latest, words = -1, [""]
    for piece in ngrams(texts, RUN_WORDS):
        candidates = numpy.flatnonzero(_may_occur(piece.hash, passages.may_occur))
        hashes = piece.hash[candidates]
        start = numpy.searchsorted(passages.run, hashes, side="left")
        n_hits = numpy.searchsorted(passages.run, hashes, side="right") - start
        # Each run of the document once for every passage that has it.
        row = numpy.repeat(candidates, n_hits)
        passage = passages.passage[numpy.repeat(start + n_hits - numpy.cumsum(n_hits), n_hits) + numpy.arange(len(row))]
        pair = piece.document[row] * len(passages.item) + passage
        order = numpy.argsort(pair, kind="stable")
        firsts = numpy.flatnonzero(numpy.append(True, numpy.diff(pair[order]))[: len(order)])
        sizes = numpy.diff(firsts, append=len(order))
        is_enough = sizes >= passages.n_needed[passage[order[firsts]]]
        for first, size in zip(firsts[is_enough].tolist(), sizes[is_enough].tolist(), strict=True):
            group = order[first : first + size]
            number, document = int(passage[group[0]]), int(piece.document[row[group[0]]])
            if document != latest:
                latest, words = document, texts[document].as_py().split()
            places = piece.word[row[group]]
            if number in passages.short:
                hit = _nearby(places, words, passages.short[number])
            else:
                hit = _densest(places, piece.hash[row[group]], passages, number)
            if hit is not None:
                overlap = " ".join(words[hit.start : hit.stop])[:OVERLAP_CHARACTERS]
                found[document].append({"passage": number, "share": hit.share, "overlap": overlap})
    return found


def _may_occur(hashes: numpy.ndarray, bits: numpy.ndarray) -> numpy.ndarray:
    place = hashes & numpy.uint64(8 * len(bits) - 1)
    return bits[place >> numpy.uint64(3)] >> (place & numpy.uint64(7)).astype(numpy.uint8) & 1


class _Hit(NamedTuple):
    """What a document has of a passage: the share of it, the first word and that after the last."""

    share: float
    start: int
    stop: int


def _nearby(places: numpy.ndarray, words: list[str], passage: ShortPassage) -> _Hit | None:
    """Where the document has a short passage, around one of its runs, which are at `places`."""
    n_words = len(passage.words)
    for place in places.tolist():
        first = max(0, place - n_words)
        span = passage.find(words[first : place + RUN_WORDS + n_words])
        if span is not None:
            start, stop = (first + word for word in span)
            return _Hit(1.0 if words[start:stop] == passage.words else 1 - 1 / n_words, start, stop)
    return None


def _densest(places: numpy.ndarray, hashes: numpy.ndarray, passages: Passages, number: int) -> _Hit | None:
    """The stretch with the most different runs, no longer than the passage with every other word doubled.

    None where these are not enough.
    """
    most, best_start, best_stop = 0, 0, 0
    longest = 3 * int(passages.n_words[number]) // 2
    within: dict[int, int] = {}
    start = 0
    for place, run in zip(places.tolist(), hashes.tolist(), strict=True):
        within[run] = within.get(run, 0) + 1
        while place - places[start] > longest:
            oldest = int(hashes[start])
            within[oldest] -= 1
            if not within[oldest]:
                del within[oldest]
            start += 1
        if len(within) > most:
            most, best_start, best_stop = len(within), int(places[start]), place + RUN_WORDS
    if most < passages.n_needed[number]:
        return None
    return _Hit(most / int(passages.n_runs[number]), best_start, best_stop)


class Receipt:
    """What was removed and why, gathered from the dropped documents table by table."""

    def __init__(self, benchmarks: Sequence[Benchmark], passages: Passages) -> None:
        self._benchmarks = benchmarks
        self._passages = passages
        self._removed: list[dict[str, Any]] = []
        self._n_documents = 0

    def add(self, dropped: pyarrow.Table) -> None:
        """Note the documents of a table (id, source, overlaps) that give something away."""
        touched = dropped.filter(pyarrow.compute.greater(pyarrow.compute.list_value_length(dropped["overlaps"]), 0))
        self._n_documents += len(touched)
        for row in touched.select(["id", "source", "overlaps"]).to_pylist():
            for overlap in row["overlaps"]:
                number, item = self._passages.item[overlap["passage"]]
                self._removed.append(
                    {
                        "document": row["id"],
                        "source": row["source"],
                        "benchmark": self._benchmarks[number].name,
                        "item": self._benchmarks[number].items[item].id,
                        "share_found": round(overlap["share"], 3),
                        "overlap": overlap["overlap"],
                    }
                )

    def finish(self) -> dict[str, Any]:
        """The receipt, ready to be written as JSON: for each benchmark its items, those with a passage long and
        distinctive enough to be looked for, and those given away; and each document removed, with its overlaps.
        """
        looked_for: Counter[int] = Counter()
        found: Counter[str] = Counter()
        for number, _ in set(self._passages.item):
            looked_for[number] += 1
        for name, _ in {(entry["benchmark"], entry["item"]) for entry in self._removed}:
            found[name] += 1
        return {
            "benchmarks": [
                {
                    "name": benchmark.name,
                    "items": len(benchmark.items),
                    "items_looked_for": looked_for[number],
                    "items_found": found[benchmark.name],
                }
                for number, benchmark in enumerate(self._benchmarks)
            ],
            "documents_removed": self._n_documents,
            "removed": self._removed,
        }
