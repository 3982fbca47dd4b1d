"""The loader: all tokens every epoch, the same batches whoever takes them, exactly resumable."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hornbook.batching import loader as loader_module
from hornbook.batching.loader import Loader, Stretch, evaluation_batches, spread_numbers
from hornbook.batching.packing import IGNORE_INDEX, Batch
from hornbook.batching.shards import DocumentTokens, MemoryDocuments
from hornbook.errors import UserError

PAD = 9999
LENGTHS = [5, 3, 8, 1, 12, 7, 2, 9, 4, 6, 3, 20, 1, 5]
N_TOKENS = sum(LENGTHS)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few documents in a block that fourteen of them make three blocks."""
    monkeypatch.setattr(loader_module, "_BLOCK_DOCUMENTS", 5)


def make_loader(documents: MemoryDocuments, **options: Any) -> Loader:
    return Loader(documents, **{"row_tokens": 8, "rows_per_step": 3, "seed": 1, "pad_id": PAD} | options)


def real_tokens(batch: Batch) -> list[int]:
    return batch.input_ids[batch.input_ids != PAD].tolist()


def take_epoch(loader: Loader) -> list[int]:
    """The tokens of the rest of the epoch. The loader must take one row a step."""
    epoch, tokens = loader.state_dict()["epoch"], []
    while True:
        batch = loader.next_batch()
        if loader.state_dict()["epoch"] != epoch:
            return tokens
        tokens += real_tokens(batch)


def same(first: Batch, second: Batch) -> bool:
    return all(
        torch.equal(getattr(first, name), getattr(second, name))
        for name in ("input_ids", "labels", "position_ids", "document_ids")
    )


def joined(batches: list[Batch]) -> Batch:
    names = ("input_ids", "labels", "position_ids", "document_ids")
    return Batch(*(torch.cat([getattr(batch, name) for batch in batches]) for name in names))


def test_every_token_comes_once_in_every_epoch(make_documents: Callable) -> None:
    loader = make_loader(make_documents(LENGTHS), rows_per_step=1)
    first = take_epoch(loader)
    assert sorted(first) == list(range(N_TOKENS))


def test_no_token_is_lost_or_repeated_where_a_step_spans_epochs(make_documents: Callable) -> None:
    loader = make_loader(make_documents(LENGTHS), rows_per_step=7)
    tokens: list[int] = []
    while loader.state_dict()["epoch"] < 3:
        tokens += real_tokens(loader.next_batch())
    assert sorted(tokens[: 3 * N_TOKENS]) == sorted(3 * list(range(N_TOKENS)))


def test_every_epoch_and_every_seed_has_an_order_of_its_own(make_documents: Callable) -> None:
    loader = make_loader(make_documents(LENGTHS), rows_per_step=8)
    other = make_loader(make_documents(LENGTHS), rows_per_step=8, seed=2)
    again = make_loader(make_documents(LENGTHS), rows_per_step=8)
    first = real_tokens(loader.next_batch())
    assert first == real_tokens(again.next_batch())
    assert first != real_tokens(other.next_batch())
    while loader.state_dict()["epoch"] == 0:
        loader.next_batch()
    assert real_tokens(loader.next_batch()) != first


def test_the_order_is_not_that_of_the_documents_nor_of_their_lengths(
    make_documents: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader_module, "_BLOCK_DOCUMENTS", 100)
    lengths = [8] * 5 + [7] * 5 + [6] * 5  # each has a row of its own
    loader = make_loader(make_documents(lengths), rows_per_step=15)
    firsts = loader.next_batch().input_ids[:, 0].tolist()
    assert len(set(firsts)) == 15
    assert firsts != sorted(firsts)


def test_the_order_never_changes_between_versions(make_documents: Callable) -> None:
    loader = make_loader(make_documents([8] * 10), rows_per_step=10)
    order = [first // 8 for first in loader.next_batch().input_ids[:, 0].tolist()]
    assert order == [0, 3, 9, 6, 4, 5, 2, 8, 7, 1]


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 20), min_size=1, max_size=20).filter(any),
    rows_per_step=st.integers(1, 6),
    steps_before=st.integers(0, 12),
    seed=st.integers(0, 3),
)
def test_a_resumed_loader_gives_what_an_uninterrupted_one_gives(
    make_documents: Callable, lengths: list[int], rows_per_step: int, steps_before: int, seed: int
) -> None:
    documents = make_documents(lengths)
    uninterrupted = make_loader(documents, rows_per_step=rows_per_step, seed=seed)
    for _ in range(steps_before):
        uninterrupted.next_batch()
    state = json.loads(json.dumps(uninterrupted.state_dict()))
    resumed = make_loader(documents, rows_per_step=rows_per_step, seed=seed)
    resumed.load_state_dict(state)
    for _ in range(6):
        assert same(resumed.next_batch(), uninterrupted.next_batch())


