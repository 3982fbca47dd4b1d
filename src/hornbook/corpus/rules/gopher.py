"""Gopher's rules of quality: Rae et al. 2021, "Scaling Language Models: Methods, Analysis & Insights from
Training Gopher", appendix A.1.1.

The paper does not say how it cuts words. Where it says little, what is counted here is what datatrove 0.10.1
counts, with the words of TextBatch.
"""

import numpy
import pyarrow
import pyarrow.compute

from hornbook.corpus.character_kinds import LETTER, PLAIN
from hornbook.corpus.rules.ratio import ratio
from hornbook.corpus.text_batch import TextBatch

# "contains at least two of the following English words"
STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
_HASH, _HYPHEN, _POINT, _BULLET, _ELLIPSIS = (ord(character) for character in "#-.•…")


def word_count(batch: TextBatch) -> numpy.ndarray:
    """Number of words that are not punctuation or a symbol. Gopher keeps 50 to 100,000."""
    return batch.words.sum(_is_plain(batch))


def mean_word_length(batch: TextBatch) -> numpy.ndarray:
    """Mean characters of the words that are not punctuation or a symbol. Gopher keeps 3 to 10."""
    is_plain = _is_plain(batch)
    return ratio(batch.words.sum(batch.words.length * is_plain), batch.words.sum(is_plain))


def symbol_to_word_ratio(batch: TextBatch) -> numpy.ndarray:
    """Hash signs for each word, or ellipses for each word, whichever are more. Gopher keeps up to 0.1."""
    points = pyarrow.compute.count_substring(batch.texts, "...").to_numpy()
    ellipses = points + batch.count(batch.characters == _ELLIPSIS)
    return ratio(numpy.maximum(batch.count(batch.characters == _HASH), ellipses), batch.words.count)


def bullet_line_fraction(batch: TextBatch) -> numpy.ndarray:
    """Share of the lines, empty ones counted, that begin with a bullet or a hyphen. Gopher keeps up to 0.9."""
    lines = batch.all_lines
    first, last = batch.first_and_last_word(lines)
    begins = numpy.append(batch.characters[batch.words.start], 0)[first]
    is_bullet = (last >= first) & ((begins == _BULLET) | (begins == _HYPHEN))
    return ratio(lines.sum(is_bullet), lines.count)


def ellipsis_line_fraction(batch: TextBatch) -> numpy.ndarray:
    """Share of the lines, empty ones counted, that end with an ellipsis. Gopher keeps up to 0.3."""
    lines = batch.all_lines
    first, last = batch.first_and_last_word(lines)
    word_end = numpy.append(batch.words.end, 0)[last]
    ends = batch.characters[word_end - 1]
    # Points of an ellipsis are one word, whatever their number.
    n_points = numpy.where(ends == _POINT, numpy.append(batch.words.length, 0)[last], 0)
    is_ellipsis = (last >= first) & ((ends == _ELLIPSIS) | (n_points >= 3))
    return ratio(lines.sum(is_ellipsis), lines.count)


def alphabetic_word_fraction(batch: TextBatch) -> numpy.ndarray:
    """Share of the words that have a letter; a punctuation mark is a word without. Gopher keeps from 0.8."""
    return ratio(batch.words.sum((batch.word_kinds & LETTER) != 0), batch.words.count)


def stop_word_count(batch: TextBatch) -> numpy.ndarray:
    """How many of the eight STOP_WORDS occur, in small or capital letters. Gopher keeps from 2."""
    lower = pyarrow.compute.utf8_lower(batch.word_dictionary.dictionary)
    stop_words = pyarrow.array(STOP_WORDS, lower.type)
    which = pyarrow.compute.index_in(lower, stop_words).fill_null(-1).to_numpy()
    which = which[batch.word_dictionary.indices.to_numpy()]
    occurs = numpy.zeros((len(batch.texts), len(STOP_WORDS)), bool)
    occurs[batch.words.text[which >= 0], which[which >= 0]] = True
    return occurs.sum(axis=1)


def _is_plain(batch: TextBatch) -> numpy.ndarray:
    return (batch.word_kinds & PLAIN) != 0
