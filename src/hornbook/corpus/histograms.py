"""Histograms of documents, kept against dropped: how long they are, and how they score on the main rules.

They are made of a sample of a fixed size of each, so that they take little time and memory however large the
corpus is. The bins are the same for every corpus, so that corpora can be compared.
"""

from dataclasses import dataclass
from typing import Any

import numpy
import pyarrow
import pyarrow.compute

from hornbook.corpus.filters import MEASURES
from hornbook.corpus.sampling import draws
from hornbook.corpus.text_batch import text_batches
from hornbook.recipe_data import FilterSection

# Of the kept, and as many of the dropped, of which there may be few.
SAMPLED_DOCUMENTS = 2500


@dataclass(frozen=True)
class Score:
    """One score of a text.

    Attributes:
        name: what it says, and its unit.
        rules: the rules that go by it, which have the same measure.
        end: where the bins end; they begin at 0, and the last one takes what is beyond. None for bins that
            grow by the square root of two.
        n_bins: number of bins, all of the same width.
    """

    name: str
    rules: tuple[str, ...]
    end: float | None = 1.0
    n_bins: int = 20

    @property
    def edges(self) -> list[float]:
        """The edges of the bins, one more than there are bins."""
        if self.end is None:
            return [0, *sorted({round(2 ** (n / 2)) for n in range(41)})]
        return [round(self.end * n / self.n_bins, 6) for n in range(self.n_bins + 1)]


SCORES = (
    Score("words", ("min_words", "max_words"), None),
    Score("mean word length (characters)", ("min_mean_word_length", "max_mean_word_length"), 15, 30),
    Score("different stop words", ("min_stop_words",), 9, 9),
    Score("words with a letter (share)", ("min_alphabetic_word_fraction",)),
    Score("# or ellipses for each word", ("max_symbol_to_word_ratio",), 0.5),
    Score("lines that repeat one (share)", ("max_duplicate_line_fraction",)),
    Score("characters in repeated 5-grams (share)", ("max_duplicate_5gram_character_fraction",)),
    Score("lines that end a sentence (share)", ("min_punctuated_line_fraction",)),
    Score("lines up to 30 characters (share)", ("max_short_line_fraction",)),
)


class Histograms:
    """Samples documents table by table; `finish` gives the counts."""

    def __init__(self, section: FilterSection) -> None:
        self._section = section
        self._sampled = {fate: _Sample() for fate in ("kept", "dropped")}

    def add(self, kept: pyarrow.Table, dropped: pyarrow.Table) -> None:
        """Look at one table of judged documents; what was set aside has no text to measure."""
        self._sampled["kept"].add(kept)
        self._sampled["dropped"].add(dropped.filter(pyarrow.compute.is_null(dropped["problem"])))

    def finish(self) -> dict[str, Any]:
        """How many documents were sampled, and for each score its bins, their counts, and the recipe's thresholds.

        A bin holds the values from its edge up to the next one; the last one also holds all that are greater.
        """
        return {
            "documents": {fate: len(sample.scores) for fate, sample in self._sampled.items()},
            "scores": [
                {
                    "score": score.name,
                    "thresholds": {
                        rule: getattr(self._section, rule)
                        for rule in score.rules
                        if getattr(self._section, rule) is not None
                    },
                    "edges": score.edges,
                    **{fate: _counts(sample.scores[:, n], score) for fate, sample in self._sampled.items()},
                }
                for n, score in enumerate(SCORES)
            ],
        }


class _Sample:
    """The scores of the documents with the smallest draws."""

    def __init__(self) -> None:
        self._draws = numpy.zeros(0, numpy.uint64)
        self.scores = numpy.zeros((0, len(SCORES)))

    def add(self, documents: pyarrow.Table) -> None:
        own = draws(documents["id"])
        chosen = numpy.argsort(own, kind="stable")[:SAMPLED_DOCUMENTS]
        if len(self._draws) == SAMPLED_DOCUMENTS:
            chosen = chosen[own[chosen] < self._draws[-1]]
        together = numpy.append(self._draws, own[chosen])
        scores = numpy.concatenate([self.scores, _measure(documents["text"].take(pyarrow.array(chosen)))])
        smallest = numpy.argsort(together, kind="stable")[:SAMPLED_DOCUMENTS]
        self._draws, self.scores = together[smallest], scores[smallest]


def _measure(texts: pyarrow.ChunkedArray) -> numpy.ndarray:
    """A row of scores for each text."""
    rows = [numpy.zeros((0, len(SCORES)))]
    for batch in text_batches(texts.combine_chunks()):
        rows.append(numpy.stack([MEASURES[score.rules[0]](batch) for score in SCORES], axis=1))
    return numpy.concatenate(rows)


def _counts(values: numpy.ndarray, score: Score) -> list[int]:
    place = numpy.searchsorted(score.edges, values, side="right") - 1
    n_bins = len(score.edges) - 1
    counts: list[int] = numpy.bincount(numpy.minimum(place, n_bins - 1), minlength=n_bins).tolist()
    return counts