@pytest.mark.parametrize("world_size", [2, 3, 4, 6])
def test_the_global_batch_is_the_same_for_any_number_of_processes(make_documents: Callable, world_size: int) -> None:
    documents = make_documents(LENGTHS)
    alone = make_loader(documents, rows_per_step=12)
    ranks = [make_loader(documents, rows_per_step=12, rank=r, world_size=world_size) for r in range(world_size)]
    for _ in range(5):
        shares = [loader.next_batch() for loader in ranks]
        assert {share.n_rows for share in shares} == {12 // world_size}
        assert same(joined(shares), alone.next_batch())
    assert all(loader.state_dict() == alone.state_dict() for loader in ranks)


def test_rows_that_do_not_divide_are_shared_without_loss(make_documents: Callable) -> None:
    documents = make_documents(LENGTHS)
    alone = make_loader(documents, rows_per_step=7)
    ranks = [make_loader(documents, rows_per_step=7, rank=rank, world_size=3) for rank in range(3)]
    shares = [loader.next_batch() for loader in ranks]
    assert [share.n_rows for share in shares] == [2, 2, 3]
    assert same(joined(shares), alone.next_batch())


def test_a_run_resumes_on_another_number_of_processes(make_documents: Callable) -> None:
    documents = make_documents(LENGTHS)
    alone = make_loader(documents, rows_per_step=4)
    pair = [make_loader(documents, rows_per_step=4, rank=rank, world_size=2) for rank in range(2)]
    for _ in range(3):
        alone.next_batch()
        for loader in pair:
            loader.next_batch()
    resumed = make_loader(documents, rows_per_step=4)
    resumed.load_state_dict(pair[1].state_dict())
    for _ in range(4):
        assert same(resumed.next_batch(), alone.next_batch())


def test_a_step_of_another_size_goes_on_at_the_same_row(make_documents: Callable) -> None:
    documents = make_documents(LENGTHS)
    by_two, by_six = make_loader(documents, rows_per_step=2), make_loader(documents, rows_per_step=6)
    resumed = make_loader(documents, rows_per_step=6)
    by_two.next_batch()
    by_two.next_batch()
    by_two.next_batch()
    by_six.next_batch()
    resumed.load_state_dict(by_two.state_dict())
    assert same(resumed.next_batch(), by_six.next_batch())


def test_other_data_is_refused_and_what_changed_is_said(make_documents: Callable) -> None:
    state = make_loader(make_documents(LENGTHS)).state_dict()
    with pytest.raises(UserError, match="documents was 14 and is now 13; fingerprint was"):
        make_loader(make_documents(LENGTHS[:-1])).load_state_dict(state)
    with pytest.raises(UserError, match="data than this run's: row_tokens was 8 and is now 16"):
        make_loader(make_documents(LENGTHS), row_tokens=16).load_state_dict(state)
    with pytest.raises(UserError, match="seed was 1 and is now 2"):
        make_loader(make_documents(LENGTHS), seed=2).load_state_dict(state)


@pytest.mark.parametrize("lengths", [[], [0, 0]])
def test_data_without_tokens_is_refused(make_documents: Callable, lengths: list[int]) -> None:
    with pytest.raises(UserError, match="training data has no tokens"):
        make_loader(make_documents(lengths))
    with pytest.raises(UserError, match="validation data has no tokens"):
        next(evaluation_batches(make_documents(lengths), 8, 2, pad_id=PAD))


def test_more_processes_than_rows_are_refused(make_documents: Callable) -> None:
    with pytest.raises(UserError, match="3 rows cannot be shared by 4 processes"):
        make_loader(make_documents(LENGTHS), rank=0, world_size=4)


def test_padding_is_reported(make_documents: Callable) -> None:
    assert make_loader(make_documents([8, 8]), row_tokens=8).padding_fraction == 0
    assert make_loader(make_documents([6, 6]), row_tokens=8).padding_fraction == pytest.approx(0.25)


def evaluate(documents: MemoryDocuments, max_rows: int | None = None) -> Iterator[tuple[Batch, int]]:
    return evaluation_batches(documents, 8, 2, max_rows, pad_id=PAD)


def test_evaluation_covers_every_document_once_in_order(make_documents: Callable) -> None:
    batches = [batch for batch, _ in evaluate(make_documents(LENGTHS))]
    assert [token for batch in batches for token in real_tokens(batch)] == list(range(N_TOKENS))
    n_labels = sum(int((batch.labels != IGNORE_INDEX).sum()) for batch in batches)
    assert n_labels == N_TOKENS - len(LENGTHS)
    assert {batch.n_rows for batch in batches[:-1]} == {2}


def test_evaluation_counts_the_bytes_of_every_document_once(make_documents: Callable) -> None:
    documents = make_documents(LENGTHS)
    assert sum(n_bytes for _, n_bytes in evaluate(documents)) == int(documents.n_bytes.sum())


def test_evaluation_takes_as_many_rows_as_asked_for_in_order(make_documents: Callable) -> None:
    documents = make_documents(LENGTHS)
    whole = joined([batch for batch, _ in evaluate(documents)])
    rows = [whole.input_ids[number].tolist() for number in range(whole.n_rows)]
    for max_rows in (1, 2, 5):
        part = joined([batch for batch, _ in evaluate(documents, max_rows)]).input_ids.tolist()
        places = [rows.index(row) for row in part]
        assert len(places) == max_rows
        assert places == sorted(set(places))
    for max_rows in (whole.n_rows, whole.n_rows + 1):
        assert same(joined([batch for batch, _ in evaluate(documents, max_rows)]), whole)


def test_evaluation_of_a_few_rows_sees_every_source_in_proportion() -> None:
    """Source after source, the tokens 1, 2 and 3 in 60, 30 and 10 rows."""
    documents = MemoryDocuments(
        DocumentTokens([source] * 8, n_bytes=8) for source, count in ((1, 60), (2, 30), (3, 10)) for _ in range(count)
    )
    seen = Counter(row[0].item() for batch, _ in evaluate(documents, max_rows=10) for row in batch.input_ids)
    assert seen == {1: 6, 2: 3, 3: 1}


def test_numbers_are_spread_also_over_things_that_take_turns() -> None:
    numbers = spread_numbers(1000, 100)
    assert [number // 10 for number in numbers] == list(range(100))
    assert 35 < sum(number % 2 for number in numbers) < 65
    assert numbers == spread_numbers(1000, 100)
    assert spread_numbers(7, 0) == []
    assert spread_numbers(3, 9) == [0, 1, 2]


def test_a_document_cut_by_the_end_of_evaluation_counts_in_part() -> None:
    documents = MemoryDocuments([DocumentTokens(range(16), n_bytes=100)])
    assert [n_bytes for _, n_bytes in evaluate(documents, max_rows=1)] == [50]


def test_stretches_of_a_source_of_whole_batches_are_its_rows_cut_across() -> None:
    class Source:
        n_drawn = 0

        def next_batch(self) -> Batch:
            ids = torch.arange(24).view(4, 6) + self.n_drawn
            self.n_drawn += 1
            return Batch(ids, ids, ids, ids)

        def state_dict(self) -> dict[str, int]:
            return {"n_drawn": self.n_drawn}

        def load_state_dict(self, state: dict[str, int]) -> None:
            self.n_drawn = state["n_drawn"]

    stretches = [Stretch(Source(), rank, n_stretches=3) for rank in range(3)]
    for stretch in stretches:
        stretch.load_state_dict({"n_drawn": 5})

    rows = torch.cat([stretch.next_batch().input_ids for stretch in stretches], dim=1)

    assert torch.equal(rows, torch.arange(24).view(4, 6) + 5)
    assert stretches[2].state_dict() == {"n_drawn": 6}
    with pytest.raises(UserError, match="cannot be cut into 4 stretches"):
        Stretch(Source(), 0, n_stretches=4).next_batch()
