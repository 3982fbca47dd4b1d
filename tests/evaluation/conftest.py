"""A tokenizer, a tiny model and an engine that says what it is told to."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hornbook.model.config import config_from_recipe
from hornbook.model.transformer import Transformer
from hornbook.recipe_data import ModelSection, StoryworldSection
from hornbook.runtime import torch_generator
from hornbook.storyworld.conversations import conversations
from hornbook.storyworld.questions import Question, held_out_questions
from hornbook.tokenizer.tokenizer import Tokenizer


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Products this small gain nothing from threads, and on a busy machine they wait for one another."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """Trained on a few of the world's conversations."""
    talks = islice(conversations(StoryworldSection()), 40)
    return Tokenizer.train([message["content"] for talk in talks for message in talk], 500, "llama3")


@pytest.fixture
def make_model(tokenizer: Tokenizer) -> Callable[..., Transformer]:
    """Builds a tiny model with weights drawn at random, or with all of them zero."""

    def make(std: float = 0.3, **fields: Any) -> Transformer:
        shape = {"n_layers": 2, "d_model": 32, "n_heads": 4, "n_kv_heads": 2, "max_seq_len": 256} | fields
        model = Transformer(config_from_recipe(ModelSection(**shape), tokenizer.vocab_size))
        generator = torch_generator("tiny model")
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=std, generator=generator) if std else parameter.zero_()
        return model

    return make


@pytest.fixture(scope="session")
def questions() -> list[Question]:
    """Some questions of every suite."""
    section = StoryworldSection()
    return [
        question
        for suite in ("comprehension", "reasoning", "facts")
        for question in held_out_questions(suite, 2, section)
    ]


class ScriptedEngine:
    """In an engine's place: gives the choices the scores it is told, and writes the texts it is told."""

    def __init__(
        self, tokenizer: Tokenizer, scores: Sequence[float], texts: Sequence[str], context_tokens: int = 256
    ) -> None:
        self.tokenizer = tokenizer
        self.model = SimpleNamespace(config=SimpleNamespace(max_seq_len=context_tokens))
        self._scores, self._texts = list(scores), list(texts)
        self.prompts: list[list[int]] = []

    def score(self, prompts: list[list[int]], choices: list[list[int]]) -> list[float]:
        assert len(prompts) == len(choices) == len(self._scores)
        return self._scores

    def generate(self, prompts: list[list[int]], max_new_tokens: int, **_: Any) -> list[list[int]]:
        self.prompts = list(prompts)
        return [self.tokenizer.encode(text)[:max_new_tokens] for text in self._texts]


@pytest.fixture
def scripted_engine(tokenizer: Tokenizer) -> Callable[..., ScriptedEngine]:
    """Builds an engine that gives these scores and texts."""
    return lambda scores, texts, **options: ScriptedEngine(tokenizer, scores, texts, **options)
