"""The measures of repetition equal a slow and plain definition of the same, on texts that repeat themselves."""

import re
from collections import Counter

import numpy
import pyarrow
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from hornbook.corpus.character_kinds import WORD_PATTERN
from hornbook.corpus.rules import fineweb, repetition
from hornbook.corpus.text_batch import TextBatch

WORD_LISTS = st.lists(st.sampled_from(["a", "bb", "c", "é", "the", ".", "it's"]), max_size=60)
REPETITIVE_TEXTS = st.lists(
    st.builds(
        lambda words, blanks: "".join(w + b for w, b in zip(words, blanks, strict=False)).strip("\n"),
        WORD_LISTS,
        st.lists(st.sampled_from([" ", " ", " ", "\n", "\n\n", "\n\n\n"]), min_size=60, max_size=60),
    ),
    min_size=1,
    max_size=5,
)


def words_of(text: str) -> list[str]:
    return [match.group() for match in regex.finditer(WORD_PATTERN, text)]


def slow_top_ngram(text: str, n: int) -> float:
    words = words_of(text)
    ngrams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    if not ngrams:
        return 0.0
    most = max(Counter(ngrams).values())
    top = next(ngram for ngram in ngrams if ngrams.count(ngram) == most)
    return most * len(" ".join(top)) / len(text)


def slow_duplicate_ngrams(text: str, n: int) -> float:
    words, seen, characters, i = words_of(text), set(), 0, 0
    while i + n <= len(words):
        ngram = tuple(words[i : i + n])
        if ngram in seen:
            characters += sum(map(len, ngram))
            i += n
        else:
            seen.add(ngram)
            i += 1
    return characters / len(text) if text else 0.0


def slow_repeats(pieces: list[str]) -> list[str]:
    return [piece for number, piece in enumerate(pieces) if piece in pieces[:number]]


def share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


@pytest.mark.parametrize("n", [2, 3, 4])
@given(texts=REPETITIVE_TEXTS)
def test_the_top_ngram_is_the_one_that_counting_finds(texts, n):
    batch = TextBatch(pyarrow.array(texts, pyarrow.large_string()))
    found = repetition.top_ngram_character_fraction(batch, n)
    numpy.testing.assert_allclose(found, [slow_top_ngram(text, n) for text in texts], rtol=1e-12)


@pytest.mark.parametrize("n", [5, 7, 10])
@given(texts=REPETITIVE_TEXTS)
def test_duplicate_ngrams_are_those_met_while_reading(texts, n):
    batch = TextBatch(pyarrow.array(texts, pyarrow.large_string()))
    found = repetition.duplicate_ngram_character_fraction(batch, n)
    numpy.testing.assert_allclose(found, [slow_duplicate_ngrams(text, n) for text in texts], rtol=1e-12)


@given(texts=REPETITIVE_TEXTS)
def test_duplicate_lines_and_paragraphs_are_those_that_stood_before(texts):
    batch = TextBatch(pyarrow.array(texts, pyarrow.large_string()))
    lines = [[line for line in text.split("\n") if line] for text in texts]
    paragraphs = [[part for part in re.split(r"\n{2,}", text.strip()) if part] for text in texts]
    expected = {
        repetition.duplicate_line_fraction: [share(len(slow_repeats(p)), len(p)) for p in lines],
        repetition.duplicate_paragraph_fraction: [share(len(slow_repeats(p)), len(p)) for p in paragraphs],
        repetition.duplicate_line_character_fraction: [
            share(sum(map(len, slow_repeats(p))), len(text)) for p, text in zip(lines, texts, strict=True)
        ],
        repetition.duplicate_paragraph_character_fraction: [
            share(sum(map(len, slow_repeats(p))), len(text)) for p, text in zip(paragraphs, texts, strict=True)
        ],
        fineweb.repeated_line_character_fraction: [
            share(sum(map(len, slow_repeats([line for line in p if line.strip()]))), len(text.replace("\n", "")))
            for p, text in zip(lines, texts, strict=True)
        ],
    }
    for measure, values in expected.items():
        numpy.testing.assert_allclose(measure(batch), values, rtol=1e-12)


def test_a_text_of_one_sentence_over_and_over_is_nearly_all_duplicate():
    batch = TextBatch(pyarrow.array(["the same old story again " * 1000], pyarrow.large_string()))
    # All but the first sentence, without the blanks, which are 5 of 25 characters.
    assert repetition.duplicate_ngram_character_fraction(batch, 5)[0] == pytest.approx(0.8 * 0.999)
