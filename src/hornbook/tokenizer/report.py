"""How well a tokenizer fits texts: bytes per token by source and language, beside the vocabularies of others.

Best measured on texts that it was not trained on. More bytes per token make rows that say more, and models of
another vocabulary can only be compared by bytes. Few bytes per token in one language mean that it was rare in the
text the merges were learned from.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hornbook.tokenizer.engine import Engine
from hornbook.tokenizer.tokenizer import Tokenizer
from hornbook.tokenizer.tokenizer_json import Vocabulary

LONGEST_TOKENS = 20


class Document(NamedTuple):
    """A text, where it comes from, and the code of its language; "" where it is not known."""

    text: str
    source: str
    language: str


def compression_report(
    tokenizer: Tokenizer, documents: Sequence[Document], others: Iterable[tuple[str, Vocabulary]] = ()
) -> dict[str, Any]:
    """The report as plain JSON. Words are what white space parts; `others` are vocabularies to compare with.

    `bytes_per_token` of a group has a figure for this tokenizer, called "own", and one for each of the others.
    """
    texts = [document.text for document in documents]
    n_bytes = np.array([len(text.encode()) for text in texts], dtype=np.int64)
    encoded = tokenizer.encode_batch(texts)
    n_tokens = {"own": _lengths(encoded)}
    sizes = {}
    for name, vocabulary in others:
        n_tokens[name] = _lengths(Engine(vocabulary).encode_batch(texts))
        sizes[name] = vocabulary.size
    n_words = sum(len(text.split()) for text in texts)
    n_own = int(n_tokens["own"].sum())
    used = np.unique(np.concatenate(encoded)) if encoded else np.empty(0)
    longest = sorted(map(tokenizer.token_bytes, range(tokenizer.vocab_size)), key=len, reverse=True)
    return {
        "documents": len(texts),
        "bytes": int(n_bytes.sum()),
        "words": n_words,
        "tokens": n_own,
        "bytes_per_token": _ratio(n_bytes.sum(), n_own),
        "tokens_per_word": n_own / max(n_words, 1),
        "used_fraction_of_vocabulary": len(used) / tokenizer.vocab_size,
        "by_source": _groups([document.source for document in documents], n_bytes, n_tokens),
        "by_language": _groups([document.language for document in documents], n_bytes, n_tokens),
        "longest_tokens": [token.decode("utf-8", errors="replace") for token in longest[:LONGEST_TOKENS]],
        "compared_with": {
            name: {"vocab_size": size, "bytes_per_token": _ratio(n_bytes.sum(), n_tokens[name].sum())}
            for name, size in sizes.items()
        },
    }


def _lengths(encoded: Sequence[np.ndarray]) -> np.ndarray:
    return np.array([len(ids) for ids in encoded], dtype=np.int64)


def _groups(keys: Sequence[str], n_bytes: np.ndarray, n_tokens: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The figures of each group of documents, the largest first."""
    members: defaultdict[str, list[int]] = defaultdict(list)
    for number, key in enumerate(keys):
        members[key].append(number)
    groups: dict[str, dict[str, Any]] = {
        key: {
            "documents": len(numbers),
            "bytes": int(n_bytes[numbers].sum()),
            "bytes_per_token": {
                name: _ratio(n_bytes[numbers].sum(), lengths[numbers].sum()) for name, lengths in n_tokens.items()
            },
        }
        for key, numbers in members.items()
    }
    return dict(sorted(groups.items(), key=lambda item: -item[1]["bytes"]))


def _ratio(n_bytes: Any, n_tokens: Any) -> float:
    return float(n_bytes) / max(int(n_tokens), 1)
