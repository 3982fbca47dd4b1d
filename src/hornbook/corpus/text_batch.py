"""Many texts at once, cut into characters, words, lines and paragraphs as arrays.

The quality rules ask for these again and again. They are made once for a batch of texts, all texts together,
and only when a rule asks for them. Equal words and equal lines are found by dictionaries of whole strings,
not by hashes, so all counts are exact.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy
import pyarrow
import pyarrow.compute

from hornbook.corpus.character_kinds import APOSTROPHE, BLANK, CONNECTOR, WORD, code_points, kinds_of_all_characters

_NEWLINE = 10
# Arrays of this many characters stay in a core's cache, and a long text cannot make a batch of many.
_CHARACTERS_AT_ONCE = 2**17


@dataclass(frozen=True)
class Pieces:
    """Words, lines or paragraphs of all texts, in their order.

    `start` and `end` are places among the characters. `first` says with which piece each text begins; its
    last entry is the number of pieces.
    """

    start: numpy.ndarray
    end: numpy.ndarray
    first: numpy.ndarray

    @cached_property
    def length(self) -> numpy.ndarray:
        """Characters of each piece."""
        return self.end - self.start

    @cached_property
    def count(self) -> numpy.ndarray:
        """Pieces of each text."""
        return numpy.diff(self.first)

    @cached_property
    def text(self) -> numpy.ndarray:
        """The number of the text to which each piece belongs."""
        return numpy.repeat(numpy.arange(len(self.count)), self.count)

    def sum(self, of_pieces: numpy.ndarray) -> numpy.ndarray:
        """The sum over the pieces of each text."""
        total = numpy.append(0, numpy.cumsum(of_pieces))
        return total[self.first[1:]] - total[self.first[:-1]]


@dataclass(frozen=True)
class Repeats:
    """All places where an n-gram stands that its text has more than once.

    `position` is the number of its first word, among the words of all texts. Equal n-grams of the same text
    have the same `code`; codes are numbered in the order in which they first occur.
    """

    position: numpy.ndarray
    code: numpy.ndarray


class TextBatch:
    """Some texts, and what the rules ask about them."""

    def __init__(self, texts: pyarrow.LargeStringArray) -> None:
        self.texts = texts
        # A newline after each text, so that no word and no line reaches into the next one.
        newline, nothing = (pyarrow.scalar(value, texts.type) for value in ("\n", ""))
        self.closed_texts = pyarrow.compute.binary_join_element_wise(texts, newline, nothing)
        self.n_characters = pyarrow.compute.utf8_length(texts).to_numpy()
        self._text_start = numpy.append(0, numpy.cumsum(self.n_characters + 1))
        self._repeats: dict[int, Repeats] = {}

    @cached_property
    def characters(self) -> numpy.ndarray:
        """Code points of all texts, each with a newline after it."""
        return self._bytes if self._is_ascii else code_points(str(self._bytes.data, "utf-8"))

    @cached_property
    def kinds(self) -> numpy.ndarray:
        """The kinds of each character, as bits."""
        # Every character has its place in the table; not to check that halves the time.
        return kinds_of_all_characters().take(self.characters, mode="clip")

    @cached_property
    def words(self) -> Pieces:
        """The words; every character that is no blank is in one."""
        characters, kinds = self.characters, self.kinds
        in_word = (kinds & WORD) != 0
        can_join = (kinds & (CONNECTOR | APOSTROPHE)) != 0
        in_word[1:-1] |= can_join[1:-1] & in_word[:-2] & in_word[2:]
        not_blank = (kinds & BLANK) == 0
        is_apostrophe = (kinds[1:] & APOSTROPHE) != 0
        goes_on = (in_word[1:] & in_word[:-1] & ~is_apostrophe) | (~in_word[1:] & (characters[1:] == characters[:-1]))
        start = numpy.flatnonzero(numpy.append(True, ~goes_on) & not_blank)
        end = numpy.flatnonzero(numpy.append(~goes_on, True) & not_blank) + 1
        return self._pieces(start, end)

    @cached_property
    def word_kinds(self) -> numpy.ndarray:
        """The kinds of the characters of each word, together."""
        if not len(self.words.start):
            return numpy.empty(0, numpy.uint8)
        return numpy.bitwise_or.reduceat(self.kinds, self.words.start)

    @cached_property
    def words_before(self) -> numpy.ndarray:
        """Characters in all words before each word, and at last in all words."""
        return numpy.append(0, numpy.cumsum(self.words.length))

    @cached_property
    def word_dictionary(self) -> pyarrow.DictionaryArray:
        """Each word as its number in the list of different words."""
        return self._encode(self.words)

    @cached_property
    def all_lines(self) -> Pieces:
        """Lines, empty ones too. A newline at the end of a text begins no line."""
        end = numpy.flatnonzero(self.characters == _NEWLINE)
        start = numpy.append(0, end[:-1] + 1)
        is_line = numpy.ones(len(end), bool)
        at_end = numpy.searchsorted(end, self._text_start[1:] - 1)
        is_line[at_end] = start[at_end] < end[at_end]
        return self._pieces(start[is_line], end[is_line])

    @cached_property
    def lines(self) -> Pieces:
        """Lines that are not empty."""
        lines = self.all_lines
        is_some = lines.end > lines.start
        return self._pieces(lines.start[is_some], lines.end[is_some])

    @cached_property
    def paragraphs(self) -> Pieces:
        """What empty lines part, without the blanks at the ends of the whole text."""
        lines, words = self.lines, self.words
        goes_on = (lines.start[1:] == lines.end[:-1] + 1) & (numpy.diff(lines.text) == 0)
        begins = numpy.append(True, ~goes_on)[: len(lines.start)]
        ends = numpy.append(~goes_on, True)[: len(lines.start)]
        text = lines.text[begins]
        # In a text without words this takes a later word's start and an earlier one's end, and nothing is left.
        start = numpy.maximum(lines.start[begins], numpy.append(words.start, 0)[words.first[:-1]][text])
        end = numpy.minimum(lines.end[ends], numpy.append(words.end, 0)[words.first[1:] - 1][text])
        is_some = end > start
        return self._pieces(start[is_some], end[is_some])

    @cached_property
    def line_is_blank(self) -> numpy.ndarray:
        """Which of the `lines` have nothing but blanks."""
        first, last = self.first_and_last_word(self.lines)
        return last < first

    @cached_property
    def line_is_repeated(self) -> numpy.ndarray:
        """Which of the `lines` stood in the same text before."""
        return self._stood_before(self.lines)

    @cached_property
    def paragraph_is_repeated(self) -> numpy.ndarray:
        """Which of the `paragraphs` stood in the same text before."""
        return self._stood_before(self.paragraphs)

    def first_and_last_word(self, pieces: Pieces) -> tuple[numpy.ndarray, numpy.ndarray]:
        """The numbers of the first and the last word of each piece; the last is the smaller where it has none."""
        starts = self.words.start
        return numpy.searchsorted(starts, pieces.start), numpy.searchsorted(starts, pieces.end) - 1

    def count(self, is_counted: numpy.ndarray) -> numpy.ndarray:
        """How many characters of each text are marked in an array with one entry for each character."""
        place = numpy.flatnonzero(is_counted)
        return numpy.diff(numpy.searchsorted(place, self._text_start))

    def repeats(self, n: int) -> Repeats:
        """The n-grams of words that their text has more than once.

        An n-gram can only be one of them if both (n-1)-grams in it are, and these two tell it from all
        others, so each n has fewer to look at than the one before.
        """
        if n not in self._repeats:
            if n == 1:
                position = numpy.arange(len(self.words.start))
                code = self._within_text(self.word_dictionary.indices.to_numpy(), self.words)
            else:
                shorter = self.repeats(n - 1)
                is_pair = numpy.diff(shorter.position) == 1
                position = shorter.position[:-1][is_pair]
                code = _number(_pair(shorter.code[:-1][is_pair], shorter.code[1:][is_pair]))
            is_repeated = numpy.bincount(code)[code] > 1 if len(code) else numpy.zeros(0, bool)
            self._repeats[n] = Repeats(position[is_repeated], _number(code[is_repeated]))
        return self._repeats[n]

    @cached_property
    def _bytes(self) -> numpy.ndarray:
        """UTF-8 of all texts, each with a newline after it."""
        _, offsets, values = self.closed_texts.buffers()
        bounds = numpy.frombuffer(offsets, numpy.int64)[[0, len(self.closed_texts)]]
        return numpy.frombuffer(values, numpy.uint8)[slice(*bounds)]

    @property
    def _is_ascii(self) -> bool:
        return len(self._bytes) == self._text_start[-1]

    @cached_property
    def _later_bytes(self) -> numpy.ndarray:
        """For each byte that begins no character the number of characters that begin before it."""
        place = numpy.flatnonzero((self._bytes & 0xC0) == 0x80)
        return place - numpy.arange(len(place))

    def _first_byte(self, characters: numpy.ndarray) -> numpy.ndarray:
        """Where characters begin among the bytes, for ascending places among the characters."""
        if self._is_ascii:
            return characters
        next_asked_for = numpy.searchsorted(characters, self._later_bytes)
        n_before = numpy.bincount(next_asked_for, minlength=len(characters))[: len(characters)]
        return characters + numpy.cumsum(n_before)

    def _pieces(self, start: numpy.ndarray, end: numpy.ndarray) -> Pieces:
        return Pieces(start, end, numpy.searchsorted(start, self._text_start))

    def _encode(self, pieces: Pieces) -> pyarrow.DictionaryArray:
        """Each piece as its number in the list of different pieces."""
        encoded = self._pieces_and_gaps(pieces).dictionary_encode()
        return pyarrow.DictionaryArray.from_arrays(encoded.indices[::2], encoded.dictionary)

    def _pieces_and_gaps(self, pieces: Pieces) -> pyarrow.Array:
        """The pieces as strings, and between any two of them what stands there."""
        start, end = self._first_byte(pieces.start), self._first_byte(pieces.end)
        offsets = numpy.append(numpy.stack([start, end], axis=1), len(self._bytes))
        buffers = [None, pyarrow.py_buffer(offsets), pyarrow.py_buffer(self._bytes)]
        return pyarrow.Array.from_buffers(pyarrow.large_string(), len(offsets) - 1, buffers)

    def _stood_before(self, pieces: Pieces) -> numpy.ndarray:
        is_repeated = numpy.zeros(len(pieces.start), bool)
        # Most pieces have a length, a first and a last character that no other one of their text has.
        first, last = self.characters[pieces.start] & 0xFF, self.characters[pieces.end - 1] & 0xFF
        look = _number(pieces.text << 48 | pieces.length << 16 | first.astype(numpy.int64) << 8 | last)
        alike = numpy.flatnonzero(numpy.bincount(look)[look] > 1) if len(look) else look
        if len(alike):
            code = self._pieces_and_gaps(pieces).take(pyarrow.array(2 * alike)).dictionary_encode().indices.to_numpy()
            code = _number(_pair(pieces.text[alike], code))
            is_repeated[alike] = numpy.diff(numpy.maximum.accumulate(code), prepend=-1) == 0
        return is_repeated

    def _within_text(self, code: numpy.ndarray, pieces: Pieces) -> numpy.ndarray:
        """New numbers for codes, so that only pieces of the same text have the same one."""
        return _number(_pair(pieces.text, code))


def text_batches(texts: pyarrow.Array) -> Iterator[TextBatch]:
    """Batches of a size that is quick to work on; a null counts as an empty text."""
    texts = pyarrow.compute.fill_null(texts.cast(pyarrow.large_string()), "")
    n_bytes = pyarrow.compute.binary_length(texts).to_numpy()
    part = numpy.cumsum(n_bytes) // _CHARACTERS_AT_ONCE
    bounds = numpy.append(numpy.flatnonzero(numpy.diff(part, prepend=-1)), len(texts))
    for start, end in itertools.pairwise(bounds):
        yield TextBatch(texts[start:end])


def _pair(high: numpy.ndarray, low: numpy.ndarray) -> numpy.ndarray:
    """One number for each pair of numbers below 2^31."""
    return (high.astype(numpy.int64) << 32) | low


def _number(values: numpy.ndarray) -> numpy.ndarray:
    """Equal values get equal numbers, from 0 in the order in which they first occur."""
    return pyarrow.array(values).dictionary_encode().indices.to_numpy()
