"""The tokenizer that everything uses: our merges, or published ones, run by a compiled engine.

It is saved as a `tokenizer.json` with a `tokenizer_config.json` beside it, which is what a plain
`AutoTokenizer.from_pretrained` and most other programs read. Ids of one that was learned here are given in this
order: 256 single bytes, the merges, the special tokens. A published one keeps all its ids; what it lacks of our
special tokens comes after them.

A special token stands for no text, and no text can make one unless asked: what happens to spell `<|end|>` is
encoded as ordinary characters here, and decoding leaves special tokens out. Other programs that read the same file
turn such a spelling into the special token, unless told otherwise (`split_special_tokens=True` in transformers).
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from hornbook.errors import UserError
from hornbook.run_directory import atomic_write, write_json
from hornbook.tokenizer import bpe
from hornbook.tokenizer.chat import CHAT_TEMPLATE, END_OF_TURN, ROLE_TOKENS
from hornbook.tokenizer.engine import Engine
from hornbook.tokenizer.published import TOKENIZER_FILE, read_published
from hornbook.tokenizer.tokenizer_json import (
    TokenizerJson,
    UnknownFormat,
    compose,
    read_vocabulary,
    with_special_tokens,
)

END_OF_TEXT = "<|endoftext|>"
PAD = "<|pad|>"
SPECIAL_TOKENS = (END_OF_TEXT, PAD, *ROLE_TOKENS.values(), END_OF_TURN)
"""Always in the vocabulary. A recipe can have more."""

# What others call the token that closes a document. Llama 3 has the second.
_ENDS_OF_TEXT = (END_OF_TEXT, "<|end_of_text|>")
_CONFIG_FILE = "tokenizer_config.json"


class Tokenizer:
    """Text to ids and back. Made by `train`, `from_merges`, `from_published` or `load`."""

    def __init__(self, file: TokenizerJson) -> None:
        self._file = file
        vocabulary = read_vocabulary(file)
        self._engine = Engine(vocabulary)
        self.vocab_size: int = vocabulary.size
        self._special_ids = vocabulary.special
        self._token_bytes = [b""] * self.vocab_size
        for token, id in vocabulary.ids.items():
            self._token_bytes[id] = token
        for spelling, id in vocabulary.spelled.items():
            self._token_bytes[id] = spelling.encode()
        self._end_of_text = next((name for name in _ENDS_OF_TEXT if name in self._special_ids), END_OF_TEXT)

    @classmethod
    def train(
        cls, texts: Iterable[str], vocab_size: int, split_pattern: str, special_tokens: Sequence[str] = ()
    ) -> Self:
        """Learn a tokenizer from texts. `split_pattern` names one of `bpe.SPLIT_PATTERNS`.

        `vocab_size` counts everything: 256 bytes, merges and special tokens, `special_tokens` among them beside
        those that are always there. Texts too few or too uniform for that many merges give a smaller vocabulary.
        Raises UserError where there is no room for any merge.
        """
        n_special = len(dict.fromkeys((*SPECIAL_TOKENS, *special_tokens)))
        if vocab_size <= 256 + n_special:
            raise UserError(
                f"tokenizer.vocab_size: must be more than {256 + n_special}, but is {vocab_size}: "
                f"256 bytes and {n_special} special tokens are always in the vocabulary."
            )
        pattern = bpe.SPLIT_PATTERNS[split_pattern]
        return cls.from_merges(bpe.train(texts, vocab_size - n_special, pattern), pattern, special_tokens)

    @classmethod
    def from_merges(cls, merges: list[bpe.Merge], pattern: str, special_tokens: Sequence[str] = ()) -> Self:
        """The tokenizer with these merges, words being what the regular expression `pattern` says."""
        file = compose(merges, pattern)
        _check_new(special_tokens, file)
        return cls(with_special_tokens(file, (*SPECIAL_TOKENS, *special_tokens)))

    @classmethod
    def from_published(cls, path: Path | str, special_tokens: Sequence[str] = ()) -> Self:
        """A published tokenizer with its own ids, and after them what it lacks of our special tokens.

        Its own token for the end of a text is used where it has one. Raises UserError as `read_published` does.
        """
        file = read_published(path)
        known = {entry["content"] for entry in file["added_tokens"]}
        _check_new([token for token in special_tokens if token not in known], file)
        end_of_text = next((name for name in _ENDS_OF_TEXT if name in known), END_OF_TEXT)
        return cls(with_special_tokens(file, (end_of_text, *SPECIAL_TOKENS[1:], *special_tokens)))

    def save(self, folder: Path | str) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json` into a folder."""
        atomic_write(Path(folder) / TOKENIZER_FILE, json.dumps(self._file, indent=1, ensure_ascii=False))
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": self._end_of_text,
            "pad_token": PAD,
            "clean_up_tokenization_spaces": False,
            "chat_template": CHAT_TEMPLATE,
        }
        write_json(Path(folder) / _CONFIG_FILE, config)

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Read what `save` wrote. Raises UserError where it is not there or not a byte-level tokenizer."""
        path = Path(folder) / TOKENIZER_FILE
        if not path.is_file():
            raise UserError(f"{path}: there is no tokenizer here. Name another folder, or run the tokenizer stage.")
        try:
            return cls(json.loads(path.read_text(encoding="utf-8")))
        except UnknownFormat as problem:
            raise UserError(f"{path}: is not a byte-level tokenizer, or is damaged: it {problem}.") from problem
        except ValueError as problem:
            raise UserError(f"{path}: is not a byte-level tokenizer, or is damaged ({problem}).") from problem

    def encode(self, text: str, special_tokens: bool = False) -> list[int]:
        """The ids of a text. What spells a special token is text like any other, unless `special_tokens` is set."""
        return self._engine.encode(text, special_tokens)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of each text, (length,) uint32, as fast as this machine can."""
        return self._engine.encode_batch(texts)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids, without special tokens. What is not UTF-8 becomes U+FFFD."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", errors="replace")

    def token_bytes(self, id: int) -> bytes:
        """The bytes that a token stands for; none for a special one, nor for a row that a model has to spare."""
        return self._token_bytes[id] if id < len(self._token_bytes) else b""

    def special_id(self, token: str) -> int:
        """The id of a special token, such as `<|end|>`. Raises UserError where there is no such token."""
        if token not in self._special_ids:
            raise UserError(f"The tokenizer has no {token} token, so it was not made by Hornbook. Use one that was.")
        return self._special_ids[token]

    @property
    def is_accelerated(self) -> bool:
        """Whether `encode_batch` goes through gigatoken."""
        return self._engine.is_accelerated

    @property
    def special_ids(self) -> dict[str, int]:
        """The ids of all special tokens, by their spelling."""
        return dict(self._special_ids)

    @property
    def end_of_text_id(self) -> int:
        """The id of the token that closes every document: `<|endoftext|>`, or what a published tokenizer has for it."""
        return self.special_id(self._end_of_text)

    @property
    def pad_id(self) -> int:
        """The id of `<|pad|>`, which fills places where there is nothing."""
        return self.special_id(PAD)


def _check_new(special_tokens: Sequence[str], file: TokenizerJson) -> None:
    """Raise UserError where a special token is spelled as a token is that has been learned."""
    for token in special_tokens:
        if token in file["model"]["vocab"]:
            raise UserError(
                f"tokenizer.special_tokens: {token!r} is a piece of ordinary text, which has its own token. "
                f"Write it so that no text has it, such as <|{token}|>."
            )
