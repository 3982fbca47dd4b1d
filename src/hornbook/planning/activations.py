"""What a layer keeps of a token for its backward pass, counted tensor by tensor as the model's code has them.

This module imports no torch.
"""

from hornbook.model.config import ModelConfig
from hornbook.planning.hardware import Kind

LONGEST_PLAIN_ROW_TOKENS = 512
"""Up to here attention on a CPU in bfloat16 keeps its table of weights (hornbook.model.attention)."""

_FLOAT32_BYTES = 4


def layer_activation_bytes_per_token(config: ModelConfig, row_tokens: int, value_bytes: int, kind: Kind) -> int:
    """What one layer keeps of a token for its backward pass, in rows of several documents.

    value_bytes: of the type computed in. The sum over layers and the sum along a norm stay in float32.
    """
    query, key = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    # Autocast casts a projection's input for each projection anew.
    casts_for_projections = 3 if value_bytes < _FLOAT32_BYTES else 1
    into_feed_forward = 2 if config.activation == "swiglu" else 1
    casts_for_feed_forward = into_feed_forward if value_bytes < _FLOAT32_BYTES else 1
    inputs = value_bytes * ((casts_for_projections + casts_for_feed_forward) * config.d_model + query)
    feed_forward = value_bytes * config.d_ff * (3 if config.activation == "swiglu" else 2)

    if _is_plain(row_tokens, value_bytes, kind):
        # Queries, keys and values of every head; the weights in float32 and cast; the mask.
        attention = 3 * query * value_bytes + config.n_heads * row_tokens * (4 + value_bytes) + row_tokens
    else:
        # Queries, result, keys and values; a sum for each head; the mask in the type computed in.
        attention = (2 * query + 2 * key) * value_bytes + _FLOAT32_BYTES * config.n_heads + row_tokens * value_bytes
    head_norms = 2 * _FLOAT32_BYTES * (query + key) if config.qk_norm else 0
    return 2 * norm_bytes(config) + inputs + feed_forward + attention + head_norms


def product_bytes_per_token(config: ModelConfig, row_tokens: int, value_bytes: int, kind: Kind) -> int:
    """What one layer keeps of a token where only the results of products with weights, and of the fused attention, are
    kept (hornbook.parallel.recompute)."""
    query, key = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    wide = 2 if config.activation == "swiglu" else 1
    projections = query + 2 * key + config.d_model + wide * config.d_ff + config.d_model
    attention = 0 if _is_plain(row_tokens, value_bytes, kind) else query * value_bytes + _FLOAT32_BYTES * config.n_heads
    return projections * value_bytes + attention


def _is_plain(row_tokens: int, value_bytes: int, kind: Kind) -> bool:
    """Whether attention is computed by the plain formula (hornbook.model.attention)."""
    return kind == "cpu" and value_bytes == 2 and row_tokens <= LONGEST_PLAIN_ROW_TOKENS


def norm_bytes(config: ModelConfig) -> int:
    """What a norm keeps of a token: RMSNorm, written out, its input and that scaled; LayerNorm is one kernel."""
    return _FLOAT32_BYTES * config.d_model * (2 if config.norm == "rmsnorm" else 1)
