"""What the corpus tests share: a few sound sentences, and functions that run one expression over texts."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from hornbook.corpus.engine import load_daft
from hornbook.storyworld.world import Document

PLACES = ("garden", "harbour", "mill", "forest", "kitchen", "school", "market", "tower", "meadow", "bridge")
THINGS = ("kite", "lamp", "basket", "drum", "spoon", "letter", "apple", "boat", "ring", "scarf")


def _sound_text(number: int) -> str:
    place, thing = PLACES[number % 10], THINGS[number // 10 % 10]
    return (
        f"On day {number} Mara went to the {place} with her brother. They found a {thing} and a box.\n\n"
        f'"Look," said Mara, "this is the {thing} of the old sailor." They took it home.'
    )


@pytest.fixture
def sound_text() -> Callable[[int], str]:
    """Gives a short text that breaks no rule, different for each number."""
    return _sound_text


@pytest.fixture
def over() -> Callable[..., list[Any]]:
    """Evaluates a function from string expression to expression over some texts."""

    def evaluate(expression: Callable[[Any], Any], texts: Iterable[str]) -> list[Any]:
        daft = load_daft()
        frame = daft.from_pydict({"text": list(texts)})
        return frame.select(expression(daft.col("text")).alias("result")).to_pydict()["result"]

    return evaluate


@pytest.fixture
def write_jsonl(tmp_path: Path) -> Callable[[str, Iterable[str]], Path]:
    """Writes texts as a jsonl file, and returns its path."""

    def write(name: str, texts: Iterable[str]) -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
        return path

    return write


@pytest.fixture
def documents() -> list[Document]:
    """Stand-ins for the world's stories."""
    return [Document(f"story-{n}", "story", _sound_text(n), 100.0 + n) for n in range(400)]
