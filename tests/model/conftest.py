"""Tiny models for the tests of this room."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from hornbook.model.config import config_from_recipe
from hornbook.model.transformer import Transformer
from hornbook.recipe_data import ModelSection
from hornbook.runtime import torch_generator

VOCAB_SIZE = 61


@pytest.fixture
def make_model() -> Callable[..., Transformer]:
    """Builds a tiny model whose every weight is far from its start, so that each one matters."""

    def make(**fields: Any) -> Transformer:
        shape = {"n_layers": 2, "d_model": 32, "n_heads": 4, "max_seq_len": 48} | fields
        model = Transformer(config_from_recipe(ModelSection(**shape), VOCAB_SIZE))
        generator = torch_generator("tiny model")
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.normal_(std=0.2, generator=generator)
                if name.endswith("norm.weight"):
                    parameter.add_(1)
        return model

    return make


@pytest.fixture
def token_ids() -> torch.Tensor:
    """(2,24) token ids of the tiny vocabulary, whose last three the tests give special meanings."""
    return torch.randint(VOCAB_SIZE - 3, (2, 24), generator=torch_generator("token ids"))
