"""What the batching tests share: documents whose every token is different."""

from collections.abc import Callable, Sequence

import pytest

from hornbook.batching.shards import DocumentTokens, MemoryDocuments

MakeDocuments = Callable[[Sequence[int]], MemoryDocuments]


def documents_of(lengths: Sequence[int]) -> MemoryDocuments:
    """Documents of these lengths. Counting on from one to the next, no two tokens have the same id."""
    documents, first = [], 0
    for length in lengths:
        documents.append(DocumentTokens(range(first, first + length), n_bytes=3 * length))
        first += length
    return MemoryDocuments(documents)


@pytest.fixture(scope="session")
def make_documents() -> MakeDocuments:
    return documents_of
