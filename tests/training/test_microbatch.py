"""How a batch is cut, what counts as out of memory, and layers that compute twice."""

import pytest
import torch

from hornbook.errors import RunFailed
from hornbook.training.microbatch import MicroBatchSize, is_out_of_memory, recomputed


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


def test_recomputed_layers_give_the_same_gradients_and_compute_twice(make_model, ragged_batches) -> None:
    model, batch = make_model(), ragged_batches.next_batch()
    runs = []
    for layer in model.model.layers:
        layer.self_attn.register_forward_hook(lambda *_: runs.append(1))

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        model(batch.input_ids).square().sum().backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    plain, n_plain = gradients(), len(runs)
    names = list(model.state_dict())
    with recomputed(model.model.layers):
        assert list(model.state_dict()) == names
        twice = gradients()
    assert all(torch.equal(one, other) for one, other in zip(plain, twice, strict=True))
    assert len(runs) == 3 * n_plain

    runs.clear()
    gradients()
    assert len(runs) == n_plain
