"""How a batch is cut, what counts as out of memory, and what is remembered of it."""

from pathlib import Path

import pytest
import torch

from hornbook.errors import RunFailed
from hornbook.training.microbatch import MicroBatchSize, is_out_of_memory


@pytest.mark.parametrize(("rows", "expected"), [(8, [8]), (3, [3, 3, 2]), (1, [1] * 8), (20, [8])])
def test_the_pieces_hold_every_row_once_in_order(rows: int, expected: list[int], ragged_batches) -> None:
    batch = ragged_batches.next_batch()

    pieces = list(MicroBatchSize(rows).split(batch))

    assert [piece.n_rows for piece in pieces] == expected
    assert torch.equal(torch.cat([piece.labels for piece in pieces]), batch.labels)


def test_halving_ends_at_one_row_with_advice() -> None:
    size = MicroBatchSize(11)
    seen = []
    for _ in range(4):
        size.halve(batch_rows=11)
        seen.append(size.rows)

    assert seen == [6, 3, 2, 1]
    with pytest.raises(RunFailed, match="row_tokens"):
        size.halve(batch_rows=11)


def test_halving_starts_from_the_rows_that_there_are() -> None:
    size = MicroBatchSize(100)
    size.halve(batch_rows=8)

    assert size.rows == 4


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("MPS backend out of memory"),
    ],
)
def test_out_of_memory_is_recognised_on_every_device(error: Exception) -> None:
    assert is_out_of_memory(error)


def test_other_errors_are_not_taken_for_out_of_memory() -> None:
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_an_allocation_too_large_for_any_machine_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)

    assert is_out_of_memory(caught.value)


def test_what_was_found_to_fit_is_remembered_for_the_same_device_alone(tmp_path: Path) -> None:
    memory = tmp_path / "checkpoints" / "micro_batch.json"
    MicroBatchSize(16, memory, "cuda:0").halve(batch_rows=16)

    assert MicroBatchSize(16, memory, "cuda:0").rows == 8
    assert MicroBatchSize(4, memory, "cuda:0").rows == 4
    assert MicroBatchSize(16, memory, "cpu").rows == 16


@pytest.mark.parametrize("content", ["{}", "[]", '{"device": "cpu"}', '{"rows": 0, "device": "cpu"}'])
def test_what_is_remembered_badly_is_ignored(content: str, tmp_path: Path) -> None:
    memory = tmp_path / "micro_batch.json"
    memory.write_text(content)

    assert MicroBatchSize(16, memory, "cpu").rows == 16
