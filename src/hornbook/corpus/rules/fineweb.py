"""FineWeb's own rules: Penedo et al. 2024, "The FineWeb Datasets: Decanting the Web for the Finest Text Data
at Scale", section 3.6.

Lines that are blank do not count.
"""

import numpy

from hornbook.corpus.character_kinds import SENTENCE_END
from hornbook.corpus.rules.ratio import ratio
from hornbook.corpus.text_batch import TextBatch

SHORT_LINE_CHARACTERS = 30
_NEWLINE = ord("\n")


def punctuated_line_fraction(batch: TextBatch) -> numpy.ndarray:
    """Share of the lines whose last character ends a sentence (Unicode's property). FineWeb keeps from 0.12."""
    is_punctuated = (batch.kinds[batch.lines.end - 1] & SENTENCE_END) != 0
    return ratio(batch.lines.sum(is_punctuated), _line_count(batch))


def short_line_fraction(batch: TextBatch) -> numpy.ndarray:
    """Share of the lines of at most 30 characters. FineWeb keeps up to 0.67."""
    is_short = (batch.lines.length <= SHORT_LINE_CHARACTERS) & ~batch.line_is_blank
    return ratio(batch.lines.sum(is_short), _line_count(batch))


def repeated_line_character_fraction(batch: TextBatch) -> numpy.ndarray:
    """Share of the characters, newlines aside, in lines that stood in the text before. FineWeb keeps up to 0.01."""
    is_repeated = batch.line_is_repeated & ~batch.line_is_blank
    n_characters = batch.n_characters - _newline_count(batch)
    return ratio(batch.lines.sum(batch.lines.length * is_repeated), n_characters)


def newline_to_word_ratio(batch: TextBatch) -> numpy.ndarray:
    """Newlines for each word: lists have many. FineWeb's code keeps up to 0.3."""
    return ratio(_newline_count(batch), batch.words.count)


def _line_count(batch: TextBatch) -> numpy.ndarray:
    return batch.lines.sum(~batch.line_is_blank)


def _newline_count(batch: TextBatch) -> numpy.ndarray:
    return batch.count(batch.characters == _NEWLINE) - 1
