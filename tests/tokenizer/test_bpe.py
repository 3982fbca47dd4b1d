"""Byte-pair encoding: the merges, ids and words that everybody else's implementation finds too."""

import gzip
import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, models, pre_tokenizers, trainers

from hornbook.tokenizer.bpe import (
    SPLIT_PATTERNS,
    BytePairEncoding,
    Merge,
    byte_characters,
    count_words,
    merge_pair,
    train,
    vocabulary,
)

BYTE_OF = {character: byte for byte, character in byte_characters().items()}
END_OF_TEXT = 50256
# Whole characters, halves of them, and what is none.
BYTE_PIECES = [b"the ", " é".encode(), "🙂".encode(), "🙂".encode()[:2], b"\xff", b"\x80", b"\xed\xa0\x80"]

# Both engines know the characters that this Python knows; newer ones they may classify differently.
known_characters = st.characters(codec="utf-8").filter(lambda c: unicodedata.category(c) != "Cn")
awkward_text = st.text(st.one_of(known_characters, st.sampled_from(" \n\r\t'1aéſ中🙂\u00a0\u200b\x1c")))


def spelled(token: str) -> bytes:
    return bytes(BYTE_OF[character] for character in token)


def peer_pre_tokenizer(pattern: str) -> pre_tokenizers.Sequence:
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def peer_merges(texts: list[str], vocab_size: int, pattern: str) -> list[Merge]:
    """What the trainer of the `tokenizers` library learns."""
    engine = tokenizers.Tokenizer(models.BPE())
    engine.pre_tokenizer = peer_pre_tokenizer(pattern)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    engine.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=vocab_size, min_frequency=0, initial_alphabet=alphabet, show_progress=False),
    )
    return [(spelled(left), spelled(right)) for left, right in json.loads(engine.to_str())["model"]["merges"]]


def test_the_textbook_example() -> None:
    # aaabdaaabac: aa occurs four times. Then aa+a (aab counts once less) and ab tie at two, and the lower id wins.
    assert train(["aaabdaaabac"], 259, r".+") == [(b"a", b"a"), (b"a", b"b"), (b"aa", b"ab")]


def test_ties_go_to_the_lowest_ids() -> None:
    assert train(["zy", "xw", "xv"], 259, r".+") == [(b"x", b"v"), (b"x", b"w"), (b"z", b"y")]


def test_training_stops_where_nothing_is_left_to_merge() -> None:
    assert train(["abc"], 1000, r".+") == [(b"a", b"b"), (b"ab", b"c")]
    assert train([], 1000, r".+") == []


def test_no_token_crosses_from_word_to_word() -> None:
    merges = train(["the cat the cat the cat"], 1000, SPLIT_PATTERNS["gpt2"])
    assert b" cat" in vocabulary(merges)
    assert not any(b" " in token[1:] for token in vocabulary(merges))


@pytest.mark.parametrize("pattern", SPLIT_PATTERNS)
def test_merges_are_those_of_the_tokenizers_library(texts: list[str], pattern: str) -> None:
    merges = train(texts, 1500, SPLIT_PATTERNS[pattern])
    assert len(merges) > 1000
    assert merges == peer_merges(texts, 1500, SPLIT_PATTERNS[pattern])


@settings(max_examples=50, deadline=None)
@given(texts=st.lists(st.text("ab ", min_size=1, max_size=150), min_size=1, max_size=6), n=st.integers(1, 60))
def test_merges_are_those_of_the_tokenizers_library_where_all_is_ties_and_overlaps(texts: list[str], n: int) -> None:
    # Here two merges often make the same token, and runs of one letter overlap with themselves.
    pattern = SPLIT_PATTERNS["gpt2"]
    assert train(texts, 256 + n, pattern) == peer_merges(texts, 256 + n, pattern)


