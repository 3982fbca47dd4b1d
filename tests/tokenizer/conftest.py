"""What the tokenizer tests share: texts, and a tokenizer trained on them."""

from itertools import islice

import pytest

from hornbook.recipe_data import StoryworldSection
from hornbook.storyworld.corpus import write_documents
from hornbook.tokenizer.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Some documents of the storyworld, of those that are prose."""
    prose = StoryworldSection(echoes=0, inventories=0, still_lives=0)
    return [document.text for document in islice(write_documents(prose), 400)]


@pytest.fixture(scope="session")
def tokenizer(texts: list[str]) -> Tokenizer:
    return Tokenizer.train(texts, 700, "llama3")
