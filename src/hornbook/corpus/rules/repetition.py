"""Gopher's rules of repetition: Rae et al. 2021, appendix A.1.1 and table A1.

Texts that repeat themselves are told by the share of lines and paragraphs that stood in the text before, and
by n-grams of words. Characters of an n-gram are those of its words; all shares of characters are shares of
the whole text, blanks counted. The counting is that of datatrove 0.10.1.
"""

import numpy

from hornbook.corpus.rules.ratio import ratio
from hornbook.corpus.text_batch import TextBatch


def duplicate_line_fraction(batch: TextBatch) -> numpy.ndarray:
    """Share of the lines that stood in the text before, empty ones aside. Gopher keeps up to 0.30."""
    return ratio(batch.lines.sum(batch.line_is_repeated), batch.lines.count)


def duplicate_line_character_fraction(batch: TextBatch) -> numpy.ndarray:
    """Share of the characters in lines that stood in the text before. Gopher keeps up to 0.20."""
    return ratio(batch.lines.sum(batch.lines.length * batch.line_is_repeated), batch.n_characters)


def duplicate_paragraph_fraction(batch: TextBatch) -> numpy.ndarray:
    """Share of the paragraphs that stood in the text before. Gopher keeps up to 0.30."""
    return ratio(batch.paragraphs.sum(batch.paragraph_is_repeated), batch.paragraphs.count)


def duplicate_paragraph_character_fraction(batch: TextBatch) -> numpy.ndarray:
    """Share of the characters in paragraphs that stood in the text before. Gopher keeps up to 0.20."""
    in_repeated = batch.paragraphs.sum(batch.paragraphs.length * batch.paragraph_is_repeated)
    return ratio(in_repeated, batch.n_characters)


def top_ngram_character_fraction(batch: TextBatch, n: int) -> numpy.ndarray:
    """Share of the characters in all occurrences of the most frequent n-gram, with a blank between its words.

    Of n-grams that are equally frequent, the one that comes first counts. Gopher keeps up to 0.20, 0.18 and
    0.16 for n = 2, 3 and 4.
    """
    words, repeats = batch.words, batch.repeats(n)
    has_ngram = words.count >= n
    first, times = words.first[:-1].copy(), has_ngram.astype(int)
    if len(repeats.code):
        frequency = numpy.bincount(repeats.code)
        place = repeats.position[numpy.unique(repeats.code, return_index=True)[1]]
        text = words.text[place]
        by_frequency = numpy.lexsort((-frequency, text))
        text, which = numpy.unique(text[by_frequency], return_index=True)
        first[text], times[text] = place[by_frequency][which], frequency[by_frequency][which]
    length = numpy.zeros(len(first), int)
    first = first[has_ngram]
    length[has_ngram] = batch.words_before[first + n] - batch.words_before[first] + n - 1
    return ratio(times * length, batch.n_characters)


def duplicate_ngram_character_fraction(batch: TextBatch, n: int) -> numpy.ndarray:
    """Share of the characters in n-grams that stood in the text before.

    The text is read from its beginning, word by word. Where an n-gram was read before, its characters count
    and reading goes on behind it, so no character counts twice, and n-grams that begin inside of it are not
    read. Gopher keeps up to 0.15, 0.14, 0.13, 0.12, 0.11 and 0.10 for n = 5 to 10.
    """
    words, repeats = batch.words, batch.repeats(n)
    was_read = bytearray(len(repeats.code))
    found, next_to_read = [], 0
    for position, code in zip(repeats.position.tolist(), repeats.code.tolist(), strict=True):
        if position < next_to_read:
            continue
        if was_read[code]:
            found.append(position)
            next_to_read = position + n
        else:
            was_read[code] = True
    again = numpy.array(found, int)
    n_characters = batch.words_before[again + n] - batch.words_before[again]
    return ratio(numpy.bincount(words.text[again], n_characters, len(words.count)), batch.n_characters)
