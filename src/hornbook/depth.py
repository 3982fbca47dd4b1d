"""The depth dial: one number, `model.depth`, from which a whole run follows.

    [model]
    depth = 12

gives the model its width, heads and context, and its training the tokens, the batch and the learning rates that
suit its size. What the recipe sets by hand stays as it is, and the rest follows from that. One dial is nanochat's
idea; the rules are published ones:

| setting | rule | source |
|---|---|---|
| n_layers | depth | |
| d_model | 64 depth | as GPT-2 small; the ratio hardly matters within a factor of 40 (Kaplan et al., section 3.1) |
| n_heads | d_model / 64 | heads as wide as GPT-2's and Llama 3.2 1B's |
| max_seq_len | d_model, up to the next power of two | attention's table then costs a third of the rest at most |
| tokens | 20 for each parameter, embedding included | compute-optimal: Hoffmann et al., arXiv 2203.15556 |
| global_batch_tokens | 0.58 tokens^0.571, as a power of two of rows | Step Law: Li et al., arXiv 2503.04715 |
| lr | 1.79 N^-0.713 tokens^0.307, N without the embedding | the same law, for AdamW |
| muon_lr | 0.02 | Muon's steps are as long at every size, and this held at the smallest (docs/LOG.md) |

Kaplan et al. is arXiv 2001.08361. Step Law was fitted to 3,700 trainings of models far larger than a laptop's, where
it is a guess: it gives 0.011 at depth 4, 4 million parameters, where recipes/tinystories.toml learns well at 0.01.
With Muon, AdamW's rate is for embeddings, norms and the head alone, and the law was not fitted to that.
"""

import math
from collections.abc import Mapping
from typing import Any

HEAD_DIM = 64
WIDTH_PER_LAYER = 64
TOKENS_PER_PARAMETER = 20
MUON_LR = 0.02

Settings = dict[str, Any]


def with_depth(table: Mapping[str, Any], default_vocab_size: int) -> Settings:
    """The recipe's table with everything set that `model.depth` gives and the table does not set itself.

    A table without a depth, or whose depth is no number of layers, comes back as it was.
    """
    given = {name: table.get(name, {}) for name in ("model", "pretrain", "tokenizer")}
    if not all(isinstance(section, Mapping) for section in given.values()):
        return dict(table)
    if _number(given["model"], "depth", None) is None:
        return dict(table)
    vocab_size = _number(given["tokenizer"], "vocab_size", default_vocab_size)
    dialled = settings_of(given["model"], given["pretrain"], vocab_size)
    return dict(table) | {name: settings | given[name] for name, settings in dialled.items()}


def settings_of(model: Mapping[str, Any], pretrain: Mapping[str, Any], vocab_size: int) -> dict[str, Settings]:
    """What the dial at `model["depth"]` gives, by section; both hold what is set by hand, and may hold no more."""
    depth = model["depth"]
    n_layers = _number(model, "n_layers", depth)
    d_model = _number(model, "d_model", WIDTH_PER_LAYER * depth)
    max_seq_len = _number(model, "max_seq_len", 1 << (d_model - 1).bit_length())
    # A block's matrices have 4 d_model² weights in attention and 8 in the feed-forward (Kaplan et al., table 1).
    in_blocks = 12 * n_layers * d_model**2
    in_embeddings = vocab_size * d_model * (1 if model.get("tie_embeddings", True) else 2)
    wanted_tokens = TOKENS_PER_PARAMETER * (in_blocks + in_embeddings)

    row_tokens = _number(pretrain, "row_tokens", max_seq_len)
    wanted_rows = 0.58 * wanted_tokens**0.571 / row_tokens
    batch_tokens = _number(pretrain, "global_batch_tokens", row_tokens * 2 ** max(0, round(math.log2(wanted_rows))))
    tokens = _number(pretrain, "tokens", math.ceil(wanted_tokens / batch_tokens) * batch_tokens)
    lr = 1.79 * in_blocks**-0.713 * tokens**0.307
    return {
        "model": {
            "n_layers": n_layers,
            "d_model": d_model,
            "n_heads": max(1, d_model // HEAD_DIM),
            "max_seq_len": max_seq_len,
        },
        "pretrain": {
            "tokens": tokens,
            "global_batch_tokens": batch_tokens,
            "lr": float(f"{lr:.2g}"),
            "muon_lr": MUON_LR,
        },
    }


def _number(section: Mapping[str, Any], name: str, default: Any) -> Any:
    """A whole number above 0 that was set by hand; what is set wrongly is reported elsewhere."""
    value = section.get(name)
    return value if type(value) is int and value > 0 else default
