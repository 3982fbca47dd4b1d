"""The fast way from text to ids: compiled code that is given a vocabulary, and gives the textbook's ids.

tiktoken applies merges in the order of their ids, looks only at what a merge makes, not at what it is made of, and
takes a word whole where it is a token. For merges that were learned, that is the same: see `disagreements`.

Where gigatoken is installed (`pip install hornbook[accelerate]`) and knows the pattern of words, documents in bulk
go through it, several times as fast. It remembers the words that it has seen, without bound, so it is made anew
from time to time.
"""

import json
import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any
from unicodedata import normalize

import numpy as np
import regex
import tiktoken

from hornbook.tokenizer import bpe
from hornbook.tokenizer.tokenizer_json import Vocabulary, compose

# Most words are letters, perhaps after a space. All our patterns match them alike, but only after trying contractions;
# with this tried first, tiktoken finds the same words up to half again as fast.
_LETTERS_FIRST = r" ?\p{L}+|"
# tiktoken gives up at a longer stretch of white space.
_LONGEST_BLANK = 2**16
# Looked for from the first blank of each stretch alone, or many stretches that are long but short enough would take
# time that grows with the square of their length.
_LONG_BLANK = re.compile(rf"(?<!\s)\s{{{_LONGEST_BLANK}}}")
_BYTES_PER_ACCELERATOR = 2**29


class Engine:
    """Encodes with one vocabulary."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._added = vocabulary.special | vocabulary.spelled
        self._any_added = _any_of(self._added)
        self._spelled = _any_of(vocabulary.spelled)
        is_ours = vocabulary.pattern in bpe.SPLIT_PATTERNS.values()
        pattern = _LETTERS_FIRST + vocabulary.pattern if is_ours else vocabulary.pattern
        self._tiktoken = tiktoken.Encoding("", pat_str=pattern, mergeable_ranks=vocabulary.ids, special_tokens={})
        self._accelerator = _accelerator(vocabulary)
        self._accelerated_bytes = 0

    @property
    def is_accelerated(self) -> bool:
        """Whether `encode_batch` goes through gigatoken."""
        return self._accelerator is not None

    def encode(self, text: str, special_tokens: bool = False) -> list[int]:
        """The ids of a text. With `special_tokens`, their spellings become them; otherwise these are text."""
        added = self._any_added if special_tokens else self._spelled
        if added is None:
            return self._encode_plain(self._composed(text))
        ids: list[int] = []
        for number, part in enumerate(added.split(text)):
            ids += [self._added[part]] if number % 2 else self._encode_plain(self._composed(part))
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of each text, (length,) uint32, on all cores. Spellings of special tokens are text."""
        if self._accelerator is None or not texts:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                return [np.array(ids, dtype=np.uint32) for ids in pool.map(self.encode, texts)]
        import awkward

        self._renew_accelerator(sum(map(len, texts)))
        rows = self._accelerator.encode_batch([self._composed(text) for text in texts])
        flat, ends = awkward.flatten(rows).to_numpy(), np.cumsum(awkward.num(rows).to_numpy())
        batch = np.split(flat.astype(np.uint32), ends[:-1])
        if self._spelled is not None:
            for number, text in enumerate(texts):
                if self._spelled.search(text):
                    batch[number] = np.array(self.encode(text), dtype=np.uint32)
        return batch

    def _composed(self, text: str) -> str:
        return normalize("NFC", text) if self._vocabulary.composes else text

    def _encode_plain(self, text: str) -> list[int]:
        if len(text) >= _LONGEST_BLANK and _LONG_BLANK.search(text):
            words = regex.finditer(self._vocabulary.pattern, text)
            return [id for word in words for id in self._whole.encode_ordinary(word[0])]
        return self._tiktoken.encode_ordinary(text)

    @cached_property
    def _whole(self) -> tiktoken.Encoding:
        """An encoding to which any text is one word."""
        return tiktoken.Encoding("", pat_str="(?s:.+)", mergeable_ranks=self._vocabulary.ids, special_tokens={})

    def _renew_accelerator(self, n_bytes: int) -> None:
        self._accelerated_bytes += n_bytes
        if self._accelerated_bytes > _BYTES_PER_ACCELERATOR:
            self._accelerator, self._accelerated_bytes = _accelerator(self._vocabulary), n_bytes


def disagreements(vocabulary: Vocabulary) -> list[bytes]:
    """The tokens to which the merges do not lead, so that merging in the order of ids may give other ids.

    Whether two tokens can stand side by side depends on these two alone (van Antwerpen and Neubeck 2024, on
    GitHub's `bpe`). So if the merges, applied to the bytes of each token, end in that very token,
    they reach it by one way only, and no other two tokens that would make it ever meet.
    """
    if vocabulary.merges is None or vocabulary.prefers_whole_words:
        return []
    textbook = bpe.BytePairEncoding(vocabulary.merges, vocabulary.pattern)
    return [token for token in vocabulary.ids if len(textbook.merge(token)) != 1]


def _any_of(tokens: Iterable[str]) -> re.Pattern[str] | None:
    """A pattern that splits text at these spellings, the longest first, and keeps them; None where there are none."""
    longest_first = sorted(tokens, key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, longest_first))})") if longest_first else None


def _accelerator(vocabulary: Vocabulary) -> Any:
    """gigatoken with this vocabulary and no added tokens, or None where it is missing or cannot do it."""
    if vocabulary.merges is None:
        return None
    try:
        import gigatoken
    except ImportError:
        return None
    file = compose(vocabulary.merges, vocabulary.pattern, vocabulary.ids)
    if vocabulary.pattern == bpe.SPLIT_PATTERNS["gpt2"]:  # known to it only by this name
        file["pre_tokenizer"] = file["pre_tokenizer"]["pretokenizers"][1] | {"use_regex": True}
    file["model"]["ignore_merges"] = vocabulary.prefers_whole_words
    try:
        return gigatoken.Tokenizer.from_json(json.dumps(file))
    except RuntimeError:
        return None
