"""The compression report counts what it says, by source and language, and beside other vocabularies."""

from hornbook.tokenizer import bpe
from hornbook.tokenizer.report import Document, compression_report
from hornbook.tokenizer.tokenizer import Tokenizer
from hornbook.tokenizer.tokenizer_json import compose, read_vocabulary

DOCUMENTS = [Document("ab ab", "books", "en"), Document("é", "web", "fr"), Document("the cat", "web", "en")]


def test_compression_is_reported(tokenizer: Tokenizer) -> None:
    encoded = [tokenizer.encode(document.text) for document in DOCUMENTS]
    n_tokens = sum(map(len, encoded))
    report = compression_report(tokenizer, DOCUMENTS)
    assert (report["documents"], report["bytes"], report["words"], report["tokens"]) == (3, 14, 5, n_tokens)
    assert report["bytes_per_token"] == 14 / n_tokens
    assert report["tokens_per_word"] == n_tokens / 5
    assert report["used_fraction_of_vocabulary"] == len({id for ids in encoded for id in ids}) / 700
    assert report["compared_with"] == {}


def test_groups_are_told_apart_the_largest_first(tokenizer: Tokenizer) -> None:
    report = compression_report(tokenizer, DOCUMENTS)
    assert list(report["by_source"]) == ["web", "books"]
    assert report["by_source"]["books"] == {
        "documents": 1,
        "bytes": 5,
        "bytes_per_token": {"own": 5 / len(tokenizer.encode("ab ab"))},
    }
    assert {name: group["bytes"] for name, group in report["by_language"].items()} == {"en": 12, "fr": 2}


def test_other_vocabularies_stand_beside_it(tokenizer: Tokenizer) -> None:
    # A vocabulary of bytes alone has one byte for each token.
    others = {"bytes": read_vocabulary(compose([], bpe.SPLIT_PATTERNS["gpt2"]))}
    report = compression_report(tokenizer, DOCUMENTS, others.items())
    assert report["compared_with"] == {"bytes": {"vocab_size": 256, "bytes_per_token": 1.0}}
    assert all(group["bytes_per_token"]["bytes"] == 1 for group in report["by_source"].values())


def test_the_longest_tokens_are_named(tokenizer: Tokenizer) -> None:
    lengths = [len(tokenizer.token_bytes(id)) for id in range(tokenizer.vocab_size)]
    longest = compression_report(tokenizer, DOCUMENTS)["longest_tokens"]
    assert [len(token.encode()) for token in longest] == sorted(lengths, reverse=True)[:20]


def test_no_documents_give_a_report_too(tokenizer: Tokenizer) -> None:
    report = compression_report(tokenizer, [])
    assert (report["documents"], report["bytes_per_token"], report["by_source"]) == (0, 0, {})


def test_training_on_a_text_compresses_it(tokenizer: Tokenizer, texts: list[str]) -> None:
    documents = [Document(text, "storyworld", "en") for text in texts]
    assert compression_report(tokenizer, documents)["bytes_per_token"] > 2.5
