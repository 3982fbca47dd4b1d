"""Bits per byte, against sums written out by hand."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hornbook.batching.shards import DocumentTokens, MemoryDocuments
from hornbook.errors import UserError
from hornbook.evaluation.loss import bits_per_byte
from hornbook.model.transformer import Transformer
from hornbook.tokenizer.tokenizer import Tokenizer

TEXTS = (
    "Mira the baker had a blue kite.",
    "At the barn, Tom found it.",
    "Who had the kite? Mira. " * 6,
    "Yes.",
)
ROW_TOKENS = 100


def _documents(tokenizer: Tokenizer) -> MemoryDocuments:
    encoded = [(text, [*tokenizer.encode(text), tokenizer.end_of_text_id]) for text in TEXTS]
    return MemoryDocuments(
        DocumentTokens(ids, len(text.encode()) - len(tokenizer.token_bytes(ids[0]))) for text, ids in encoded
    )


def _measure(model: Transformer, tokenizer: Tokenizer, **options) -> dict[str, float]:
    settings = {"row_tokens": ROW_TOKENS, "rows_per_batch": 2, "dtype": torch.float32} | options
    return bits_per_byte(model, _documents(tokenizer), pad_id=tokenizer.pad_id, **settings)


def test_it_is_the_sum_over_documents_each_read_alone(
    make_model: Callable[..., Transformer], tokenizer: Tokenizer
) -> None:
    model, documents = make_model(), _documents(tokenizer)
    nats = 0.0
    for number in range(len(documents)):
        ids = torch.tensor(documents.tokens(number).astype(np.int64))
        logits = model.logits(model(ids[None]))[0]
        nats += F.cross_entropy(logits[:-1], ids[1:], reduction="sum").item()

    measured = _measure(model, tokenizer)

    assert measured["bits_per_byte"] == pytest.approx(nats / math.log(2) / documents.n_bytes.sum(), rel=1e-5)
    assert measured["tokens"] == documents.lengths.sum() - len(documents)
    assert measured["bytes"] == documents.n_bytes.sum()


def test_a_model_that_knows_nothing_needs_the_vocabulary_for_each_token(
    make_model: Callable[..., Transformer], tokenizer: Tokenizer
) -> None:
    measured = _measure(make_model(std=0.0), tokenizer)

    assert measured["perplexity"] == pytest.approx(tokenizer.vocab_size, rel=1e-5)
    expected_bits = measured["tokens"] * math.log2(tokenizer.vocab_size)
    assert measured["bits_per_byte"] == pytest.approx(expected_bits / measured["bytes"], rel=1e-5)


def test_how_the_rows_are_batched_changes_nothing(make_model: Callable[..., Transformer], tokenizer: Tokenizer) -> None:
    model = make_model()
    one, many = (_measure(model, tokenizer, rows_per_batch=rows) for rows in (1, 16))

    assert one == pytest.approx(many, rel=1e-6)


def test_bfloat16_gives_nearly_the_same(make_model: Callable[..., Transformer], tokenizer: Tokenizer) -> None:
    model = make_model(std=0.1)
    exact, rounded = (
        _measure(model, tokenizer, dtype=dtype)["bits_per_byte"] for dtype in (torch.float32, torch.bfloat16)
    )

    assert rounded == pytest.approx(exact, rel=0.02)
    assert rounded != exact


def test_what_is_not_to_be_learned_does_not_count(make_model: Callable[..., Transformer], tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(TEXTS[0])
    answer = [False] * (len(ids) - 2) + [True] * 2
    documents = MemoryDocuments([DocumentTokens(ids, 5, answer)])
    measured = bits_per_byte(make_model(), documents, ROW_TOKENS, 2, pad_id=0, dtype=torch.float32)

    assert (measured["tokens"], measured["bytes"]) == (2, 5)


def test_only_some_rows_are_read_where_that_is_asked_for(
    make_model: Callable[..., Transformer], tokenizer: Tokenizer
) -> None:
    model = make_model()

    assert _measure(model, tokenizer, max_rows=1)["tokens"] < _measure(model, tokenizer)["tokens"]


def test_a_loss_beyond_all_bounds_is_still_a_number(
    make_model: Callable[..., Transformer], tokenizer: Tokenizer
) -> None:
    measured = _measure(make_model(std=400.0), tokenizer)

    assert measured["loss_nats"] > 700
    assert measured["perplexity"] == math.exp(700)


def test_no_gradients_are_kept(make_model: Callable[..., Transformer], tokenizer: Tokenizer) -> None:
    model = make_model()
    _measure(model, tokenizer)

    assert all(parameter.grad is None for parameter in model.parameters())


def test_documents_without_tokens_are_the_users_error(
    make_model: Callable[..., Transformer], tokenizer: Tokenizer
) -> None:
    with pytest.raises(UserError, match="validation data has no tokens"):
        bits_per_byte(make_model(), MemoryDocuments([]), ROW_TOKENS, 2, pad_id=0, dtype=torch.float32)
