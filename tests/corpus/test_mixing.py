"""A weight is the mean number of times that a document is taken, decided by its text alone."""

import numpy
import pytest

from hornbook.corpus.mixing import repetitions

KEYS = numpy.random.Generator(numpy.random.PCG64(7)).integers(0, 2**64, size=100_000, dtype=numpy.uint64)


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.0, 7.0])
def test_a_whole_weight_takes_every_document_that_often(weight):
    assert set(repetitions(KEYS, numpy.full(len(KEYS), weight))) == {int(weight)}


@pytest.mark.parametrize("weight", [0.01, 0.5, 0.9, 2.25])
def test_a_broken_weight_is_kept_on_average_by_whole_numbers_next_to_it(weight):
    taken = repetitions(KEYS, numpy.full(len(KEYS), weight))
    assert set(taken) == {int(weight), int(weight) + 1}
    assert taken.mean() == pytest.approx(weight, abs=0.006)  # four standard errors of 100,000 documents


def test_which_documents_are_taken_depends_on_their_texts_alone():
    weight = numpy.full(len(KEYS), 0.5)
    whole = repetitions(KEYS, weight)
    assert (repetitions(KEYS[::-1], weight)[::-1] == whole).all()
    assert (repetitions(KEYS[:10], weight[:10]) == whole[:10]).all()
    # A value that was fixed once: a change would give every corpus with weights other documents.
    assert repetitions(numpy.arange(12, dtype=numpy.uint64), numpy.full(12, 0.5)).tolist() == [
        0,
        0,
        1,
        1,
        1,
        1,
        0,
        1,
        1,
        0,
        0,
        0,
    ]


def test_a_greater_weight_keeps_all_that_a_smaller_one_took():
    less, more = (repetitions(KEYS, numpy.full(len(KEYS), weight)) for weight in (0.3, 0.6))
    assert (more >= less).all()


def test_the_choice_is_independent_of_the_split_that_uses_the_same_keys():
    taken = repetitions(KEYS, numpy.full(len(KEYS), 0.5))
    smallest_tenth = numpy.sort(KEYS)[len(KEYS) // 10]
    assert taken[smallest_tenth > KEYS].mean() == pytest.approx(0.5, abs=0.02)


def test_each_document_has_the_weight_of_its_source():
    assert repetitions(KEYS[:3], numpy.array([0.0, 1.0, 3.0])).tolist() == [0, 1, 3]
    assert repetitions(KEYS[:0], numpy.zeros(0)).tolist() == []
