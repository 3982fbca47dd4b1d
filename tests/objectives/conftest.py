"""A small Llama and answers for it, in float64 so that equal means equal."""

import pytest
import torch

from hornbook.model.config import config_from_recipe
from hornbook.model.init import init_weights
from hornbook.model.transformer import Transformer
from hornbook.objectives.answers import Answer
from hornbook.recipe_data import ModelSection

VOCAB_SIZE, ROW_TOKENS, PAD_ID = 23, 12, 0


def make_model(seed: int) -> Transformer:
    section = ModelSection(n_layers=2, d_model=16, n_heads=2, max_seq_len=ROW_TOKENS)
    model = Transformer(config_from_recipe(section, VOCAB_SIZE))
    init_weights(model, seed)
    return model.double()


@pytest.fixture
def model() -> Transformer:
    return make_model(seed=1)


@pytest.fixture
def reference() -> Transformer:
    return make_model(seed=2).requires_grad_(False)


@pytest.fixture
def answers() -> list[Answer]:
    """Eight answers of different lengths, two to each prompt; one of them is a single token."""
    generator = torch.Generator().manual_seed(3)

    def draw(count: int) -> list[int]:
        return torch.randint(1, VOCAB_SIZE, (count,), generator=generator).tolist()

    prompts = [draw(n) for n in (2, 3, 4, 5)]
    lengths = [3, 5, 1, 4, 7, 2, 6, 3]
    return [Answer(prompts[row // 2], draw(length)) for row, length in enumerate(lengths)]
