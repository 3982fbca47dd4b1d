import numpy as np

from hornbook.batching import loader as loader_module
from hornbook.batching.loader import Loader
from hornbook.batching.shards import DocumentTokens, MemoryDocuments

N_DOCUMENTS, BLOCK = 40, 10


def first_tokens(loader: Loader, n_rows: int) -> list[int]:
    return [int(loader.next_batch().input_ids[0, 0]) for _ in range(n_rows)]


def one_document_a_row(monkeypatch, *, first_in_order: bool) -> Loader:
    monkeypatch.setattr(loader_module, "_BLOCK_DOCUMENTS", BLOCK)
    documents = MemoryDocuments([DocumentTokens([number] * 4, 4) for number in range(N_DOCUMENTS)])
    return Loader(documents, row_tokens=4, rows_per_step=1, seed=1, pad_id=99, first_in_order=first_in_order)


def test_the_first_pass_can_follow_the_corpus_block_by_block_and_the_second_is_shuffled(monkeypatch):
    loader = one_document_a_row(monkeypatch, first_in_order=True)
    first, second = first_tokens(loader, N_DOCUMENTS), first_tokens(loader, N_DOCUMENTS)
    assert [number // BLOCK for number in first] == sorted(number // BLOCK for number in first)
    assert [number // BLOCK for number in second] != sorted(number // BLOCK for number in second)
    assert sorted(first) == sorted(second) == list(range(N_DOCUMENTS))


def test_without_being_told_the_first_pass_is_shuffled_over_all_blocks(monkeypatch):
    first = first_tokens(one_document_a_row(monkeypatch, first_in_order=False), N_DOCUMENTS)
    assert len({number // BLOCK for number in first[:BLOCK]}) > 1
    assert np.array_equal(sorted(first), range(N_DOCUMENTS))
