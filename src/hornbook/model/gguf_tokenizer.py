"""The tokenizer of a model's folder as GGUF has it: tokens, merges, kinds of tokens, chat template.

Read from `tokenizer.json` and `tokenizer_config.json` as they lie beside the weights. GGUF has no place for the
regular expression that cuts text into words: it names one that llama.cpp knows. llama.cpp's own version of each
is the same rule, written out in C++.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf

from hornbook.errors import UserError
from hornbook.run_directory import read_json
from hornbook.tokenizer import bpe
from hornbook.tokenizer.engine import disagreements
from hornbook.tokenizer.published import TOKENIZER_FILE
from hornbook.tokenizer.tokenizer_json import UnknownFormat, read_vocabulary

_PRE_TOKENIZERS = {
    bpe.SPLIT_PATTERNS["gpt2"]: "gpt-2",
    bpe.SPLIT_PATTERNS["gpt4"]: "llama-bpe",  # Llama 3 took it over
    bpe.SPLIT_PATTERNS["llama3"]: "llama-bpe",
    bpe.SPLIT_PATTERNS["qwen"]: "qwen2",
}
"""llama.cpp's name for each published pattern."""


@dataclass(frozen=True)
class GgufTokenizer:
    """Everything that a GGUF file says about its tokenizer.

    special: those added tokens that stand for no text; merges are pairs in the order they are tried.
    """

    tokens: dict[int, str]
    special: frozenset[int]
    added: frozenset[int]
    merges: tuple[tuple[str, str], ...]
    pre_tokenizer: str
    end_of_text_id: int
    pad_id: int | None
    end_of_turn_id: int | None
    chat_template: str | None

    def add_to(self, writer: gguf.GGUFWriter, vocab_size: int) -> None:
        """Write it. Rows of the embedding that have no token get names that no text can spell."""
        ids = range(vocab_size)
        writer.add_tokenizer_model("gpt2")  # byte-level byte-pair encoding, whoever made it
        writer.add_tokenizer_pre(self.pre_tokenizer)
        writer.add_token_list([self.tokens.get(id, f"[PAD{id}]") for id in ids])
        writer.add_token_types([self._kind(id) for id in ids])
        writer.add_token_merges([f"{left} {right}" for left, right in self.merges])
        writer.add_bos_token_id(self.end_of_text_id)
        writer.add_eos_token_id(self.end_of_text_id)
        if self.pad_id is not None:
            writer.add_pad_token_id(self.pad_id)
        if self.end_of_turn_id is not None:
            writer.add_eot_token_id(self.end_of_turn_id)
        writer.add_add_bos_token(False)
        writer.add_add_eos_token(False)
        if self.chat_template is not None:
            writer.add_chat_template(self.chat_template)

    def _kind(self, id: int) -> gguf.TokenType:
        if id not in self.tokens:
            return gguf.TokenType.UNUSED
        if id in self.special:
            return gguf.TokenType.CONTROL
        return gguf.TokenType.USER_DEFINED if id in self.added else gguf.TokenType.NORMAL


def read_gguf_tokenizer(folder: Path) -> GgufTokenizer:
    """The tokenizer of a folder in Hugging Face's layout.

    Raises UserError where there is none, where it is no byte-level byte-pair encoding, and where llama.cpp would cut
    text otherwise.
    """
    path = folder / TOKENIZER_FILE
    if not path.is_file():
        raise UserError(f"{path}: there is no tokenizer here, and a GGUF file needs one")
    try:
        vocabulary = read_vocabulary(read_json(path))
    except UnknownFormat as problem:
        raise UserError(f"{path}: cannot be written into a GGUF file: it {problem}") from problem
    if vocabulary.pattern not in _PRE_TOKENIZERS:
        raise UserError(f"{path}: cuts text by a pattern that llama.cpp has no name for: {vocabulary.pattern}")
    # Under this name llama.cpp takes a word that is a token whole, without asking the merges.
    if _PRE_TOKENIZERS[vocabulary.pattern] == "llama-bpe" and (lost := disagreements(vocabulary)):
        raise UserError(f"{path}: llama.cpp would take {len(lost)} tokens whole that the merges never make: {lost[:3]}")
    config, generation = _settings(folder / "config.json"), _settings(folder / "generation_config.json")
    end_of_text_id = _first(config.get("eos_token_id"))
    if end_of_text_id is None:
        raise UserError(f"{folder / 'config.json'}: says nowhere with which token a text ends (eos_token_id)")
    stops = generation.get("eos_token_id")
    added = {id: token for names in (vocabulary.special, vocabulary.spelled) for token, id in names.items()}
    return GgufTokenizer(
        tokens={id: bpe.spell(token) for token, id in vocabulary.ids.items()} | added,
        special=frozenset(vocabulary.special.values()),
        added=frozenset(added),
        merges=tuple((bpe.spell(left), bpe.spell(right)) for left, right in vocabulary.merges or ()),
        pre_tokenizer=_PRE_TOKENIZERS[vocabulary.pattern],
        end_of_text_id=end_of_text_id,
        pad_id=_first(config.get("pad_token_id")),
        end_of_turn_id=next((id for id in stops if id != end_of_text_id), None) if isinstance(stops, list) else None,
        chat_template=_chat_template(folder),
    )


def _chat_template(folder: Path) -> str | None:
    beside = folder / "chat_template.jinja"
    if beside.is_file():
        return beside.read_text(encoding="utf-8")
    template = _settings(folder / "tokenizer_config.json").get("chat_template")
    return template if isinstance(template, str) else None


def _settings(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _first(ids: Any) -> int | None:
    return ids[0] if isinstance(ids, list) else ids
