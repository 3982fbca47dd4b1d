"""How well a model predicts documents: bits per byte, and with it the loss per token and the perplexity.

A loss per token depends on the tokenizer, since whoever cuts text into fewer tokens has a harder time with
each. Bits per byte does not: all the bits that the model needs for a text, over the bytes of that text.

Every token of every document counts exactly once, but for the first. It follows nothing, so the model, which
has no token for the beginning of a text, cannot predict it; its bytes are left out of the count of bytes as
well. The closing <|endoftext|> is predicted and counts as bits, though it has no bytes: a model has to know
where a text ends. Where a document is longer than a row it is cut, and a piece sees nothing of the one before.
"""

import math

import torch

from hornbook.batching.loader import evaluation_batches
from hornbook.batching.shards import Documents
from hornbook.model.transformer import Transformer
from hornbook.objectives.next_token import NextToken

_LARGEST_EXPONENT = 700.0


@torch.no_grad()
def bits_per_byte(
    model: Transformer,
    documents: Documents,
    row_tokens: int,
    rows_per_batch: int,
    *,
    pad_id: int,
    dtype: torch.dtype,
    max_rows: int | None = None,
) -> dict[str, float]:
    """The loss of `model`, where it is, on documents packed in their order into rows of `row_tokens`.

    dtype is the type to compute in, under autocast; the sums are in float64. Returns bits_per_byte, loss_nats
    (per token), perplexity (e to the loss, at most e^700, so that it stays a number), and what they were taken
    over: tokens and bytes. `max_rows` bounds the rows that are read; they are taken from everywhere. Raises UserError
    where there are no tokens.
    """
    device = next(model.parameters()).device
    objective = NextToken()
    total_nats, n_tokens, n_bytes = 0.0, 0, 0
    for batch, batch_bytes in evaluation_batches(documents, row_tokens, rows_per_batch, max_rows, pad_id=pad_id):
        batch = batch.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss_sum, _ = objective.loss_sum(model, batch)
        total_nats += loss_sum.item()
        n_tokens += int(objective.count(batch))
        n_bytes += batch_bytes
    loss_nats = total_nats / n_tokens
    return {
        "bits_per_byte": total_nats / math.log(2) / n_bytes,
        "loss_nats": loss_nats,
        "perplexity": math.exp(min(loss_nats, _LARGEST_EXPONENT)),
        "tokens": float(n_tokens),
        "bytes": float(n_bytes),
    }
