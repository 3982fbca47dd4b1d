"""The counts of a plan against the real model, and against torch's own counter of operations."""

import itertools

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from hornbook.batching.packing import Batch
from hornbook.model.config import ModelConfig, config_from_recipe
from hornbook.model.transformer import Transformer
from hornbook.objectives.next_token import NextToken
from hornbook.parallel.recompute import recomputed
from hornbook.planning.flops import (
    flops_per_token,
    optimizer_flops_per_step,
    parameters_by_part,
    total_training_flops,
)
from hornbook.recipe_data import ModelSection
from hornbook.recipe_training import PretrainSection
from hornbook.training import optimizers
from hornbook.training.optimizers import build_optimizer

N_ROWS, ROW_TOKENS = 3, 40


def _configs() -> list[ModelConfig]:
    """A dozen shapes in which every part of the count has its say."""
    shapes = [
        {"n_heads": 4, "d_model": 64},
        {"n_heads": 4, "d_model": 48, "n_layers": 3, "d_ff": 200, "max_seq_len": 64},
        {"n_heads": 2, "d_model": 32, "n_layers": 1, "max_seq_len": 96},
        {"n_heads": 6, "d_model": 96, "n_layers": 2, "d_ff": 40},
    ]
    grouped = [{}, {"n_kv_heads": 2, "head_dim": 24}, {"n_kv_heads": 1}, {"n_kv_heads": 2}]
    return [
        config_from_recipe(
            ModelSection(preset=preset, tie_embeddings=tied, **shape, **(kv if preset != "gpt2" else {})),
            vocab_size=101,
        )
        for (shape, kv), preset, tied in itertools.product(
            zip(shapes, grouped, strict=True), ("gpt2", "llama", "qwen3"), (True, False)
        )
    ]


def _counted_step(config: ModelConfig, recompute: bool) -> int:
    """The operations of one forward and backward pass, as torch counts them."""
    model = Transformer(config)
    ids = torch.zeros(N_ROWS, ROW_TOKENS, dtype=torch.int64)
    batch = Batch(input_ids=ids, labels=ids, position_ids=ids, document_ids=ids)
    # torch counts products; the fused kernel of a CPU, which has the same ones inside, it does not know.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        if recompute:
            with recomputed(model.model.layers, "full"):
                NextToken().loss_sum(model, batch)[0].backward()
        else:
            NextToken().loss_sum(model, batch)[0].backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("config", _configs(), ids=lambda config: config.architecture)
def test_the_parts_add_up_to_the_real_model(config: ModelConfig) -> None:
    with torch.device("meta"):
        model = Transformer(config)

    assert sum(parameters_by_part(config).values()) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", ["quickstart", "gpt2-124m", "llama-1b"])
def test_a_part_is_what_its_modules_hold(name: str, recipes_directory) -> None:
    from hornbook.recipe import load_recipe

    recipe = load_recipe(recipes_directory / f"{name}.toml")
    config = config_from_recipe(recipe.model, recipe.tokenizer.vocab_size)
    with torch.device("meta"):
        model = Transformer(config)

    held: dict[str, int] = {}
    names = {"embed_tokens": "embedding", "embed_positions": "positions", "norm": "norms"}
    names |= {"self_attn": "attention", "mlp": "feed_forward", "lm_head": "head"}
    for name, parameter in model.named_parameters():
        part = next(part for key, part in names.items() if key in name)
        held[part] = held.get(part, 0) + parameter.numel()
    assert parameters_by_part(config) == held


@pytest.mark.parametrize("config", _configs(), ids=lambda config: config.architecture)
def test_a_step_computes_what_torch_counts(config: ModelConfig) -> None:
    planned = N_ROWS * ROW_TOKENS * flops_per_token(config, ROW_TOKENS).total

    assert planned == pytest.approx(_counted_step(config, recompute=False), rel=0.001)


@pytest.mark.parametrize("config", _configs()[::5], ids=lambda config: config.architecture)
def test_recomputing_adds_what_torch_counts(config: ModelConfig) -> None:
    planned = N_ROWS * ROW_TOKENS * flops_per_token(config, ROW_TOKENS, "full").total

    assert planned == pytest.approx(_counted_step(config, recompute=True), rel=0.001)
    assert planned > N_ROWS * ROW_TOKENS * flops_per_token(config, ROW_TOKENS).total


@pytest.mark.parametrize("config", _configs()[::5], ids=lambda config: config.architecture)
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_an_update_computes_what_torch_counts(
    config: ModelConfig, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimizers, "load_blocks", lambda: None)  # the C functions are not torch's to count
    model = Transformer(config)
    section = PretrainSection(tokens=1, global_batch_tokens=1, optimizer=optimizer)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    update = build_optimizer(model, section)

    with FlopCounterMode(display=False) as counter:
        update.step()

    assert optimizer_flops_per_step(config, optimizer) == counter.get_total_flops()


def test_attention_alone_grows_with_the_row() -> None:
    config = _configs()[2]
    short, long = flops_per_token(config, 32), flops_per_token(config, 64)

    assert long.forward == short.forward
    assert long.attention_forward == 2 * short.attention_forward
    assert long.attention_backward == 2 * long.attention_forward


def test_a_whole_training_is_its_tokens_and_its_updates() -> None:
    config = _configs()[2]
    section = PretrainSection(tokens=9600, global_batch_tokens=960, row_tokens=32)

    expected = 9600 * flops_per_token(config, 32).total + 10 * optimizer_flops_per_step(config, "muon")
    assert total_training_flops(config, section) == expected


def test_gpt2_has_the_size_that_gave_it_its_name(recipes_directory) -> None:
    from hornbook.recipe import load_recipe

    recipe = load_recipe(recipes_directory / "gpt2-124m.toml")
    parts = parameters_by_part(config_from_recipe(recipe.model, vocab_size=50_257))

    assert sum(parts.values()) == 124_439_808
