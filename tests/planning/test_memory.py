"""The estimate of memory, against what a real forward pass keeps for its backward pass."""

import pytest
import torch

from hornbook.batching.packing import Batch
from hornbook.model import attention
from hornbook.model.config import ModelConfig, config_from_recipe
from hornbook.model.transformer import Transformer
from hornbook.planning.memory import (
    LONGEST_PLAIN_ROW_TOKENS,
    layer_activation_bytes_per_token,
    most_rows_at_once,
    rows_that_fit,
    training_memory,
)
from hornbook.recipe_data import ModelSection
from hornbook.recipe_training import PretrainSection
from hornbook.training.optimizers import build_optimizer

N_ROWS = 2
SHAPES = (
    {"preset": "llama", "d_model": 128, "n_heads": 4, "n_kv_heads": 2},
    {"preset": "llama", "d_model": 64, "n_heads": 4, "d_ff": 320},
    {"preset": "qwen3", "d_model": 128, "n_heads": 4, "n_kv_heads": 1, "head_dim": 48},
    {"preset": "gpt2", "d_model": 96, "n_heads": 3},
)


def _config(shape: dict, n_layers: int = 2, max_seq_len: int = 1024) -> ModelConfig:
    return config_from_recipe(ModelSection(**shape, n_layers=n_layers, max_seq_len=max_seq_len), 300)


def _section(**fields) -> PretrainSection:
    return PretrainSection(**({"tokens": 65536, "global_batch_tokens": 16384, "row_tokens": 128} | fields))


def _kept_bytes(config: ModelConfig, row_tokens: int, dtype: torch.dtype) -> int:
    """Bytes of all memory that a forward pass holds on to, the weights and their casts left out."""
    model = Transformer(config)
    ids = torch.zeros(N_ROWS, row_tokens, dtype=torch.int64)
    batch = Batch(input_ids=ids, labels=ids, position_ids=ids, document_ids=ids)
    matrix_sizes = {parameter.numel() for parameter in model.parameters() if parameter.ndim == 2}
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}
    held = []  # or the addresses would be used again

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        is_cast_weight = tensor.dtype == torch.bfloat16 and tensor.ndim == 2 and tensor.numel() in matrix_sizes
        if storage.data_ptr() not in weights and not is_cast_weight:
            kept[storage.data_ptr()] = storage.nbytes()
        held.append(tensor)
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16),
    ):
        model(batch.input_ids, batch.position_ids, batch.document_ids)
    return sum(kept.values())


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape["preset"])
@pytest.mark.parametrize(("row_tokens", "dtype"), [(136, torch.bfloat16), (600, torch.bfloat16), (136, torch.float32)])
def test_a_layer_keeps_what_the_estimate_says(shape: dict, row_tokens: int, dtype: torch.dtype) -> None:
    one, three = (_kept_bytes(_config(shape, n_layers), row_tokens, dtype) for n_layers in (1, 3))
    per_token = layer_activation_bytes_per_token(_config(shape), row_tokens, dtype.itemsize, "cpu")

    assert per_token == pytest.approx((three - one) / 2 / (N_ROWS * row_tokens), rel=0.06)


def test_the_longest_row_with_a_table_of_attention_is_the_models() -> None:
    assert LONGEST_PLAIN_ROW_TOKENS == attention.LONGEST_PLAIN_ROW_TOKENS


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape["preset"])
def test_weights_and_optimizer_are_those_of_training(shape: dict, optimizer: str, tied: bool) -> None:
    config = _config(shape | {"tie_embeddings": tied})
    section = _section(optimizer=optimizer)
    model = Transformer(config)
    state = build_optimizer(model, section).state
    memory = training_memory(config, section, 1, "cpu")

    assert memory.weights == memory.gradients == 4 * sum(p.numel() for p in model.parameters())
    held = sum(tensor.nbytes for tensors in state.values() for tensor in tensors.values() if tensor.ndim)
    assert memory.optimizer == held


def test_activations_grow_with_the_rows_and_nothing_else_does() -> None:
    config, section = _config(SHAPES[0]), _section(global_batch_tokens=65536)
    few, many = (training_memory(config, section, rows, "cpu") for rows in (128, 256))

    assert many.activations == 2 * few.activations
    assert many.total - many.activations == few.total - few.activations


def test_recomputing_leaves_one_layers_activations_and_the_others_inputs() -> None:
    config = _config(SHAPES[0], n_layers=12)
    kept, selected, recomputed = (
        training_memory(config, _section(recompute=mode), 16, "cpu").activations
        for mode in ("none", "selective", "full")
    )

    assert recomputed < kept / 4
    assert recomputed < selected < 0.8 * kept


def test_rows_are_halved_until_they_fit() -> None:
    config, section = _config(SHAPES[0]), _section()
    rows = most_rows_at_once(config, section)
    enough, for_one = (int(training_memory(config, section, n, "cpu").total / 0.9) + 1 for n in (rows, 1))

    assert rows == 128
    assert rows_that_fit(config, section, enough, "cpu") == rows
    assert 1 <= rows_that_fit(config, section, enough - 10, "cpu") == rows // 2
    assert rows_that_fit(config, section, for_one, "cpu") == 1
    assert rows_that_fit(config, section, for_one - 10, "cpu") == 0


def test_a_micro_batch_in_the_recipe_is_the_most_that_is_tried() -> None:
    assert most_rows_at_once(_config(SHAPES[0]), _section(micro_batch_size=8)) == 8
