"""Tiny models and a stand-in tokenizer for the tests of this room."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hornbook.inference.engine import Engine
from hornbook.model.config import config_from_recipe
from hornbook.model.huggingface import save_pretrained
from hornbook.model.transformer import Transformer
from hornbook.recipe_data import ModelSection
from hornbook.run_directory import RunDirectory
from hornbook.runtime import torch_generator
from hornbook.tokenizer.tokenizer import Tokenizer

VOCAB_SIZE = 61
END_OF_TEXT_ID = 60


@pytest.fixture
def make_model() -> Callable[..., Transformer]:
    """Builds a tiny model with weights so far apart that two tokens are never equally good."""

    def make(vocab_size: int = VOCAB_SIZE, **fields: Any) -> Transformer:
        shape = {"n_layers": 2, "d_model": 32, "n_heads": 4, "n_kv_heads": 4, "max_seq_len": 48} | fields
        model = Transformer(config_from_recipe(ModelSection(**shape), vocab_size))
        generator = torch_generator("tiny model")
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=0.3, generator=generator)
        return model

    return make


@pytest.fixture
def make_engine(make_model: Callable[..., Transformer]) -> Callable[..., Engine]:
    """Builds an engine of such a model; END_OF_TEXT_ID is the one token id that it cannot do without."""

    def make(max_batch_tokens: int = 8192, end_of_text_id: int = END_OF_TEXT_ID, **fields: Any) -> Engine:
        tokenizer = SimpleNamespace(end_of_text_id=end_of_text_id)
        return Engine(make_model(**fields), tokenizer, max_batch_tokens=max_batch_tokens)

    return make


@pytest.fixture
def prompts() -> list[list[int]]:
    """Seven prompts of 1 to 20 tokens, in no order of length."""
    generator = torch_generator("prompts")
    return [torch.randint(60, (length,), generator=generator).tolist() for length in (5, 1, 20, 11, 3, 11, 8)]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """A real tokenizer with hardly any merges, so that foreign characters are several tokens."""
    return Tokenizer.train(["Once upon a time there was a cat. The cat sat on the mat. "] * 3, 290, "llama3")


@pytest.fixture
def run(tmp_path: Path, tokenizer: Tokenizer, make_model: Callable[..., Transformer]) -> Path:
    """A run with a pretrained and a fine-tuned model, which differ."""
    for stage, n_layers in (("pretrain", 1), ("finetune", 2)):
        folder = tmp_path / "run" / stage / "final"
        model = make_model(vocab_size=tokenizer.vocab_size, n_layers=n_layers, max_seq_len=96)
        save_pretrained(model, folder, tokenizer.end_of_text_id, tokenizer.pad_id)
        tokenizer.save(folder)
        RunDirectory(tmp_path / "run").stage(stage).finish("fingerprint", seconds=1.0, facts={})
    return tmp_path / "run"
