"""Byte-pair encoding from scratch: how text becomes tokens, and where the tokens come from.

Text is bytes, and a byte is one of 256 tokens to begin with. Training looks for the pair of neighbouring
tokens that occurs most often in the corpus, makes it a token of its own, and does so again until the
vocabulary is full (Gage 1994; Sennrich et al., arXiv 1508.07909; on bytes: Radford et al. 2019, "Language
models are unsupervised multitask learners"). Encoding applies the same merges in the order in which they were
learned, so frequent words become one token and rare ones several. As every byte is a token, no text is
unknown, and decoding gives back exactly what was encoded.

Before anything else the text is split into words by a regular expression, and no token crosses from one word
to the next. A corpus has far fewer different words than words, so training works on the different ones and
their counts.

This module is made to be read. `hornbook.tokenizer.tokenizer` trains with it, and encodes with a compiled
engine that is given the merges learned here; the tests hold the two together.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import cache, lru_cache
from itertools import pairwise

import regex

Merge = tuple[bytes, bytes]
Pair = tuple[int, int]

# The contraction, a word with at most one mark before it, up to three digits, marks with one space before
# them and newlines behind, newlines with space before them, space up to the last one, any space. Llama 3 took
# it over from GPT-4; Qwen (2, 2.5 and 3) did too, but has each digit by itself.
_GPT4_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLIT_PATTERNS = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "gpt4": _GPT4_PATTERN,
    "llama3": _GPT4_PATTERN,
    "qwen": _GPT4_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}"),
}

# What Python makes of bytes that are no UTF-8: one half of a surrogate pair for each (PEP 383).
_UNDECODABLE = regex.compile("([\udc80-\udcff]+)")


@cache
def byte_characters() -> dict[int, str]:
    """The character that stands for each byte in vocabulary files, in the order of the bytes' token ids.

    Both are GPT-2's. A byte that is a visible Latin-1 character stands for itself; after these come the
    others, as the characters from 256 on. With the usual order, our ids and how ties are broken are as
    everybody else's.
    """
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    invisible = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(256 + n) for n, byte in enumerate(invisible)}


@cache
def character_bytes() -> dict[str, int]:
    """The byte that each of the `byte_characters` stands for."""
    return {character: byte for byte, character in byte_characters().items()}


def vocabulary(merges: Iterable[Merge]) -> list[bytes]:
    """The bytes of each token, by id: first the single bytes, then what the merges make, in their order.

    Two merges may make the same token (th + e and t + he); it has one id, that of the first.
    """
    tokens = [bytes([byte]) for byte in byte_characters()] + [left + right for left, right in merges]
    return list(dict.fromkeys(tokens))


def spell(token: bytes) -> str:
    """A token as vocabulary files write it: a character for each byte."""
    characters = byte_characters()
    return "".join(characters[byte] for byte in token)


def count_words(texts: Iterable[str], pattern: str) -> Counter[str]:
    """How often each word occurs in the texts, where `pattern` says what a word is."""
    split = regex.compile(pattern)
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(split.findall(text))
    return counts


def train(texts: Iterable[str], vocab_size: int, pattern: str) -> list[Merge]:
    """Learn merges until there are `vocab_size` tokens, 256 single bytes among them, or no pairs are left.

    The most frequent pair is merged first. Among equally frequent ones it is that with the lowest left id,
    then the lowest right id, as in the trainer of the `tokenizers` library, so both learn the same merges.

    A merge changes only the words that have the pair. So the words of each pair are looked up, and only their
    pairs are counted again; and the pairs wait in a heap, where an outdated count is put right when it comes
    to the top.
    """
    word_counts = count_words(texts, pattern)
    tokens = vocabulary([])
    ids = {token: id for id, token in enumerate(tokens)}
    words = [[ids[bytes([byte])] for byte in word.encode()] for word in word_counts]
    counts = list(word_counts.values())

    pair_counts: defaultdict[Pair, int] = defaultdict(int)
    words_with: defaultdict[Pair, set[int]] = defaultdict(set)
    for index, word in enumerate(words):
        for pair in pairwise(word):
            pair_counts[pair] += counts[index]
            words_with[pair].add(index)
    queue = [(-count, pair) for pair, count in pair_counts.items()]
    heapq.heapify(queue)

    merges: dict[Merge, None] = {}
    while len(tokens) < vocab_size and queue:
        negative_count, pair = heapq.heappop(queue)
        if -negative_count != pair_counts[pair]:
            if pair_counts[pair] > 0:
                heapq.heappush(queue, (-pair_counts[pair], pair))
            continue
        left, right = (tokens[id] for id in pair)
        merges[left, right] = None
        new_id = ids.setdefault(left + right, len(tokens))
        if new_id == len(tokens):
            tokens.append(left + right)

        changes: defaultdict[Pair, int] = defaultdict(int)
        for index in words_with.pop(pair):
            word, count = words[index], counts[index]
            merged = merge_pair(word, pair, new_id)
            for old_pair in pairwise(word):
                changes[old_pair] -= count
            for new_pair in pairwise(merged):
                changes[new_pair] += count
                words_with[new_pair].add(index)
            words[index] = merged
        for changed_pair, change in changes.items():
            pair_counts[changed_pair] += change
            if change > 0:
                heapq.heappush(queue, (-pair_counts[changed_pair], changed_pair))
    return list(merges)


def merge_pair(word: list[int], pair: Pair, new_id: int) -> list[int]:
    """The word with each occurrence of the pair, from left to right, replaced by the new token."""
    merged: list[int] = []
    left, right = pair
    at, last = 0, len(word) - 1
    while at <= last:
        if word[at] == left and at < last and word[at + 1] == right:
            merged.append(new_id)
            at += 2
        else:
            merged.append(word[at])
            at += 1
    return merged


class BytePairEncoding:
    """Text to ids and back with merges that were learned before."""

    def __init__(self, merges: list[Merge], pattern: str) -> None:
        self.tokens = vocabulary(merges)
        self._ids = {token: id for id, token in enumerate(self.tokens)}
        self._ranks = {merge: rank for rank, merge in enumerate(merges)}
        self._split = regex.compile(pattern)
        # The same words come again and again.
        self._encode_word = lru_cache(maxsize=2**16)(lambda word: self.merge(word.encode()))

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        return [id for word in self._split.findall(text) for id in self._encode_word(word)]

    def encode_bytes(self, data: bytes) -> list[int]:
        """The ids of any bytes. Where they are no UTF-8, each is a token by itself."""
        ids: list[int] = []
        for part in _UNDECODABLE.split(data.decode("utf-8", errors="surrogateescape")):
            if _UNDECODABLE.match(part):
                ids += [self._ids[bytes([byte])] for byte in part.encode("utf-8", errors="surrogateescape")]
            else:
                ids += self.encode(part)
        return ids

    def decode(self, ids: Iterable[int]) -> bytes:
        """The bytes that the ids stand for. A whole text is valid UTF-8; a part of one need not be."""
        return b"".join(self.tokens[id] for id in ids)

    def merge(self, word: bytes) -> list[int]:
        """Apply to one word the earliest learned of the possible merges until none is left."""
        parts = [bytes([byte]) for byte in word]
        while len(parts) > 1:
            ranks = [self._ranks.get(merge, len(self._ranks)) for merge in pairwise(parts)]
            rank = min(ranks)
            if rank == len(self._ranks):
                break
            at = ranks.index(rank)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        return [self._ids[part] for part in parts]