def real_texts(folder: Path, name: str) -> list[str]:
    """The stories of a jsonl file, or the books of a folder in parts of a few pages."""
    if name.endswith(".jsonl.gz"):
        with gzip.open(folder / name, "rt", encoding="utf-8") as lines:
            return [json.loads(line)["text"] for line in lines]
    books = [gzip.decompress(path.read_bytes()).decode("utf-8", "replace") for path in sorted(folder.glob(f"{name}/*"))]
    return [book[at : at + 5000] for book in books for at in range(0, len(book), 5000)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tinystories/train.jsonl.gz", "fairytaleqa_stories_train.jsonl.gz", "gutenberg"])
def test_merges_are_those_of_the_tokenizers_library_on_real_text(real_data: Path, name: str) -> None:
    texts = real_texts(real_data / "pretrain", name)
    merges = train(texts, 8192, SPLIT_PATTERNS["llama3"])
    assert len(merges) == 8192 - 256
    assert merges == peer_merges(texts, 8192, SPLIT_PATTERNS["llama3"])


@pytest.mark.parametrize(
    ("pattern", "text", "words"),
    [
        ("gpt2", "It's 2024,  you'll  see", ["It", "'s", " 2024", ",", " ", " you", "'ll", " ", " see"]),
        ("gpt4", "It'S 2024,  you", ["It", "'S", " ", "202", "4", ",", " ", " you"]),
        ("llama3", "a\n\n  b!\n(c)", ["a", "\n\n", " ", " b", "!\n", "(c", ")"]),
        ("llama3", "end  \n", ["end", "  \n"]),
        ("qwen", "It'S 202,  you", ["It", "'S", " ", "2", "0", "2", ",", " ", " you"]),
    ],
)
def test_words_are_split_as_published(pattern: str, text: str, words: list[str]) -> None:
    assert list(count_words([text], SPLIT_PATTERNS[pattern]).elements()) == sorted(words, key=words.index)


@settings(deadline=None)
@given(awkward_text)
@pytest.mark.parametrize("pattern", SPLIT_PATTERNS)
def test_words_are_those_of_the_tokenizers_library(pattern: str, text: str) -> None:
    peer = pre_tokenizers.Split(Regex(SPLIT_PATTERNS[pattern]), behavior="isolated").pre_tokenize_str(text)
    words = count_words([text], SPLIT_PATTERNS[pattern])
    assert sorted(words.elements()) == sorted(word for word, _ in peer)
    assert sum(len(word) * count for word, count in words.items()) == len(text)


def test_merging_a_pair_takes_it_from_left_to_right() -> None:
    assert merge_pair([1, 1, 1, 2, 1, 1], (1, 1), 9) == [9, 1, 2, 9]
    assert merge_pair([1, 2, 1], (1, 2), 9) == [9, 1]
    assert merge_pair([2], (1, 2), 9) == [2]


def test_single_bytes_come_first_then_each_merge_once() -> None:
    tokens = vocabulary([(b"t", b"h"), (b"h", b"e"), (b"th", b"e"), (b"t", b"he")])
    assert len(tokens) == 256 + 3
    assert sorted(tokens[:256]) == [bytes([byte]) for byte in range(256)]
    assert tokens[256:] == [b"th", b"he", b"the"]


def test_the_earliest_learned_merge_comes_first() -> None:
    # Were the longest token taken first, abc would be ab + c.
    coder = BytePairEncoding([(b"b", b"c"), (b"a", b"b")], r".+")
    assert [coder.tokens[id] for id in coder.encode("abc")] == [b"a", b"bc"]


@given(st.text())
def test_any_text_comes_back(merges: list[Merge], text: str) -> None:
    coder = BytePairEncoding(merges, SPLIT_PATTERNS["llama3"])
    assert coder.decode(coder.encode(text)).decode() == text


@given(st.one_of(st.binary(), st.text().map(str.encode), st.lists(st.sampled_from(BYTE_PIECES)).map(b"".join)))
def test_any_bytes_come_back(merges: list[Merge], data: bytes) -> None:
    coder = BytePairEncoding(merges, SPLIT_PATTERNS["llama3"])
    assert coder.decode(coder.encode_bytes(data)) == data


@given(st.text())
def test_the_bytes_of_a_text_have_the_ids_of_the_text(merges: list[Merge], text: str) -> None:
    coder = BytePairEncoding(merges, SPLIT_PATTERNS["llama3"])
    assert coder.encode_bytes(text.encode()) == coder.encode(text)


@pytest.fixture(scope="session")
def merges(texts: list[str]) -> list[Merge]:
    return train(texts, 600, SPLIT_PATTERNS["llama3"])


@settings(deadline=None)
@given(awkward_text)
@pytest.mark.parametrize("pattern", SPLIT_PATTERNS)
def test_ids_are_those_of_the_tokenizers_library(merges: list[Merge], pattern: str, text: str) -> None:
    coder = BytePairEncoding(merges, SPLIT_PATTERNS[pattern])
    characters = byte_characters()

    def spell(token: bytes) -> str:
        return "".join(characters[byte] for byte in token)

    ids = {spell(token): id for id, token in enumerate(coder.tokens)}
    peer = tokenizers.Tokenizer(models.BPE(ids, [(spell(left), spell(right)) for left, right in merges]))
    peer.pre_tokenizer = peer_pre_tokenizer(SPLIT_PATTERNS[pattern])
    assert coder.encode(text) == peer.encode(text).ids


def test_gpt2s_merges_give_gpt2s_ids(real_data: Path) -> None:
    folder = real_data / "tokenizer/gpt2"
    lines = (folder / "vocab.bpe").read_text(encoding="utf-8").splitlines()[1:]
    pairs = [line.split(" ") for line in lines]
    coder = BytePairEncoding([(spelled(left), spelled(right)) for left, right in pairs], SPLIT_PATTERNS["gpt2"])
    published = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    assert coder.tokens == [spelled(token) for token in published if token != "<|endoftext|>"]

    with gzip.open(folder / "tinystories_val_ids_u16.bin.gz") as file:
        ids = np.frombuffer(file.read(), dtype="<u2")
    stories = [part.tolist() for part in np.split(ids, np.flatnonzero(ids == END_OF_TEXT) + 1)[:600]]
    for story in stories:
        assert story.pop() == END_OF_TEXT
        assert coder.encode(coder.decode(story).decode()) == story
    assert len(stories) == 600
