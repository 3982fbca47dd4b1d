"""A tiny model with ragged batches, and a trainer around it that runs in milliseconds."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from hornbook.batching.packing import IGNORE_INDEX, Batch
from hornbook.model.config import config_from_recipe
from hornbook.model.init import init_weights
from hornbook.model.transformer import Transformer
from hornbook.objectives.next_token import NextToken
from hornbook.recipe_data import ModelSection
from hornbook.recipe_training import PretrainSection
from hornbook.runtime import torch_generator
from hornbook.training.optimizers import build_optimizer
from hornbook.training.trainer import Trainer

N_ROWS, N_TOKENS, VOCAB_SIZE = 8, 6, 19


class RaggedBatches:
    """Batches of random tokens whose rows have very different numbers of labels; one row has none."""

    def __init__(self) -> None:
        self.n_drawn = 0

    def next_batch(self) -> Batch:
        ids = torch.randint(0, VOCAB_SIZE, (N_ROWS, N_TOKENS + 1), generator=torch_generator("batch", self.n_drawn))
        self.n_drawn += 1
        positions = torch.arange(N_TOKENS).repeat(N_ROWS, 1)
        is_hidden = positions >= torch.tensor([6, 1, 0, 4, 2, 6, 1, 3])[:, None]
        return Batch(
            input_ids=ids[:, :-1],
            labels=ids[:, 1:].masked_fill(is_hidden, IGNORE_INDEX),
            position_ids=positions,
            document_ids=torch.zeros_like(positions),
            weights=None,
        )

    def state_dict(self) -> dict[str, int]:
        return {"n_drawn": self.n_drawn}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.n_drawn = state["n_drawn"]


@pytest.fixture
def ragged_batches() -> RaggedBatches:
    return RaggedBatches()


@pytest.fixture
def make_section() -> Callable[..., PretrainSection]:
    """A training section for the tiny model, with whatever is given in place of its defaults."""

    def make(**fields: Any) -> PretrainSection:
        defaults = {
            "tokens": 20 * N_ROWS * N_TOKENS,
            "global_batch_tokens": N_ROWS * N_TOKENS,
            "compile": False,
            "precision": "float32",
        }
        return PretrainSection(**(defaults | fields))

    return make


@pytest.fixture
def make_model() -> Callable[..., Transformer]:
    """The tiny model in the given type, with the same random weights each time."""

    def make(dtype: torch.dtype = torch.float32, **fields: Any) -> Transformer:
        section = ModelSection(**({"n_layers": 2, "d_model": 8, "n_heads": 2, "max_seq_len": N_TOKENS} | fields))
        model = Transformer(config_from_recipe(section, VOCAB_SIZE)).to(dtype)
        init_weights(model, seed=0)
        return model

    return make


@pytest.fixture
def make_trainer(
    tmp_path: Path, make_section: Callable[..., PretrainSection], make_model: Callable[..., Transformer]
) -> Callable[..., Trainer]:
    """A trainer of the tiny model in a folder named `folder`; other keywords are fields of its section."""

    def make(
        folder: str = "pretrain",
        total_steps: int = 6,
        dtype: torch.dtype = torch.float32,
        objective: Any = None,
        evaluators: Any = None,
        console: Console | None = None,
        **fields: Any,
    ) -> Trainer:
        model, section = make_model(dtype), make_section(**fields)
        return Trainer(
            model,
            objective or NextToken(),
            RaggedBatches(),
            build_optimizer(model, section),
            section,
            tmp_path / folder,
            total_steps,
            evaluators or {},
            console or Console(file=io.StringIO(), width=200),
            seed=1,
            device=torch.device("cpu"),
            dtype=torch.float32,
        )

    return make
