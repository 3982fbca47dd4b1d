"""Packing: every token once, documents apart, labels right, little padding."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hornbook.batching.packing import IGNORE_INDEX, Batch, Piece, fill, padding_fraction, plan_rows
from hornbook.batching.shards import DocumentTokens, MemoryDocuments
from hornbook.runtime import numpy_generator

PAD = 999
lengths_and_row = st.tuples(st.lists(st.integers(0, 40), max_size=60), st.integers(1, 16))


@given(lengths_and_row)
def test_every_token_has_exactly_one_place(case: tuple[list[int], int]) -> None:
    lengths, row_tokens = case
    rows = plan_rows(np.array(lengths, dtype=np.int64), row_tokens)
    places = sorted(
        (piece.document, piece.start + offset) for row in rows for piece in row for offset in range(piece.length)
    )
    assert places == [(document, token) for document, length in enumerate(lengths) for token in range(length)]


@given(lengths_and_row)
def test_no_row_is_empty_or_too_full(case: tuple[list[int], int]) -> None:
    lengths, row_tokens = case
    for row in plan_rows(np.array(lengths, dtype=np.int64), row_tokens):
        assert 0 < sum(piece.length for piece in row) <= row_tokens


@given(lengths_and_row)
def test_a_document_that_fits_is_never_cut_and_a_longer_one_into_whole_rows_and_a_rest(
    case: tuple[list[int], int],
) -> None:
    lengths, row_tokens = case
    pieces = [piece for row in plan_rows(np.array(lengths, dtype=np.int64), row_tokens) for piece in row]
    for document, length in enumerate(lengths):
        own = sorted(piece for piece in pieces if piece.document == document)
        assert [piece.length for piece in own[:-1]] == [row_tokens] * (len(own) - 1)
        assert len(own) == -(-length // row_tokens)


def test_a_piece_goes_where_it_leaves_the_least_room() -> None:
    # The 4 fits beside the 5 and beside the 6, and fills up the latter.
    assert plan_rows(np.array([5, 6, 4]), row_tokens=10) == [[Piece(1, 0, 6), Piece(2, 0, 4)], [Piece(0, 0, 5)]]


def test_documents_that_can_fill_rows_leave_no_padding() -> None:
    rows = plan_rows(np.array([7, 3, 6, 4, 5, 5, 9, 1]), row_tokens=10)
    assert len(rows) == 4
    assert padding_fraction(rows, 10) == 0


def test_hardly_any_padding_where_rows_are_longer_than_documents() -> None:
    # A story is about 60 to 360 tokens here.
    lengths = numpy_generator("story lengths").integers(60, 360, size=8192)
    rows = plan_rows(lengths, row_tokens=1024)
    assert padding_fraction(rows, 1024) < 0.02


def test_hardly_any_padding_on_real_stories(real_data: Path) -> None:
    with gzip.open(real_data / "tokenizer/gpt2/tinystories_val_ids_u16.bin.gz") as file:
        ids = np.frombuffer(file.read(), dtype="<u2")
    lengths = np.diff(np.flatnonzero(ids == 50256), prepend=-1)
    assert len(lengths) > 3000
    assert padding_fraction(plan_rows(lengths, 1024), 1024) < 0.03


def test_padding_fraction_counts_places_without_token() -> None:
    assert padding_fraction([[Piece(0, 0, 3)], [Piece(1, 0, 2), Piece(2, 0, 1)]], row_tokens=4) == pytest.approx(2 / 8)


def test_a_filled_row_to_the_last_number() -> None:
    documents = MemoryDocuments([DocumentTokens([10, 11, 12], 3), DocumentTokens([20, 21], 2)])
    batch = fill([[Piece(0, 0, 3), Piece(1, 0, 2)], [Piece(1, 0, 2)]], documents, row_tokens=7, pad_id=PAD)
    none = IGNORE_INDEX
    assert batch.input_ids.tolist() == [[10, 11, 12, 20, 21, PAD, PAD], [20, 21] + [PAD] * 5]
    assert batch.labels.tolist() == [[11, 12, none, 21, none, none, none], [21] + [none] * 6]
    assert batch.position_ids.tolist() == [[0, 1, 2, 0, 1, 0, 1], [0, 1, 0, 1, 2, 3, 4]]
    assert batch.document_ids.tolist() == [[0, 0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 1, 1, 1]]
    assert batch.weights is None
    assert {tensor.dtype for tensor in (batch.input_ids, batch.labels, batch.position_ids)} == {torch.int64}


def test_a_piece_starts_at_position_0_and_asks_for_the_first_token_of_the_next() -> None:
    documents = MemoryDocuments([DocumentTokens([1, 2, 3, 4, 5], 5)])
    batch = fill([[Piece(0, 0, 2)], [Piece(0, 2, 2)], [Piece(0, 4, 1)]], documents, row_tokens=2, pad_id=PAD)
    assert batch.input_ids.tolist() == [[1, 2], [3, 4], [5, PAD]]
    assert batch.labels.tolist() == [[2, 3], [4, 5], [IGNORE_INDEX, IGNORE_INDEX]]
    assert batch.position_ids.tolist() == [[0, 1], [0, 1], [0, 0]]


def test_a_token_outside_the_loss_mask_is_read_but_nobodys_label() -> None:
    documents = MemoryDocuments([DocumentTokens([1, 2, 3, 4], 1, loss_mask=[False, False, True, True])])
    batch = fill(plan_rows(documents.lengths, 4), documents, row_tokens=4, pad_id=PAD)
    assert batch.input_ids.tolist() == [[1, 2, 3, 4]]
    assert batch.labels.tolist() == [[IGNORE_INDEX, 3, 4, IGNORE_INDEX]]


def test_a_loss_mask_is_cut_with_its_document() -> None:
    documents = MemoryDocuments([DocumentTokens([1, 2, 3, 4], 1, loss_mask=[False, True, True, False])])
    batch = fill([[Piece(0, 0, 2)], [Piece(0, 2, 2)]], documents, row_tokens=2, pad_id=PAD)
    assert batch.labels.tolist() == [[2, 3], [IGNORE_INDEX, IGNORE_INDEX]]


@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=30), row_tokens=st.integers(1, 12))
def test_labels_are_all_tokens_of_all_documents_but_the_first_of_each(lengths: list[int], row_tokens: int) -> None:
    documents = MemoryDocuments(
        [DocumentTokens(range(1000 * n, 1000 * n + length), 0) for n, length in enumerate(lengths)]
    )
    batch = fill(plan_rows(documents.lengths, row_tokens), documents, row_tokens, pad_id=PAD)
    labels = batch.labels[batch.labels != IGNORE_INDEX]
    expected = [1000 * n + token for n, length in enumerate(lengths) for token in range(1, length)]
    assert sorted(labels.tolist()) == expected
    assert torch.equal(labels, batch.input_ids[batch.labels != IGNORE_INDEX] + 1)


def test_rows_of_a_batch_are_a_batch(make_documents: Callable) -> None:
    documents = make_documents([4, 4, 4])
    batch = fill(plan_rows(documents.lengths, 4), documents, row_tokens=4, pad_id=PAD)
    weighted = Batch(batch.input_ids, batch.labels, batch.position_ids, batch.document_ids, torch.rand(3, 4))
    part = weighted.rows(1, 3)
    assert part.n_rows == 2
    assert part.input_ids.tolist() == weighted.input_ids.tolist()[1:]
    assert part.weights is not None
    assert torch.equal(part.weights, weighted.weights[1:])  # type: ignore[index]
    assert batch.rows(0, 1).weights is None


def test_a_batch_moves_to_a_device_whole(make_documents: Callable) -> None:
    documents = make_documents([4])
    batch = fill(plan_rows(documents.lengths, 4), documents, row_tokens=4, pad_id=PAD).to("meta")
    tensors = (batch.input_ids, batch.labels, batch.position_ids, batch.document_ids)
    assert {tensor.device.type for tensor in tensors} == {"meta"}
