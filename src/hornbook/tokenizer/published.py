"""Tokenizers that others have published, read from their files."""

import base64
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hornbook.corpus.files import expanded
from hornbook.errors import UserError
from hornbook.tokenizer import bpe
from hornbook.tokenizer.engine import disagreements
from hornbook.tokenizer.tokenizer_json import (
    TokenizerJson,
    UnknownFormat,
    Vocabulary,
    compose,
    read_vocabulary,
    with_special_tokens,
)

TOKENIZER_FILE = "tokenizer.json"
# GPT-2's two files, by OpenAI's names and by Hugging Face's: the merges and the ids.
_GPT2_FILES = (("vocab.bpe", "encoder.json"), ("merges.txt", "vocab.json"))
_GPT2_SPECIAL = "<|endoftext|>"
_TIKTOKEN_SOURCE = "https://openaipublic.blob.core.windows.net/"


def files_of(path: Path | str) -> list[Path]:
    """The files that a published tokenizer is read from: a `tokenizer.json`, or GPT-2's pair.

    `path` is a `tokenizer.json` by any name, or a folder with one or the other. Raises UserError where there is none.
    """
    path = expanded(path)
    if path.is_file():
        return [path]
    if (path / TOKENIZER_FILE).is_file():
        return [path / TOKENIZER_FILE]
    for names in _GPT2_FILES:
        if all((path / name).is_file() for name in names):
            return [path / name for name in names]
    pairs = ", or ".join(" and ".join(names) for names in _GPT2_FILES)
    raise UserError(
        f"{path}: there is no tokenizer here. Name a {TOKENIZER_FILE}, or a folder with one, or with {pairs}."
    )


def read_published(path: Path | str) -> TokenizerJson:
    """A published tokenizer as a `tokenizer.json`: its ids, merges, pattern and special tokens as they are.

    What it does with an encoded text, such as putting a token before it, is left out: here documents and
    conversations say by themselves what stands around them. Raises UserError where it is not there, is damaged, or
    asks for something we cannot do.
    """
    files = files_of(path)
    try:
        file = _read_gpt2(*files) if len(files) == 2 else json.loads(files[0].read_text(encoding="utf-8"))
        vocabulary = read_vocabulary(file)
    except UnknownFormat as problem:
        raise UserError(f"{files[0]}: cannot be used here: it {problem}. Use another one, or learn one.") from problem
    except (ValueError, OSError, KeyError, AttributeError, TypeError) as problem:
        raise UserError(f"{files[0]}: is no tokenizer, or is damaged ({problem}). Fetch it anew.") from problem
    if lost := disagreements(vocabulary):
        raise UserError(
            f"{files[0]}: cannot be used here: its merges never make {len(lost)} of its tokens, such as {lost[0]!r}. "
            "Use another one, or learn one."
        )
    return {**file, "post_processor": None, "truncation": None, "padding": None}


def vocabularies_at_hand() -> Iterator[tuple[str, Vocabulary]]:
    """GPT-2's and GPT-4's vocabularies, as far as they lie on this machine. Nothing is fetched.

    Looked for in `tokenizer/gpt2` of the folder that HORNBOOK_DATA names, and where tiktoken keeps what it fetched.
    """
    folder = Path(os.environ.get("HORNBOOK_DATA", "")) / "tokenizer/gpt2"
    pairs = [[folder / name for name in _GPT2_FILES[0]], [_kept(f"gpt-2/encodings/main/{n}") for n in _GPT2_FILES[0]]]
    for pair in pairs:
        if all(file.is_file() for file in pair):
            yield "GPT-2", read_vocabulary(_read_gpt2(*pair))
            break
    gpt4 = _kept("encodings/cl100k_base.tiktoken")
    if gpt4.is_file():
        lines = [line.split() for line in gpt4.read_bytes().splitlines() if line]
        ids = {base64.b64decode(token): int(id) for token, id in lines}
        yield "GPT-4", Vocabulary(ids=ids, merges=None, pattern=bpe.SPLIT_PATTERNS["gpt4"], special={}, spelled={})


def _read_gpt2(merges_path: Path, ids_path: Path) -> TokenizerJson:
    lines = merges_path.read_text(encoding="utf-8").splitlines()
    byte_of = bpe.character_bytes()

    def token(spelling: str) -> bytes:
        return bytes(byte_of[character] for character in spelling)

    # The first line says only which version of the format it is.
    pairs = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    merges = [(token(left), token(right)) for left, right in pairs]
    spelled: dict[str, Any] = json.loads(ids_path.read_text(encoding="utf-8"))
    special = {name: id for name, id in spelled.items() if name == _GPT2_SPECIAL}
    ids = {token(name): id for name, id in spelled.items() if name not in special}
    file = with_special_tokens(compose(merges, bpe.SPLIT_PATTERNS["gpt2"], ids), special)
    for entry in file["added_tokens"]:
        entry["id"] = special[entry["content"]]
    return file


def _kept(name: str) -> Path:
    """Where tiktoken keeps a file that it fetched: its cache has one file for each address, named by a hash of it."""
    default = Path(tempfile.gettempdir()) / "data-gym-cache"
    cache = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR") or default
    return Path(cache) / hashlib.sha1(f"{_TIKTOKEN_SOURCE}{name}".encode()).hexdigest()
