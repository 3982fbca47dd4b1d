"""The engine: the textbook's ids, with and without the accelerator, for awkward and for real text."""

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hornbook.tokenizer import bpe, engine
from hornbook.tokenizer.engine import Engine, disagreements
from hornbook.tokenizer.tokenizer_json import Vocabulary, compose, read_vocabulary, with_special_tokens

AWKWARD = ["", " ", "naïve  café\n\n\tÅngström 12345", "it's <|end|> not", "中文🙂\u200b\x00", "\r\n' 'LL 'ſ x\u0301"]


def learned(texts: list[str], pattern: str, vocab_size: int = 600) -> tuple[bpe.BytePairEncoding, Vocabulary]:
    merges = bpe.train(texts, vocab_size, bpe.SPLIT_PATTERNS[pattern])
    file = compose(merges, bpe.SPLIT_PATTERNS[pattern])
    return bpe.BytePairEncoding(merges, bpe.SPLIT_PATTERNS[pattern]), read_vocabulary(file)


@pytest.fixture(params=["plain", "accelerated"])
def acceleration(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each test once without the accelerator, and once with it where it is installed."""
    if request.param == "plain":
        monkeypatch.setitem(sys.modules, "gigatoken", None)
    else:
        pytest.importorskip("gigatoken")
    return request.param


@pytest.mark.parametrize("pattern", bpe.SPLIT_PATTERNS)
def test_a_batch_gives_the_ids_of_the_textbook(texts: list[str], pattern: str, acceleration: str) -> None:
    textbook, vocabulary = learned(texts, pattern)
    fast = Engine(vocabulary)
    assert fast.is_accelerated == (acceleration == "accelerated")
    batch = [*texts[:100], *AWKWARD]
    assert [ids.tolist() for ids in fast.encode_batch(batch)] == [textbook.encode(text) for text in batch]


@settings(max_examples=200)
@given(training=st.lists(st.text("ab ", max_size=60), max_size=6), text=st.text("ab ", max_size=80))
def test_runs_and_overlaps_are_merged_as_in_the_textbook(training: list[str], text: str) -> None:
    # tiktoken looks only at what a merge makes. For merges that were learned that is enough.
    textbook, vocabulary = learned(training, "gpt2", 300)
    assert Engine(vocabulary).encode(text) == textbook.encode(text)
    assert not disagreements(vocabulary)


def test_merges_that_do_not_lead_to_their_own_tokens_are_found() -> None:
    # abc would need a + bc, but ab is merged first.
    merges = [(b"a", b"b"), (b"b", b"c"), (b"a", b"bc")]
    vocabulary = read_vocabulary(compose(merges, bpe.SPLIT_PATTERNS["gpt2"]))
    assert disagreements(vocabulary) == [b"abc"]
    assert Engine(vocabulary).encode("abc") != bpe.BytePairEncoding(merges, vocabulary.pattern).encode("abc")


@pytest.mark.parametrize("unit", [" ", "\t\n", "a", "^", "🙂"])
def test_endless_runs_are_encoded(texts: list[str], unit: str, acceleration: str) -> None:
    _, vocabulary = learned(texts, "llama3")
    text = "so" + unit * 1_500_000 + "end"
    (ids,) = Engine(vocabulary).encode_batch([text])
    assert ids.tolist() == Engine(vocabulary).encode(text)
    tokens = {id: token for token, id in vocabulary.ids.items()}
    assert b"".join(tokens[id] for id in ids.tolist()).decode() == text


def test_a_long_run_of_blanks_does_not_change_what_stands_around_it(texts: list[str]) -> None:
    textbook, vocabulary = learned(texts, "llama3")
    text = f"{texts[0]}\n{' ' * 70_000}the lamp's"
    assert Engine(vocabulary).encode(text) == textbook.encode(text)


def test_stretches_of_blanks_just_short_enough_are_encoded() -> None:
    """Looked at from each of its blanks anew, this text takes half a minute instead of milliseconds."""
    vocabulary = read_vocabulary(compose([], bpe.SPLIT_PATTERNS["llama3"]))
    text = (" " * 65_000 + "x") * 5
    assert Engine(vocabulary).encode(text) == [vocabulary.ids[bytes([byte])] for byte in text.encode()]


def test_special_tokens_are_made_only_when_asked_for(texts: list[str]) -> None:
    file = with_special_tokens(compose([], bpe.SPLIT_PATTERNS["llama3"]), ["<|a|>", "<|a|>b"])
    fast = Engine(read_vocabulary(file))
    assert fast.encode("x<|a|>b<|a|>", special_tokens=True) == [*fast.encode("x"), 257, 256]
    assert max(fast.encode("x<|a|>b<|a|>")) < 256


def test_added_tokens_that_are_not_special_are_always_made(acceleration: str) -> None:
    # As Qwen's <tool_call> is in its published file.
    file = with_special_tokens(compose([], bpe.SPLIT_PATTERNS["llama3"]), ["<tool_call>", "<|end|>"])
    file["added_tokens"][0]["special"] = False
    fast = Engine(read_vocabulary(file))
    text = "x<tool_call>y<|end|>"
    assert fast.encode(text)[:3] == [*fast.encode("x"), 256, *fast.encode("y")]
    assert [ids.tolist() for ids in fast.encode_batch(["a", text])] == [fast.encode("a"), fast.encode(text)]


def test_text_is_composed_where_the_file_says_so(acceleration: str) -> None:
    file = compose([], bpe.SPLIT_PATTERNS["qwen"]) | {"normalizer": {"type": "NFC"}}
    fast = Engine(read_vocabulary(file))
    assert fast.encode("e\u0301") == fast.encode("é")
    assert [ids.tolist() for ids in fast.encode_batch(["e\u0301"])] == [fast.encode("é")]


def test_the_accelerator_is_renewed_and_goes_on(texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gigatoken")
    _, vocabulary = learned(texts, "llama3")
    fast = Engine(vocabulary)
    first, expected = fast._accelerator, [fast.encode(text) for text in texts[:20]]
    monkeypatch.setattr(engine, "_BYTES_PER_ACCELERATOR", 10)
    assert [ids.tolist() for ids in fast.encode_batch(texts[:20])] == expected
    assert fast._accelerator is not first
