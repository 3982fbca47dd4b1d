"""Two hundred random shapes of model: what the plan counts, against the real model and torch's own counter."""

import random

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from hornbook.batching.packing import Batch
from hornbook.model.config import ModelConfig, config_from_recipe
from hornbook.model.transformer import Transformer
from hornbook.objectives.next_token import NextToken
from hornbook.parallel.recompute import recomputed
from hornbook.planning.flops import flops_per_token, parameters_by_part
from hornbook.recipe_data import ModelSection

N_CONFIGS = 200
LARGEST_ERROR = 0.01


def _random_config(number: int) -> tuple[ModelConfig, int, int, str]:
    """A shape, its rows, the tokens of one, and what is computed again: all from the number alone."""
    draw = random.Random(number)
    preset = draw.choice(["gpt2", "llama", "llama3", "qwen3"])
    n_heads = draw.choice([1, 2, 3, 4, 6, 8])
    head_dim = draw.choice([4, 8, 10, 16, 32])
    fields = {
        "preset": preset,
        "n_layers": draw.randint(1, 5),
        "n_heads": n_heads,
        "d_model": n_heads * head_dim,
        "max_seq_len": 96,
        "tie_embeddings": draw.random() < 0.5,
    }
    if draw.random() < 0.5:
        fields["d_ff"] = draw.randint(8, 300)
    if preset != "gpt2":
        fields["n_kv_heads"] = draw.choice([n for n in range(1, n_heads + 1) if n_heads % n == 0])
        fields["head_dim"] = draw.choice([head_dim, 2 * head_dim, 12])
        fields["attention_bias"] = draw.random() < 0.3
    if preset in ("llama", "llama3"):
        fields["mlp_bias"] = draw.random() < 0.3
    config = config_from_recipe(ModelSection(**fields), vocab_size=draw.randint(50, 700))
    return config, draw.randint(1, 4), draw.randint(2, 96), draw.choice(["none", "none", "selective", "full"])


def _counted(config: ModelConfig, n_rows: int, row_tokens: int, recompute: str) -> tuple[int, int]:
    """Parameters of the real model and the operations of one forward and backward pass."""
    model = Transformer(config)
    ids = torch.zeros(n_rows, row_tokens, dtype=torch.int64)
    batch = Batch(input_ids=ids, labels=ids, position_ids=ids, document_ids=ids)
    # A fused kernel holds the same products, but torch counts those of the formula.
    again = recomputed(model.model.layers, recompute)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, again:
        NextToken().loss_sum(model, batch)[0].backward()
    return sum(parameter.numel() for parameter in model.parameters()), counter.get_total_flops()


@pytest.mark.parametrize(
    "decade", [*range(3), *(pytest.param(decade, marks=pytest.mark.slow) for decade in range(3, N_CONFIGS // 10))]
)
def test_parameters_are_exact_and_operations_within_a_percent(decade: int) -> None:
    for number in range(10 * decade, 10 * decade + 10):
        config, n_rows, row_tokens, recompute = _random_config(number)
        parameters, operations = _counted(config, n_rows, row_tokens, recompute)
        counted_as = "none" if recompute == "selective" else recompute
        planned = n_rows * row_tokens * flops_per_token(config, row_tokens, counted_as).total
        if recompute == "selective":  # the formula's attention is computed again there, the fused one is not
            planned += n_rows * row_tokens * flops_per_token(config, row_tokens).attention_forward

        assert sum(parameters_by_part(config).values()) == parameters, config
        assert planned == pytest.approx(operations, rel=LARGEST_ERROR), (number, recompute, config)
