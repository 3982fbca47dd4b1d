"""What is noted of batches, weights and documents while a training runs."""

from typing import Any

import torch

from hornbook.batching.packing import IGNORE_INDEX, Batch
from hornbook.batching.shards import DocumentTokens, MemoryDocuments
from hornbook.training.signs import WatchedBatches, census, label_signs


def _batch(first: int = 0) -> Batch:
    """Two rows of two documents and padding; labels are the next token of the document."""
    ids = torch.tensor([[5, 6, 7, 8, 9, 0], [1, 2, 3, 4, 0, 0]]) + first
    documents = torch.tensor([[0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 2, 2]])
    labels = torch.full_like(ids, IGNORE_INDEX)
    same = documents[:, 1:] == documents[:, :-1]
    labels[:, :-1][same] = ids[:, 1:][same]
    labels[1, 4] = IGNORE_INDEX  # padding
    return Batch(input_ids=ids, labels=labels, position_ids=ids, document_ids=documents)


class _Source:
    def __init__(self, batches: list[Batch]) -> None:
        self._batches, self.taken = batches, 0

    def next_batch(self) -> Batch:
        self.taken += 1
        return self._batches[self.taken - 1]

    def state_dict(self) -> dict[str, Any]:
        return {"taken": self.taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert set(state) == {"taken"}
        self.taken = state["taken"]


def test_labels_that_are_the_next_token_are_told_from_others() -> None:
    batch = _batch()
    signs = label_signs(batch)
    assert signs["next_label_fraction"] == 1.0
    assert signs["labelled_fraction"] == 5 / 12

    turned = Batch(batch.input_ids, batch.labels.flip(1), batch.position_ids, batch.document_ids)
    assert label_signs(turned)["next_label_fraction"] < 0.5


def test_a_label_that_is_everywhere_stands_out() -> None:
    batch = _batch()
    padded = Batch(batch.input_ids, batch.labels.clamp_min(0), batch.position_ids, batch.document_ids)

    assert label_signs(padded)["top_label_fraction"] > label_signs(batch)["top_label_fraction"]


def test_rows_that_come_again_are_counted_also_after_a_restart() -> None:
    model = torch.nn.Linear(2, 2)
    batches = [_batch(), _batch(first=10), _batch()]
    watched = WatchedBatches(_Source(batches), model, step=lambda: 1)  # type: ignore[arg-type]
    repeated = []
    for _ in range(2):
        watched.next_batch()
        repeated.append(watched.notes()["repeated_fraction"])
    assert repeated == [0.0, 0.0]

    resumed = WatchedBatches(_Source(batches), model, step=lambda: 1)  # type: ignore[arg-type]
    resumed.load_state_dict(watched.state_dict())
    resumed.next_batch()
    assert resumed.notes()["repeated_fraction"] == 1.0


def test_how_far_a_step_moves_the_weights_is_noted_at_some_steps() -> None:
    model = torch.nn.Linear(4, 4, bias=False)
    steps = iter([0, 1])
    watched = WatchedBatches(_Source([_batch(), _batch()]), model, step=lambda: next(steps))  # type: ignore[arg-type]
    watched.next_batch()
    with torch.no_grad():
        model.weight.mul_(1.1)
    assert abs(watched.notes()["update_ratio"] - 0.1) < 1e-5

    watched.next_batch()
    assert "update_ratio" not in watched.notes()


def test_a_census_counts_tokens_bytes_and_documents_seen_before() -> None:
    documents = MemoryDocuments(
        [DocumentTokens([1, 2, 3], 10), DocumentTokens([1, 2, 3], 10), DocumentTokens([4, 5], 4)]
    )
    found = census(documents, 300)

    assert (found["documents"], found["tokens"], found["vocab_size"]) == (3, 8, 300)
    assert found["repeated_documents_fraction"] == 1 / 3
    assert found["bytes_per_label"] == 24 / 5  # the first token of each document is nobody's label
    assert found["learned_fraction"] == 1.0
