"""Runs of words hashed from a column's bytes are those that splitting and joining words gives."""

import numpy
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hornbook.corpus import ngrams as module
from hornbook.corpus.ngrams import ngrams


def runs(texts: list[str | None], n: int) -> list[tuple[int, int, int]]:
    pieces = ngrams(pyarrow.array(texts, pyarrow.string()), n)
    return [row for piece in pieces for row in zip(*(column.tolist() for column in piece), strict=True)]


def truth(texts: list[str | None], n: int) -> list[tuple[str, int, int]]:
    found = []
    for document, text in enumerate(texts):
        words = (text or "").split(" ") if text else []
        found += [(" ".join(words[i : i + n]), document, i) for i in range(len(words) - n + 1)]
    return found


plain_texts = st.lists(st.sampled_from(["a", "b", "ab", "ba", "é", "—"]), max_size=12).map(" ".join)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.none() | plain_texts, max_size=6), st.integers(1, 4))
def test_two_runs_have_one_hash_exactly_where_they_are_the_same_words(texts, n):
    found, expected = runs(texts, n), truth(texts, n)
    assert [row[1:] for row in found] == [row[1:] for row in expected]
    words_of_hash = {}
    for (hashed, *_), (words, *_) in zip(found, expected, strict=True):
        assert words_of_hash.setdefault(hashed, words) == words
    assert len(words_of_hash) == len({words for words, *_ in expected})


@pytest.mark.parametrize("size", [1, 30, 2**20])
def test_it_makes_no_difference_how_many_texts_are_taken_at_once(monkeypatch, size):
    texts = [" ".join(f"w{n % (7 + i)}" for n in range(3 * i)) for i in range(40)]
    whole = runs(texts, 5)
    module._short_powers.cache_clear()
    monkeypatch.setattr(module, "_BYTES_AT_ONCE", size)
    assert runs(texts, 5) == whole
    monkeypatch.undo()
    module._short_powers.cache_clear()


def test_a_slice_of_a_column_has_the_runs_of_its_own_texts():
    texts = ["a b c d", "b c d e", "c d e f"]
    column = pyarrow.array(texts, pyarrow.large_string()).slice(1)
    assert [piece.hash.tolist() for piece in ngrams(column, 2)] == [
        piece.hash.tolist() for piece in ngrams(pyarrow.array(texts[1:]), 2)
    ]


def test_hashes_are_the_same_on_every_machine():
    assert runs(["the cat sat on the mat"], 5)[0] == (7173123265799447600, 0, 0)


def test_hashes_of_many_runs_do_not_collide_and_fill_their_low_bits():
    text = " ".join(str(n) for n in range(50_000))
    (piece,) = [numpy.concatenate([p.hash for p in ngrams(pyarrow.array([text]), 3)])]
    assert len(numpy.unique(piece)) == len(piece)
    filled = numpy.unique(piece & numpy.uint64(2**16 - 1))
    assert len(filled) == pytest.approx(2**16 * (1 - numpy.exp(-len(piece) / 2**16)), rel=0.02)
