"""The tokenizer that everything uses: our merges, run by the compiled engine of the `tokenizers` library.

It is saved as a `tokenizer.json` with a `tokenizer_config.json` beside it, which is what a plain
`AutoTokenizer.from_pretrained` and most other programs read. Ids are given in this order: 256 single bytes,
the merges, the special tokens.

A special token stands for no text, and no text can make one: what happens to spell `<|end|>` is encoded as
ordinary characters here, and decoding leaves special tokens out. Other programs that read the same file turn
such a spelling into the special token, unless told otherwise (`split_special_tokens=True` in transformers).
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers

from hornbook.errors import UserError
from hornbook.run_directory import atomic_write, write_json
from hornbook.tokenizer import bpe
from hornbook.tokenizer.chat import CHAT_TEMPLATE, END_OF_TURN, ROLE_TOKENS

END_OF_TEXT = "<|endoftext|>"
PAD = "<|pad|>"
SPECIAL_TOKENS = (END_OF_TEXT, PAD, *ROLE_TOKENS.values(), END_OF_TURN)

_TOKENIZER_FILE = "tokenizer.json"
_CONFIG_FILE = "tokenizer_config.json"


class Tokenizer:
    """Text to ids and back. Made by `train`, `from_merges` or `load`."""

    def __init__(self, engine: tokenizers.Tokenizer) -> None:
        self._engine = engine
        self._engine.encode_special_tokens = True  # as text, that is
        self.vocab_size: int = engine.get_vocab_size()
        self._special_ids = {token.content: id for id, token in engine.get_added_tokens_decoder().items()}
        byte_of = {character: byte for byte, character in bpe.byte_characters().items()}
        special = set(self._special_ids.values())
        self._token_bytes = [
            b"" if id in special else bytes(byte_of[character] for character in engine.id_to_token(id) or "")
            for id in range(self.vocab_size)
        ]

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, split_pattern: str) -> Self:
        """Learn a tokenizer from texts. `split_pattern` names one of `bpe.SPLIT_PATTERNS`.

        `vocab_size` counts everything: 256 bytes, merges and special tokens. Texts too few or too uniform for
        that many merges give a smaller vocabulary. Raises UserError where there is no room for any merge.
        """
        n_special = len(SPECIAL_TOKENS)
        if vocab_size <= 256 + n_special:
            raise UserError(
                f"tokenizer.vocab_size: must be more than {256 + n_special}, but is {vocab_size}: "
                f"256 bytes and {n_special} special tokens are always in the vocabulary."
            )
        pattern = bpe.SPLIT_PATTERNS[split_pattern]
        return cls.from_merges(bpe.train(texts, vocab_size - n_special, pattern), pattern)

    @classmethod
    def from_merges(cls, merges: list[bpe.Merge], pattern: str) -> Self:
        """The tokenizer with these merges, words being what the regular expression `pattern` says."""
        characters = bpe.byte_characters()

        def spell(token: bytes) -> str:
            return "".join(characters[byte] for byte in token)

        ids = {spell(token): id for id, token in enumerate(bpe.vocabulary(merges))}
        engine = tokenizers.Tokenizer(models.BPE(ids, [(spell(left), spell(right)) for left, right in merges]))
        split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
        as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        engine.pre_tokenizer = pre_tokenizers.Sequence([split, as_bytes])
        engine.decoder = decoders.ByteLevel()
        engine.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
        return cls(engine)

    def save(self, folder: Path | str) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json` into a folder."""
        atomic_write(Path(folder) / _TOKENIZER_FILE, self._engine.to_str(pretty=True))
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": END_OF_TEXT,
            "pad_token": PAD,
            "clean_up_tokenization_spaces": False,
            "chat_template": CHAT_TEMPLATE,
        }
        write_json(Path(folder) / _CONFIG_FILE, config)

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Read what `save` wrote. Raises UserError where it is not there or not a byte-level tokenizer."""
        path = Path(folder) / _TOKENIZER_FILE
        if not path.is_file():
            raise UserError(f"{path}: there is no tokenizer here. Name another folder, or run the tokenizer stage.")
        try:
            return cls(tokenizers.Tokenizer.from_file(str(path)))
        except Exception as problem:  # the engine has no exception of its own
            raise UserError(
                f"{path}: is not a byte-level tokenizer, or is damaged ({problem}). Write it anew."
            ) from problem

    def encode(self, text: str) -> list[int]:
        """The ids of a text. Spellings of special tokens are text like any other."""
        return self._engine.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, on all cores."""
        return [encoding.ids for encoding in self._engine.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids, without special tokens. What is not UTF-8 becomes U+FFFD."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", errors="replace")

    def token_bytes(self, id: int) -> bytes:
        """The bytes that a token stands for; none for a special token."""
        return self._token_bytes[id]

    def special_id(self, token: str) -> int:
        """The id of a special token, such as `<|end|>`. Raises UserError where there is no such token."""
        if token not in self._special_ids:
            raise UserError(f"The tokenizer has no {token} token, so it was not made by Hornbook. Use one that was.")
        return self._special_ids[token]

    @property
    def end_of_text_id(self) -> int:
        """The id of `<|endoftext|>`, which closes every document."""
        return self.special_id(END_OF_TEXT)

    @property
    def pad_id(self) -> int:
        """The id of `<|pad|>`, which fills places where there is nothing."""
        return self.special_id(PAD)


def compression_report(tokenizer: Tokenizer, texts: Sequence[str]) -> dict[str, Any]:
    """How well a tokenizer fits texts, best ones it was not trained on. Words are what white space parts."""
    encoded = tokenizer.encode_batch(texts)
    n_bytes = sum(len(text.encode()) for text in texts)
    n_words = sum(len(text.split()) for text in texts)
    n_tokens = sum(map(len, encoded))
    used = {id for ids in encoded for id in ids}
    return {
        "documents": len(texts),
        "bytes": n_bytes,
        "words": n_words,
        "tokens": n_tokens,
        "bytes_per_token": n_bytes / max(n_tokens, 1),
        "tokens_per_word": n_tokens / max(n_words, 1),
        "used_fraction_of_vocabulary": len(used) / tokenizer.vocab_size,
    }
