"""Words, lines and paragraphs of many texts at once are those of each text by itself, as plain Python cuts them."""

import re
from collections import Counter

import pyarrow
import regex
from hypothesis import given
from hypothesis import strategies as st

from hornbook.corpus.character_kinds import WORD_PATTERN
from hornbook.corpus.text_batch import Pieces, TextBatch, text_batches

# Few characters, so that words, lines and n-grams repeat; every kind is there, and some need two UTF-16 units.
MESSY_TEXTS = st.lists(st.text(alphabet="aab1 \n\n.,'’-é…“_ \t😀", max_size=40), min_size=1, max_size=6)


def batch_of(texts: list[str]) -> TextBatch:
    return TextBatch(pyarrow.array(texts, pyarrow.large_string()))


def pieces_of(batch: TextBatch, pieces: Pieces) -> list[list[str]]:
    cut = ["".join(map(chr, batch.characters[s:e])) for s, e in zip(pieces.start, pieces.end, strict=True)]
    return [cut[first:end] for first, end in zip(pieces.first, pieces.first[1:], strict=False)]


@given(MESSY_TEXTS)
def test_words_are_those_of_the_pattern(texts):
    batch = batch_of(texts)
    assert pieces_of(batch, batch.words) == [[m.group() for m in regex.finditer(WORD_PATTERN, text)] for text in texts]


@given(st.lists(st.text(max_size=30), min_size=1, max_size=4))
def test_words_are_those_of_the_pattern_in_all_of_unicode(texts):
    batch = batch_of(texts)
    assert pieces_of(batch, batch.words) == [[m.group() for m in regex.finditer(WORD_PATTERN, text)] for text in texts]


@given(MESSY_TEXTS)
def test_lines_and_paragraphs_are_those_of_the_newlines(texts):
    batch = batch_of(texts)
    lines = [text.removesuffix("\n").split("\n") if text else [] for text in texts]
    assert pieces_of(batch, batch.all_lines) == lines
    assert pieces_of(batch, batch.lines) == [[line for line in text.split("\n") if line] for text in texts]
    paragraphs = [[part for part in re.split(r"\n{2,}", text.strip()) if part] for text in texts]
    assert pieces_of(batch, batch.paragraphs) == paragraphs


@given(MESSY_TEXTS)
def test_repeats_are_the_ngrams_that_a_text_has_more_than_once(texts):
    batch = batch_of(texts)
    words = pieces_of(batch, batch.words)
    for n in (1, 2, 3, 5):
        expected = []
        for of_text, first in zip(words, batch.words.first, strict=False):
            ngrams = [tuple(of_text[i : i + n]) for i in range(len(of_text) - n + 1)]
            times = Counter(ngrams)
            expected += [(first + i, ngram, first) for i, ngram in enumerate(ngrams) if times[ngram] > 1]
        repeats = batch.repeats(n)
        assert repeats.position.tolist() == [position for position, _, _ in expected]
        numbers = {key: number for number, key in enumerate(dict.fromkeys(e[1:] for e in expected))}
        assert repeats.code.tolist() == [numbers[e[1:]] for e in expected]


def test_batches_hold_all_texts_in_order_and_a_long_one_stays_whole():
    texts = ["a" * 300_000, "b", None, "c" * 200_000, "d"]
    batches = list(text_batches(pyarrow.array(texts)))
    assert [text for batch in batches for text in batch.texts.to_pylist()] == [text or "" for text in texts]
    assert len(batches) > 1


def test_words_of_a_sentence():
    (words,) = pieces_of(b := batch_of(["Mara's hat (3.5 cm) won't fit... 'Oh!!'"]), b.words)
    assert words == ["Mara", "'s", "hat", "(", "3.5", "cm", ")", "won", "'t", "fit", "...", "'", "Oh", "!!", "'"]
