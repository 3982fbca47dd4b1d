"""An estimate of the memory that training needs at its peak, by part, on one device.

Weights, gradients and the optimizer's state are exact. So is, nearly, what the layers keep for the backward
pass: it is counted tensor by tensor, as the model's code has them. What the estimate leaves out is the
working space of kernels, the fragments of an allocator and the program itself (some hundred MB), and it adds
up parts that are not all at their largest at the same moment.

This module imports no torch.
"""

from dataclasses import dataclass

from hornbook.model.config import ModelConfig
from hornbook.planning.flops import matrix_parameters, parameters_by_part
from hornbook.planning.hardware import Kind
from hornbook.recipe_training import TrainingSection

LONGEST_PLAIN_ROW_TOKENS = 512
"""Up to here attention on a CPU in bfloat16 keeps its table of weights (hornbook.model.attention)."""

_SCORES_AT_ONCE = {"cpu": 2**22, "accelerator": 2**27}  # as in hornbook.objectives.objective
_MIN_CHUNK_TOKENS = 256
# Of each score: its log-probability, the exponential of that, and the gradient, all float32.
_BYTES_PER_SCORE = 12
_FLOAT32_BYTES = 4
_USABLE_FRACTION = 0.9


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak, by part."""

    weights: int
    gradients: int
    optimizer: int
    cast_weights: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.cast_weights + self.activations + self.logits


def training_memory(config: ModelConfig, section: TrainingSection, n_rows: int, kind: Kind) -> Memory:
    """The estimate for `n_rows` rows computed at once.

    precision "auto" is taken as bfloat16, which it is on most machines of the last years.
    """
    n_parameters = sum(parameters_by_part(config).values())
    n_matrices = matrix_parameters(config)
    by_muon = n_matrices if section.optimizer == "muon" else 0
    value_bytes = 4 if section.precision == "float32" else 2
    row_tokens = section.row_tokens or config.max_seq_len
    n_tokens = n_rows * row_tokens

    per_layer = layer_activation_bytes_per_token(config, row_tokens, value_bytes, kind)
    layer_inputs = config.n_layers * _FLOAT32_BYTES * config.d_model
    if section.recompute == "full":
        kept_bytes = layer_inputs + per_layer
    elif section.recompute == "selective":
        # While a layer is computed again, all of it is there, the kept results among them.
        products = product_bytes_per_token(config, row_tokens, value_bytes, kind)
        kept_bytes = layer_inputs + (config.n_layers - 1) * products + per_layer
    else:
        kept_bytes = config.n_layers * per_layer
    kept_bytes += _norm_bytes(config) + 2 * _FLOAT32_BYTES * config.d_model  # final norm; its output and gradient
    chunk_tokens = max(_MIN_CHUNK_TOKENS, _SCORES_AT_ONCE[kind] // config.vocab_size)
    head_weights = config.vocab_size * config.d_model
    return Memory(
        weights=_FLOAT32_BYTES * n_parameters,
        gradients=_FLOAT32_BYTES * n_parameters,
        # Muon has one number of state for each weight, AdamW two.
        optimizer=_FLOAT32_BYTES * (by_muon + 2 * (n_parameters - by_muon)),
        cast_weights=0 if value_bytes == _FLOAT32_BYTES else value_bytes * (n_matrices + head_weights),
        activations=n_tokens * kept_bytes,
        # The gradient of the head's weights is taken along with the scores, and kept until it is added.
        logits=_FLOAT32_BYTES * head_weights + _BYTES_PER_SCORE * config.vocab_size * min(chunk_tokens, n_tokens),
    )


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
    return 2 * _norm_bytes(config) + inputs + feed_forward + attention + head_norms


def product_bytes_per_token(config: ModelConfig, row_tokens: int, value_bytes: int, kind: Kind) -> int:
    """What one layer keeps of a token where only the results of products with weights, and of the fused attention, are
    kept (hornbook.parallel.recompute)."""
    query, key = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    wide = 2 if config.activation == "swiglu" else 1
    projections = query + 2 * key + config.d_model + wide * config.d_ff + config.d_model
    attention = 0 if _is_plain(row_tokens, value_bytes, kind) else query * value_bytes + _FLOAT32_BYTES * config.n_heads
    return projections * value_bytes + attention


def most_rows_at_once(config: ModelConfig, section: TrainingSection) -> int:
    """The rows that training tries to compute at once: the recipe's micro-batch, or all of a step's rows."""
    rows = section.global_batch_tokens // (section.row_tokens or config.max_seq_len)
    return min(section.micro_batch_size or rows, rows)


def rows_that_fit(config: ModelConfig, section: TrainingSection, memory_bytes: int, kind: Kind) -> int:
    """The rows that training will compute at once: the most it tries, halved until they fit. 0: not even one.

    A tenth of the memory is left to what the estimate leaves out.
    """
    rows = most_rows_at_once(config, section)
    while training_memory(config, section, rows, kind).total > _USABLE_FRACTION * memory_bytes:
        if rows == 1:
            return 0
        rows = (rows + 1) // 2
    return rows


def _is_plain(row_tokens: int, value_bytes: int, kind: Kind) -> bool:
    """Whether attention is computed by the plain formula (hornbook.model.attention)."""
    return kind == "cpu" and value_bytes == 2 and row_tokens <= LONGEST_PLAIN_ROW_TOKENS


def _norm_bytes(config: ModelConfig) -> int:
    """What a norm keeps of a token: RMSNorm, written out, its input and that scaled; LayerNorm is one kernel."""
    return _FLOAT32_BYTES * config.d_model * (2 if config.norm == "rmsnorm" else 1)
