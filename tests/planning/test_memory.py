"""The estimate of memory, against what a real forward pass keeps for its backward pass."""

import pytest
import torch

from hornbook.batching.packing import Batch
from hornbook.model import block_attention
from hornbook.model.config import ModelConfig, config_from_recipe
from hornbook.model.transformer import Transformer
from hornbook.planning.layout import Layout
from hornbook.planning.memory import (
    LONGEST_ROW_IN_BLOCKS_TOKENS,
    layer_activation_bytes_per_token,
    most_rows_at_once,
    rows_that_fit,
    serving_memory,
    training_memory,
)
from hornbook.recipe_data import ModelSection
from hornbook.recipe_training import PretrainSection
from hornbook.training.optimizers import build_optimizer

from .measured import CASES, measured_peak_bytes

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
@pytest.mark.parametrize(("row_tokens", "dtype"), [(136, torch.bfloat16), (2080, torch.bfloat16), (136, torch.float32)])
def test_a_layer_keeps_what_the_estimate_says(shape: dict, row_tokens: int, dtype: torch.dtype) -> None:
    one, three = (_kept_bytes(_config(shape, n_layers, row_tokens), row_tokens, dtype) for n_layers in (1, 3))
    per_token = layer_activation_bytes_per_token(_config(shape), row_tokens, dtype.itemsize, "cpu")

    assert per_token == pytest.approx((three - one) / 2 / (N_ROWS * row_tokens), rel=0.06)


def test_the_longest_row_in_blocks_is_the_models() -> None:
    assert LONGEST_ROW_IN_BLOCKS_TOKENS == block_attention.LONGEST_ROW_TOKENS


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
    same = ("weights", "gradients", "optimizer", "cast_weights", "logits", "update")
    assert all(getattr(few, part) == getattr(many, part) for part in same)


QUICK = ("all rows at once", "selective recomputation", "full recomputation", "gpt2 in two parts", "a head of its own")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_the_peak_is_within_ten_percent_of_torchs_own_tracker(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config, section, n_rows = CASES[name]
    # As on a processor without instructions for bfloat16, which the plan supposes of the optimizer's products.
    monkeypatch.setattr("hornbook.training.optimizers.pick_dtype", lambda *_: torch.float32)
    # And without tiles: the plan counts scores in chunks.
    monkeypatch.setattr("hornbook.objectives.next_token.sums_in_blocks", lambda _: False)

    planned = training_memory(config, section, n_rows, "cpu").total
    assert planned == pytest.approx(measured_peak_bytes(config, section, n_rows), rel=0.1)


def test_the_parts_add_up_to_the_peak() -> None:
    for config, section, n_rows in CASES.values():
        memory = training_memory(config, section, n_rows, "cpu")
        at_least = memory.weights + memory.optimizer + memory.gradients
        assert at_least <= memory.total <= sum(vars(memory).values()) - memory.apart


def test_every_cut_takes_its_share_of_the_state() -> None:
    config, section = _config(SHAPES[1], n_layers=4), _section(global_batch_tokens=4096, optimizer="adamw")
    whole = training_memory(config, section, 2, "accelerator")
    for name in ("shard", "tensor"):
        cut = training_memory(config, section, 2, "accelerator", Layout(**{name: 4}))
        assert cut.weights == pytest.approx(whole.weights / 4, rel=0.01)
        assert cut.optimizer == pytest.approx(whole.optimizer / 4, rel=0.01)
    deep = training_memory(config, section, 2, "accelerator", Layout(pipeline=4))
    assert whole.weights / 4 < deep.weights < whole.weights / 2  # a quarter of the layers, and one of the ends
    copies = training_memory(config, section, 2, "accelerator", Layout(replicate=4))
    assert copies.weights == whole.weights
    assert copies.communication > 0


def test_a_served_model_needs_its_weights_and_a_cache_for_each_answer() -> None:
    config = _config(SHAPES[0])
    one, four = serving_memory(config, 1), serving_memory(config, 4)

    assert four["weights"] == one["weights"] == 2 * sum(p.numel() for p in Transformer(config).parameters())
    assert four["cache"] == 4 * one["cache"] == 4 * 1024 * 2 * 2 * (2 * 32) * 2


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
