"""What of a benchmark's passages is distinctive enough to be looked for in a corpus.

A benchmark is a list of items, an item a few passages: its context, its question, its longer answers. A
document gives a passage away where it has the passage's words nearly in a row: enough of its runs of RUN_WORDS
words, within a stretch not much longer than the passage. GPT-3 asks for one shared run of 13 words (Brown et al.
2020, appendix C), which a word changed in the middle of a sentence hides, and which two texts of the same
template share. Here, as in Llama 2 (Touvron et al. 2023, appendix A.6), what counts is the share of the passage
that is found:

- Passages of fewer than MIN_PASSAGE_WORDS words prove nothing, nor do runs that stand in more than MAX_PASSAGES
  of a benchmark's passages: those are its template ("Which of the following is").
- One edit in every WORDS_PER_EDIT words is forgiven, and an edit spoils up to RUN_WORDS runs. Where a passage is made
  from a template, one for every WORDS_PER_EDIT runs that count. At least MIN_RUNS must be found, which is eight words
  in a row.
- Of passages of fewer than SHORT_WORDS words an edit leaves too little for that. They are compared word by word, and
  one word may be edited, unless half of their runs or more are a template's, or a passage of another item differs
  from them in one word alone: there another word makes another question.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy
import pyarrow

from hornbook.corpus.benchmarks import Benchmark
from hornbook.corpus.deduplicate import plain_texts
from hornbook.corpus.ngrams import ngrams
from hornbook.corpus.short_passages import MIN_PASSAGE_WORDS, ShortPassage
from hornbook.recipe_data import CleaningSection

RUN_WORDS = 4
MIN_RUNS = MIN_PASSAGE_WORDS - RUN_WORDS + 1
MAX_PASSAGES = 10
WORDS_PER_EDIT = 12
SHORT_WORDS = 16


@dataclass(frozen=True)
class Passages:
    """The passages of all benchmarks, ready to be looked for.

    Attributes:
        item: for each passage the number of its benchmark and of its item there. One that stands in several items
            counts once, for the first.
        n_words: its length.
        n_runs: how many of its runs count.
        n_needed: how many of them, at least, a document must have to give it away; of a short one, to be compared
            with it word by word.
        short: the short ones, by their number.
        run: the runs that count, sorted hashes, each once for every passage it stands in.
        passage: the passage of each of `run`.
        may_occur: bits, of which that of each of `run` is set. Most runs of most documents stand in no passage,
            and one look at a bit tells.
    """

    item: tuple[tuple[int, int], ...]
    n_words: numpy.ndarray
    n_runs: numpy.ndarray
    n_needed: numpy.ndarray
    short: dict[int, ShortPassage]
    run: numpy.ndarray
    passage: numpy.ndarray
    may_occur: numpy.ndarray


def index_passages(benchmarks: Iterable[Benchmark], cleaning: CleaningSection | None = None) -> Passages:
    """Index what is distinctive of each passage; those of which too little is left cannot be found.

    cleaning: how the documents are cleaned in which they are looked for. What it does to a document it must do to the
    passages as well: "$5.40" is "5 40" after the classic one, and "540" without.
    """
    items: list[tuple[int, int]] = []
    short: dict[int, ShortPassage] = {}
    parts = [_empty_part()]
    for number, benchmark in enumerate(benchmarks):
        named = [(n, passage) for n, item in enumerate(benchmark.items) for passage in item.passages]
        own, own_short, part = _index_benchmark(named, len(items), cleaning)
        items += [(number, item) for item in own]
        short |= own_short
        parts.append(part)
    n_words, n_runs, n_needed, run, passage = (numpy.concatenate(columns) for columns in zip(*parts, strict=True))
    order = numpy.argsort(run, kind="stable")
    bits = numpy.zeros(max(8, 1 << (16 * len(run)).bit_length()), dtype=bool)
    bits[run & numpy.uint64(len(bits) - 1)] = True
    may_occur = numpy.packbits(bits, bitorder="little")
    return Passages(tuple(items), n_words, n_runs, n_needed, short, run[order], passage[order], may_occur)


def _empty_part() -> tuple[numpy.ndarray, ...]:
    counts = [numpy.empty(0, dtype=numpy.int64) for _ in range(3)]
    return (*counts, numpy.empty(0, dtype=numpy.uint64), numpy.empty(0, dtype=numpy.int64))


def _index_benchmark(
    named: list[tuple[int, str]], first: int, cleaning: CleaningSection | None
) -> tuple[list[int], dict[int, ShortPassage], tuple[numpy.ndarray, ...]]:
    """The items whose passages can be found, the words of the short ones, and columns for `Passages`.

    Passages are numbered from `first`.
    """
    if not named:
        return [], {}, _empty_part()
    distinct: dict[str, int] = {}
    plain = plain_texts([text for _, text in named], cleaning).to_pylist()
    for (item, _), text in zip(named, plain, strict=True):
        distinct.setdefault(text, item)
    words = [text.split() for text in distinct]
    n_words = numpy.array([len(of_one) for of_one in words])
    hashes, passage = _runs(pyarrow.array(distinct, pyarrow.large_string()))
    _, which, n_passages = numpy.unique(hashes, return_inverse=True, return_counts=True)
    # Of a passage that is all template the rarest run counts, so that it can be found where it stands as it is.
    rarest = numpy.full(len(words), len(words) + 1)
    numpy.minimum.at(rarest, passage, n_passages[which])
    counts = n_passages[which] <= numpy.maximum(MAX_PASSAGES, rarest[passage])
    n_all_runs, n_runs = (numpy.bincount(some, minlength=len(words)) for some in (passage, passage[counts]))
    n_edits = numpy.where(n_runs < n_all_runs, n_runs, n_runs + RUN_WORDS - 1) // WORDS_PER_EDIT
    n_needed = numpy.maximum(MIN_RUNS, n_runs - RUN_WORDS * n_edits)
    is_short = (n_words >= MIN_PASSAGE_WORDS) & (n_words < SHORT_WORDS)
    may_be_edited = (2 * n_runs > n_all_runs) & ~_has_sibling(words, list(distinct.values()), is_short)
    n_needed[is_short] = numpy.where(may_be_edited, numpy.maximum(1, n_runs - RUN_WORDS), n_runs)[is_short]
    can_be_found = is_short | ((n_words >= SHORT_WORDS) & (n_runs >= MIN_RUNS))
    number = numpy.cumsum(can_be_found) - 1 + first
    counts &= can_be_found[passage]
    items = [item for item, is_found in zip(distinct.values(), can_be_found.tolist(), strict=True) if is_found]
    short = {
        int(number[n]): ShortPassage(words[n], bool(may_be_edited[n]))
        for n in numpy.flatnonzero(is_short & can_be_found)
    }
    columns = (n_words, n_runs, n_needed)
    return items, short, (*(c[can_be_found] for c in columns), hashes[counts], number[passage[counts]])


def _has_sibling(words: list[list[str]], items: list[int], is_short: numpy.ndarray) -> numpy.ndarray:
    """Which of the short passages differ from one of another item in one word alone."""
    latest: dict[tuple[str, ...], int] = {}
    found = numpy.zeros(len(words), dtype=bool)
    for number in numpy.flatnonzero(is_short).tolist():
        of_one = words[number]
        for place in range(len(of_one)):
            other = latest.setdefault((*of_one[:place], "", *of_one[place + 1 :]), number)
            if items[other] != items[number]:
                found[[other, number]] = True
    return found


def _runs(texts: pyarrow.Array) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The hashes of the runs of all texts, each once for every text it stands in, and the number of this text."""
    pieces = list(ngrams(texts, RUN_WORDS))
    hashes, text = (numpy.concatenate([getattr(piece, name) for piece in pieces]) for name in ("hash", "document"))
    order = numpy.lexsort((text, hashes))
    hashes, text = hashes[order], text[order]
    is_new = numpy.append(True, (numpy.diff(hashes) != 0) | (numpy.diff(text) != 0))[: len(order)]
    return hashes[is_new], text[is_new]
