"""The tokenizer: the same ids as the textbook, in memory, on disk and in transformers."""

from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models
from transformers import AutoTokenizer

from hornbook.errors import UserError
from hornbook.tokenizer import bpe
from hornbook.tokenizer.tokenizer import SPECIAL_TOKENS, Tokenizer

AWKWARD = [
    "",
    " ",
    "naïve  café\n\n\tÅngström 12345",
    "it's <|end|> not <|endoftext|>",
    "中文🙂\u200b\x00",
    "\r\n' 'LL",
]


@pytest.mark.parametrize("pattern", bpe.SPLIT_PATTERNS)
def test_the_engine_gives_the_ids_of_the_textbook(texts: list[str], pattern: str) -> None:
    regex = bpe.SPLIT_PATTERNS[pattern]
    textbook = bpe.BytePairEncoding(bpe.train(texts, 600, regex), regex)
    tokenizer = Tokenizer.train(texts, 600 + len(SPECIAL_TOKENS), pattern)
    for text in texts[:50] + AWKWARD:
        assert tokenizer.encode(text) == textbook.encode(text)


def test_vocab_size_counts_everything(tokenizer: Tokenizer) -> None:
    assert tokenizer.vocab_size == 700
    special = [tokenizer.special_id(token) for token in SPECIAL_TOKENS]
    assert special == list(range(700 - 6, 700))
    assert (tokenizer.end_of_text_id, tokenizer.pad_id) == (694, 695)


def test_texts_with_little_to_merge_give_a_smaller_vocabulary() -> None:
    tokenizer = Tokenizer.train(["abc"], 1000, "llama3")
    assert tokenizer.vocab_size == 256 + 2 + 6
    assert tokenizer.decode(tokenizer.encode("abc cab é")) == "abc cab é"


def test_a_vocabulary_without_room_for_merges_is_refused() -> None:
    with pytest.raises(UserError, match=r"tokenizer\.vocab_size: must be more than 262, but is 262"):
        Tokenizer.train(["abc"], 262, "llama3")


@settings(deadline=None)
@given(st.text())
def test_any_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert b"".join(tokenizer.token_bytes(id) for id in ids) == text.encode()


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_text_that_spells_a_special_token_stays_text(tokenizer: Tokenizer, token: str) -> None:
    text = f"say {token} twice: {token}{token}"
    ids = tokenizer.encode(text)
    assert max(ids) < tokenizer.special_id(SPECIAL_TOKENS[0])
    assert [batch.tolist() for batch in tokenizer.encode_batch([text])] == [ids]
    assert tokenizer.decode(ids) == text


def test_a_special_token_stands_for_no_text(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("once")
    assert tokenizer.token_bytes(tokenizer.end_of_text_id) == b""
    assert tokenizer.decode([tokenizer.pad_id, *ids, tokenizer.end_of_text_id]) == "once"


def test_half_a_character_is_decoded_as_a_replacement(tokenizer: Tokenizer) -> None:
    first, *_ = tokenizer.encode("🙂")
    assert tokenizer.decode([first]) == "\ufffd"


def test_a_batch_gives_the_ids_of_each_text(tokenizer: Tokenizer, texts: list[str]) -> None:
    batch = tokenizer.encode_batch(texts[:50] + AWKWARD)
    assert [ids.tolist() for ids in batch] == [tokenizer.encode(text) for text in texts[:50] + AWKWARD]
    assert all(ids.dtype == np.uint32 for ids in batch)
    assert tokenizer.encode_batch([]) == []


def test_an_unknown_special_token_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match=r"has no <\|nonsense\|> token"):
        tokenizer.special_id("<|nonsense|>")


def test_what_is_saved_is_what_is_loaded(tokenizer: Tokenizer, texts: list[str], tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "first")
    loaded = Tokenizer.load(tmp_path / "first")
    loaded.save(tmp_path / "second")
    assert loaded.vocab_size == tokenizer.vocab_size
    for text in texts[:50] + AWKWARD:
        assert loaded.encode(text) == tokenizer.encode(text)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_transformers_gives_the_same_ids(tokenizer: Tokenizer, texts: list[str], tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    plain = [text for text in texts[:100] + AWKWARD if "<|" not in text]
    assert len(plain) > 100
    assert theirs(plain)["input_ids"] == [tokenizer.encode(text) for text in plain]
    assert theirs.decode(theirs.encode(plain[0])) == plain[0]
    assert (theirs.eos_token_id, theirs.pad_token_id) == (tokenizer.end_of_text_id, tokenizer.pad_id)
    assert len(theirs) == tokenizer.vocab_size


def test_transformers_leaves_spelled_special_tokens_text_only_when_told_to(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    tokenizer.save(tmp_path)
    text = "say <|end|>"
    assert tokenizer.special_id("<|end|>") in AutoTokenizer.from_pretrained(tmp_path).encode(text)
    told = AutoTokenizer.from_pretrained(tmp_path, split_special_tokens=True)
    assert told.encode(text) == tokenizer.encode(text)


def test_a_folder_without_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tokenizer\.json: there is no tokenizer here"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("content", ["", "{", '{"model": 3}'])
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match=r"tokenizer\.json: is not a byte-level tokenizer, or is damaged"):
        Tokenizer.load(tmp_path)


def test_a_tokenizer_that_is_not_byte_level_is_refused(tmp_path: Path) -> None:
    tokenizers.Tokenizer(models.WordLevel({"日本": 0}, unk_token="日本")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="is not a byte-level tokenizer"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("token", ["the", "a", "§"])
def test_a_special_token_that_is_a_piece_of_text_is_refused(texts: list[str], token: str) -> None:
    with pytest.raises(UserError, match=rf"{token}' is a piece of ordinary text.* such as <\|{token}\|>"):
        Tokenizer.train(["the cat and the hat of the man"] * 9, 300, "llama3", [token])
