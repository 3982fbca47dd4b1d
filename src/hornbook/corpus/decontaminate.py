"""Decontamination: documents that give away what a benchmark asks are dropped, with a receipt.

A benchmark is a list of items, an item a few passages: its context, its question, its longer answers. A
document gives a passage away where it has the passage's words nearly in a row: enough of its runs of RUN_WORDS
words, within a stretch not much longer than the passage. GPT-3 asks for one shared run of 13 words (Brown et al.
2020, appendix C), which a word changed in the middle of a sentence hides, and which two texts of the same
template share. Here, as in Llama 2 (Touvron et al. 2023, appendix A.6), what counts is the share of the passage
that is found:

- Passages of fewer than MIN_PASSAGE_WORDS words prove nothing, nor do runs that stand in more than MAX_PASSAGES
  of a benchmark's passages: those are its template ("Which of the following is"). What is left of a passage must
  be MIN_RUNS runs or more.
- One edit in every WORDS_PER_EDIT words is forgiven, and an edit spoils up to RUN_WORDS runs. Where a passage is made
  from a template, one for every WORDS_PER_EDIT runs that count: so none in short ones, where another number makes
  another question.
- At least MIN_RUNS must be found, which is eight words in a row.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy
import pyarrow
import pyarrow.compute

from hornbook.corpus.benchmarks import Benchmark
from hornbook.corpus.deduplicate import plain
from hornbook.corpus.engine import load_daft
from hornbook.corpus.ngrams import ngrams

if TYPE_CHECKING:
    from daft import Expression

# The reason with which such documents are dropped.
CONTAMINATED = "contaminated"
RUN_WORDS = 5
MIN_PASSAGE_WORDS = 8
MIN_RUNS = MIN_PASSAGE_WORDS - RUN_WORDS + 1
MAX_PASSAGES = 10
WORDS_PER_EDIT = 12
OVERLAP_CHARACTERS = 500


@dataclass(frozen=True)
class Passages:
    """The passages of all benchmarks, ready to be looked for.

    Attributes:
        item: for each passage the number of its benchmark and of its item there. One that stands in several items
            counts once, for the first.
        n_words: its length.
        n_runs: how many of its runs count.
        n_needed: how many of them, at least, a document must have to give it away.
        run: the runs that count, sorted hashes, each once for every passage it stands in.
        passage: the passage of each of `run`.
        may_occur: bits, of which that of each of `run` is set. Most runs of most documents stand in no passage,
            and one look at a bit tells.
    """

    item: tuple[tuple[int, int], ...]
    n_words: numpy.ndarray
    n_runs: numpy.ndarray
    n_needed: numpy.ndarray
    run: numpy.ndarray
    passage: numpy.ndarray
    may_occur: numpy.ndarray


def index_passages(benchmarks: Iterable[Benchmark]) -> Passages:
    """Index what is distinctive of each passage; those of which too little is left cannot be found."""
    items: list[tuple[int, int]] = []
    parts = [_empty_part()]
    for number, benchmark in enumerate(benchmarks):
        named = [(n, passage) for n, item in enumerate(benchmark.items) for passage in item.passages]
        own, part = _index_benchmark(named, len(items))
        items += [(number, item) for item in own]
        parts.append(part)
    n_words, n_runs, n_needed, run, passage = (numpy.concatenate(columns) for columns in zip(*parts, strict=True))
    order = numpy.argsort(run, kind="stable")
    bits = numpy.zeros(max(8, 1 << (16 * len(run)).bit_length()), dtype=bool)
    bits[run & numpy.uint64(len(bits) - 1)] = True
    may_occur = numpy.packbits(bits, bitorder="little")
    return Passages(tuple(items), n_words, n_runs, n_needed, run[order], passage[order], may_occur)


def _empty_part() -> tuple[numpy.ndarray, ...]:
    counts = [numpy.empty(0, dtype=numpy.int64) for _ in range(3)]
    return (*counts, numpy.empty(0, dtype=numpy.uint64), numpy.empty(0, dtype=numpy.int64))


def _index_benchmark(named: list[tuple[int, str]], first: int) -> tuple[list[int], tuple[numpy.ndarray, ...]]:
    """The items whose passages can be found, and columns for `Passages`; passages are numbered from `first`."""
    if not named:
        return [], _empty_part()
    daft = load_daft()
    words = daft.from_pydict({"text": [text for _, text in named]}).select(plain(daft.col("text"))).to_pydict()["text"]
    distinct: dict[str, int] = {}
    for (item, _), text in zip(named, words, strict=True):
        distinct.setdefault(text, item)
    n_words = numpy.array([len(text.split()) for text in distinct])
    pieces = list(ngrams(pyarrow.array(distinct, pyarrow.large_string()), RUN_WORDS))
    pairs = numpy.unique(
        numpy.rec.fromarrays([numpy.concatenate([getattr(p, name) for p in pieces]) for name in ("hash", "document")])
    )
    hashes, passage = pairs["f0"], pairs["f1"]
    _, which, n_passages = numpy.unique(hashes, return_inverse=True, return_counts=True)
    counts = n_passages[which] <= MAX_PASSAGES
    n_runs = numpy.bincount(passage[counts], minlength=len(n_words))
    has_template = n_runs < numpy.bincount(passage, minlength=len(n_words))
    n_edits = numpy.where(has_template, n_runs, n_runs + RUN_WORDS - 1) // WORDS_PER_EDIT
    n_needed = numpy.maximum(MIN_RUNS, n_runs - RUN_WORDS * n_edits)
    can_be_found = (n_words >= MIN_PASSAGE_WORDS) & (n_runs >= MIN_RUNS)
    number = numpy.cumsum(can_be_found) - 1 + first
    counts &= can_be_found[passage]
    items = [item for item, is_found in zip(distinct.values(), can_be_found.tolist(), strict=True) if is_found]
    columns = (n_words, n_runs, n_needed)
    return items, (*(c[can_be_found] for c in columns), hashes[counts], number[passage[counts]])


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
            hit = _densest(piece.word[row[group]], piece.hash[row[group]], int(passages.n_words[number]))
            if hit.n_runs >= passages.n_needed[number]:
                words = texts[document].as_py().split()[hit.first_word : hit.last_word + RUN_WORDS]
                found[document].append(
                    {
                        "passage": number,
                        "share": hit.n_runs / int(passages.n_runs[number]),
                        "overlap": " ".join(words)[:OVERLAP_CHARACTERS],
                    }
                )
    return found


def _may_occur(hashes: numpy.ndarray, bits: numpy.ndarray) -> numpy.ndarray:
    place = hashes & numpy.uint64(8 * len(bits) - 1)
    return bits[place >> numpy.uint64(3)] >> (place & numpy.uint64(7)).astype(numpy.uint8) & 1


class _Stretch(NamedTuple):
    n_runs: int
    first_word: int
    last_word: int


def _densest(words: numpy.ndarray, hashes: numpy.ndarray, n_words: int) -> _Stretch:
    """The stretch with the most different runs, no longer than a passage with every other word doubled."""
    best = _Stretch(0, 0, 0)
    longest = 3 * n_words // 2
    within: dict[int, int] = {}
    start = 0
    for word, run in zip(words.tolist(), hashes.tolist(), strict=True):
        within[run] = within.get(run, 0) + 1
        while word - words[start] > longest:
            oldest = int(hashes[start])
            within[oldest] -= 1
            if not within[oldest]:
                del within[oldest]
            start += 1
        if len(within) > best.n_runs:
            best = _Stretch(len(within), int(words[start]), word)
    return best


class Receipt:
    """What was removed and why, gathered from the dropped documents table by table."""

    def __init__(self, benchmarks: Sequence[Benchmark], passages: Passages) -> None:
        self._benchmarks = benchmarks
        self._passages = passages
        self._removed: list[dict[str, Any]] = []

    def add(self, dropped: pyarrow.Table) -> None:
        """Note the documents of a table (id, source, overlaps) that give something away."""
        touched = dropped.filter(pyarrow.compute.greater(pyarrow.compute.list_value_length(dropped["overlaps"]), 0))
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
            "documents_removed": len({(entry["source"], entry["document"]) for entry in self._removed}),
            "removed": self._removed,
        }
