"""The tokenizer of a model's folder as GGUF has it: tokens, merges, kinds of tokens, chat template.

Read from `tokenizer.json` and `tokenizer_config.json` as they lie beside the weights. GGUF has no place for the
regular expression that cuts text into words: it names one that llama.cpp knows. llama.cpp's own version of each
is the same rule, written out in C++.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf

from hornbook.errors import UserError
from hornbook.run_directory import read_json
from hornbook.tokenizer import bpe

_PRE_TOKENIZERS = {
    bpe.SPLIT_PATTERNS["gpt2"]: "gpt-2",
    bpe.SPLIT_PATTERNS["gpt4"]: "llama-bpe",  # Llama 3 took it over
    bpe.SPLIT_PATTERNS["llama3"]: "llama-bpe",
    # Qwen cuts numbers into single digits, and is otherwise the same.
    bpe.SPLIT_PATTERNS["llama3"].replace(r"\p{N}{1,3}", r"\p{N}"): "qwen2",
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

    Raises UserError where there is none, where it is no byte-level byte-pair encoding, and where it cuts text by
    a pattern that llama.cpp does not know.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise UserError(f"{path}: there is no tokenizer here, and a GGUF file needs one")
    table = read_json(path)
    model = table.get("model", {})
    if model.get("type") != "BPE":
        raise UserError(f"{path}: is a tokenizer of the type {model.get('type')}; GGUF files are written of BPE alone")
    added = {token["id"]: token for token in table.get("added_tokens", [])}
    tokens = {id: token for token, id in model["vocab"].items()} | {id: t["content"] for id, t in added.items()}
    config, generation = _settings(folder / "config.json"), _settings(folder / "generation_config.json")
    end_of_text_id = _first(config.get("eos_token_id"))
    if end_of_text_id is None:
        raise UserError(f"{folder / 'config.json'}: says with which token a text ends nowhere (eos_token_id)")
    stops = generation.get("eos_token_id")
    return GgufTokenizer(
        tokens=tokens,
        special=frozenset(id for id, token in added.items() if token.get("special")),
        added=frozenset(added),
        merges=tuple(_pair(merge) for merge in model["merges"]),
        pre_tokenizer=_pre_tokenizer(table, path),
        end_of_text_id=end_of_text_id,
        pad_id=_first(config.get("pad_token_id")),
        end_of_turn_id=next((id for id in stops if id != end_of_text_id), None) if isinstance(stops, list) else None,
        chat_template=_chat_template(folder),
    )


def _pre_tokenizer(table: dict[str, Any], path: Path) -> str:
    """llama.cpp's name for how words are cut: a pattern, or GPT-2's own step, which has its pattern built in."""
    outer = table.get("pre_tokenizer") or {}
    steps = outer.get("pretokenizers", [outer])
    patterns = [step["pattern"].get("Regex") for step in steps if step.get("type") == "Split"]
    if any(step.get("type") == "ByteLevel" and step.get("use_regex", True) for step in steps):
        patterns.append(bpe.SPLIT_PATTERNS["gpt2"])
    is_plain = not table.get("normalizer") or table["normalizer"].get("type") == "NFC"
    if len(patterns) != 1 or patterns[0] not in _PRE_TOKENIZERS or not is_plain:
        raise UserError(f"{path}: cuts text in a way that llama.cpp has no name for: {json.dumps(outer)}")
    return _PRE_TOKENIZERS[patterns[0]]


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


def _pair(merge: Any) -> tuple[str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right
