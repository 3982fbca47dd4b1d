"""Published tokenizers: the ids that the `tokenizers` library gives with the same file, and nothing guessed at."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

from hornbook.errors import UserError
from hornbook.tokenizer import bpe
from hornbook.tokenizer.chat import render
from hornbook.tokenizer.published import read_published, vocabularies_at_hand
from hornbook.tokenizer.tokenizer import SPECIAL_TOKENS, Tokenizer

AWKWARD = ["", " ", "naïve  café\n\n\tÅngström 12345", "it's 中文🙂\u200b\x00", "\r\n' 'LL", "e\u0301 <think>x</think>"]
END = "<|endoftext|>"


def trained(texts: list[str], pre_tokenizer: Any, normalizer: Any = None, **model: Any) -> tokenizers.Tokenizer:
    """A byte-level tokenizer that the `tokenizers` library has learned, without special tokens."""
    peer = tokenizers.Tokenizer(models.BPE(**model))
    peer.pre_tokenizer = pre_tokenizer
    peer.decoder = decoders.ByteLevel()
    if normalizer is not None:
        peer.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    peer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False))
    return peer


def split_then_bytes(pattern: str) -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated", invert=False)
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def like_gpt2(texts: list[str]) -> tokenizers.Tokenizer:
    peer = trained(texts, pre_tokenizers.ByteLevel(add_prefix_space=False))
    peer.add_special_tokens([AddedToken(END, special=True, normalized=True)])
    peer.post_processor = processors.ByteLevel(trim_offsets=False)
    return peer


def like_llama3(texts: list[str]) -> tokenizers.Tokenizer:
    peer = trained(texts, split_then_bytes(bpe.SPLIT_PATTERNS["llama3"]), ignore_merges=True)
    peer.add_special_tokens([AddedToken("<|begin_of_text|>"), AddedToken("<|end_of_text|>"), AddedToken("<|eot_id|>")])
    peer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 700)]
    )
    return peer


def like_qwen(texts: list[str]) -> tokenizers.Tokenizer:
    peer = trained(texts, split_then_bytes(bpe.SPLIT_PATTERNS["qwen"]), normalizers.NFC())
    peer.add_special_tokens([AddedToken(END), AddedToken("<|im_start|>"), AddedToken("<|im_end|>")])
    peer.add_tokens([AddedToken("<think>", normalized=False), AddedToken("</think>", normalized=False)])
    return peer


FAMILIES = {"gpt2": like_gpt2, "llama3": like_llama3, "qwen": like_qwen}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def peer(family: str, texts: list[str]) -> tokenizers.Tokenizer:
    return FAMILIES[family](texts[:200])


@pytest.fixture
def folder(peer: tokenizers.Tokenizer, tmp_path: Path) -> Path:
    peer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_ids_are_kept(peer: tokenizers.Tokenizer, folder: Path, texts: list[str]) -> None:
    ours = Tokenizer.from_published(folder)
    for text in texts[200:300] + AWKWARD:
        expected = peer.encode(text, add_special_tokens=False).ids
        assert ours.encode(text) == expected
        assert ours.encode_batch([text])[0].tolist() == expected


def test_special_tokens_are_kept_and_missing_ones_come_after_them(
    peer: tokenizers.Tokenizer, folder: Path, family: str
) -> None:
    ours = Tokenizer.from_published(folder, special_tokens=["<|tool|>"])
    theirs = {token.content: id for id, token in peer.get_added_tokens_decoder().items()}
    for name, id in theirs.items():
        assert ours.encode(name, special_tokens=True) == [id]
    end = "<|end_of_text|>" if family == "llama3" else END
    assert ours.end_of_text_id == theirs[end]
    n_theirs = peer.get_vocab_size()
    added = [ours.special_id(name) for name in (*SPECIAL_TOKENS[1:], "<|tool|>")]
    assert added == list(range(n_theirs, n_theirs + 6))
    assert ours.vocab_size == n_theirs + 6
    assert (END in ours.special_ids) == (family != "llama3")


def test_spelled_special_tokens_stay_text(folder: Path, family: str) -> None:
    ours = Tokenizer.from_published(folder)
    text = f"say {END} <|eot_id|><|im_end|>"
    ids = ours.encode(text)
    assert not set(ids) & set(ours.special_ids.values())
    assert ours.decode(ids) == text


def test_saved_again_transformers_reads_the_same(folder: Path, tmp_path: Path, texts: list[str], family: str) -> None:
    ours = Tokenizer.from_published(folder)
    ours.save(tmp_path / "saved")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert len(theirs) == ours.vocab_size
    assert (theirs.eos_token_id, theirs.pad_token_id) == (ours.end_of_text_id, ours.pad_id)
    for text in texts[200:230] + AWKWARD:
        assert theirs(text)["input_ids"] == ours.encode(text)
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who has it?"},
        {"role": "assistant", "content": "Mira."},
        {"role": "user", "content": "Where is she?"},
    ]
    rendered = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert rendered == render(messages, ours, add_generation_prompt=True)[0]
    again = Tokenizer.load(tmp_path / "saved")
    assert again.encode(texts[0]) == ours.encode(texts[0])
    assert again.special_ids == ours.special_ids


def test_gpt2s_pair_of_files_is_read_by_both_their_names(texts: list[str], tmp_path: Path) -> None:
    peer = like_gpt2(texts[:200])
    merges = [" ".join(pair) for pair in json.loads(peer.to_str())["model"]["merges"]]
    for merges_name, ids_name in (("vocab.bpe", "encoder.json"), ("merges.txt", "vocab.json")):
        folder = tmp_path / merges_name
        folder.mkdir()
        (folder / merges_name).write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
        (folder / ids_name).write_text(json.dumps(peer.get_vocab()), encoding="utf-8")
        ours = Tokenizer.from_published(folder)
        assert ours.end_of_text_id == peer.token_to_id(END)
        for text in texts[200:250] + AWKWARD:
            assert ours.encode(text) == peer.encode(text).ids


def test_gpt2s_real_files_give_gpt2s_tokenizer(real_data: Path) -> None:
    ours = Tokenizer.from_published(real_data / "tokenizer/gpt2")
    assert (ours.end_of_text_id, ours.vocab_size) == (50256, 50257 + 5)
    assert ours.encode("Hello world") == [15496, 995]
    assert ours.encode(f"a{END}", special_tokens=True) == [64, 50256]


def _set(*path: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(file: dict[str, Any]) -> None:
        inner: Any = file
        for step in path[:-1]:
            inner = inner[step]
        inner[path[-1]] = value

    return change


TOOL = {"id": 700, "content": "<tool>", "special": False, "lstrip": True, "rstrip": False, "single_word": False}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_set("model", "type", value="WordPiece"), "it is of the kind WordPiece"),
        (_set("model", "byte_fallback", value=True), "it has byte_fallback set to True"),
        (_set("model", "unk_token", value="<unk>"), "it has unk_token set to '<unk>'"),
        (_set("normalizer", value={"type": "Lowercase"}), "it changes texts first, by Lowercase"),
        (_set("pre_tokenizer", value={"type": "Metaspace"}), r"it cuts words by \['Metaspace'\]"),
        (_set("pre_tokenizer", "pretokenizers", 0, "behavior", value="Removed"), "one regular expression of a word"),
        (_set("pre_tokenizer", "pretokenizers", 1, "add_prefix_space", value=True), "puts a space before texts"),
        (_set("pre_tokenizer", value=None), "it lacks or has otherwise"),
        (_set("model", "vocab", "中", value=703), "is not byte-level: its token '中'"),
        (_set("model", "vocab", "zqzq", value=703), "has 1 tokens that no merge makes, such as b'zqzq'"),
        (_set("model", "vocab", "a", value=None), "has 703 tokens whose ids are not those from 0 on"),
        (
            _set("pre_tokenizer", "pretokenizers", 0, "pattern", value={"Regex": r"\p{L}+|\p{N}+"}),
            "leaves out characters",
        ),
        (_set("pre_tokenizer", "pretokenizers", 0, "pattern", value={"Regex": "(unclosed"}), "no regular expression"),
        (_set("added_tokens", 0, value=TOOL), "takes blanks along with '<tool>'"),
        (_set("added_tokens", 2, "id", value=900), "has 703 tokens whose ids are not those from 0 on"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_sentence(
    texts: list[str], tmp_path: Path, change: Callable, problem: str
) -> None:
    like_llama3(texts[:200]).save(str(tmp_path / "tokenizer.json"))
    file = json.loads((tmp_path / "tokenizer.json").read_text())
    change(file)
    (tmp_path / "tokenizer.json").write_text(json.dumps(file))
    with pytest.raises(UserError, match=problem) as refused:
        Tokenizer.from_published(tmp_path)
    assert str(tmp_path / "tokenizer.json") in str(refused.value)
    assert "\n" not in str(refused.value)


def test_ids_in_another_order_than_the_merges_are_refused(tmp_path: Path, texts: list[str]) -> None:
    peer = json.loads(like_gpt2(texts[:200]).to_str())
    vocab = peer["model"]["vocab"]
    names = {id: name for name, id in vocab.items()}
    vocab[names[400]], vocab[names[500]] = 500, 400
    (tmp_path / "tokenizer.json").write_text(json.dumps(peer))
    with pytest.raises(UserError, match="ids in another order than its merges"):
        Tokenizer.from_published(tmp_path)


def test_merges_that_do_not_lead_to_their_tokens_are_refused(tmp_path: Path) -> None:
    Tokenizer.from_merges([(b"a", b"b"), (b"b", b"c"), (b"a", b"bc")], bpe.SPLIT_PATTERNS["gpt2"]).save(tmp_path)
    with pytest.raises(UserError, match="its merges never make 1 of its tokens, such as b'abc'"):
        Tokenizer.from_published(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": 3}'])
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "mine.json").write_text(content)
    with pytest.raises(UserError, match=r"mine\.json: (is no tokenizer|cannot be used here)"):
        Tokenizer.from_published(tmp_path / "mine.json")


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no tokenizer here\. Name a tokenizer\.json"):
        read_published(tmp_path)


def test_vocabularies_at_hand_are_found_where_they_lie(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("HORNBOOK_DATA", str(tmp_path))
    assert list(vocabularies_at_hand()) == []
    monkeypatch.setenv("HORNBOOK_DATA", str(real_data))
    assert [(name, vocabulary.size) for name, vocabulary in vocabularies_at_hand()] == [("GPT-2", 50257)]


def test_what_tiktoken_keeps_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("HORNBOOK_DATA", raising=False)
    # tiktoken's own name for what it fetches for GPT-4.
    lines = [f"{base64.b64encode(bytes([byte])).decode()} {byte}" for byte in range(256)]
    (tmp_path / "9b5ad71b2ce5302211f9c61530b329a4922fc6a4").write_text("\n".join(lines))
    ((name, vocabulary),) = vocabularies_at_hand()
    assert (name, vocabulary.size) == ("GPT-4", 256)
