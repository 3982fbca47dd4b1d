"""Worked examples about text: a model that counts, and byte-pair encoding by the project's own trainer."""

import math
from itertools import pairwise
from typing import Any

from hornbook.tokenizer.bpe import SPLIT_PATTERNS, BytePairEncoding, count_words, train

BPE_TEXT = "low low low low low lower lower newest newest newest newest newest newest widest widest widest"
BPE_MERGES = 10


def bigram() -> dict[str, Any]:
    """A model that counts: which word followed "the" in a small text."""
    text = "the cat saw the dog and the dog saw the cat and the cat ran"
    followers = [after for word, after in pairwise(text.split()) if word == "the"]
    counts = {word: followers.count(word) for word in dict.fromkeys(followers)}
    chances = {word: count / len(followers) for word, count in counts.items()}
    return {
        "text": text,
        "n_followers": len(followers),
        "counts": counts,
        "probability": chances,
        "nats": {word: -math.log(chance) for word, chance in chances.items()},
        "mean_nats": -sum(chance * math.log(chance) for chance in chances.values()),
    }


def byte_pairs() -> dict[str, Any]:
    """Byte-pair encoding of a few words, by the project's own trainer: the merges, and a new word cut by them."""
    pattern = SPLIT_PATTERNS["gpt2"]
    words = count_words([BPE_TEXT], pattern)
    merges = train([BPE_TEXT], 256 + BPE_MERGES, pattern)
    steps = []
    for n in range(1, len(merges) + 1):
        before, after = BytePairEncoding(merges[: n - 1], pattern), BytePairEncoding(merges[:n], pattern)
        tokens_before = sum(count * len(before.encode(word)) for word, count in words.items())
        tokens_after = sum(count * len(after.encode(word)) for word, count in words.items())
        left, right = merges[n - 1]
        steps.append(
            {"left": _shown(left), "right": _shown(right), "token": _shown(left + right),
             "count": tokens_before - tokens_after, "tokens_after": tokens_after}
        )  # fmt: skip
    coder = BytePairEncoding(merges, pattern)
    return {
        "text": BPE_TEXT,
        "words": [{"word": _shown(word.encode()), "count": count} for word, count in words.items()],
        "n_bytes": len(BPE_TEXT.encode()),
        "steps": steps,
        "n_tokens": len(coder.encode(BPE_TEXT)),
        "bytes_per_token": len(BPE_TEXT.encode()) / len(coder.encode(BPE_TEXT)),
        "new_word": [_shown(coder.tokens[id]) for id in coder.encode(" lowest")],
    }


def _shown(token: bytes) -> str:
    return token.decode().replace(" ", "␣")
