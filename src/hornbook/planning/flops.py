"""How many parameters a model has and how much it computes, from its config alone, without making it.

A multiplication and an addition are two floating point operations, and only matrix products are counted: they
are nearly all of the work, and what every published figure counts. A weight of a matrix costs a token one
multiplication and one addition, so forward costs 2 FLOPs for each weight, and backward twice as many: the
products with the weights again, for the inputs' gradient, and with the inputs, for the weights'. That is the
6 N of Kaplan et al. (arXiv 2001.08361), with the N that is multiplied with: not the embedding, which is looked
up.

Attention has products without weights, between tokens. They are kept apart because they grow with the row.
The whole T × T table is counted, as in PaLM's appendix B (arXiv 2204.02311), though half of it is masked, and more
of it with a sliding window. A fused kernel that skips what is masked does less, and one that computes the table
again in the backward pass does more.

This module imports no torch.
"""

from dataclasses import dataclass
from typing import Literal

from hornbook.model.config import ModelConfig
from hornbook.recipe_training import TrainingSection

_NEWTON_SCHULZ_ITERATIONS = 5


def parameters_by_part(config: ModelConfig) -> dict[str, int]:
    """The exact number of parameters of each part of the model; their sum is that of the whole.

    With tied embeddings the head is the embedding, and counts there alone.
    """
    norm_vectors = 2 if config.norm == "layernorm" else 1
    heads_normed = 2 * config.head_dim * norm_vectors if config.qk_norm else 0
    block_norms = 2 * config.d_model * norm_vectors + heads_normed
    parts = {
        "embedding": config.vocab_size * config.d_model,
        "positions": config.max_seq_len * config.d_model if config.positions == "learned" else 0,
        "attention": config.n_layers * _weights(_attention_matrices(config), config.attention_bias),
        "feed_forward": config.n_layers * _weights(_feed_forward_matrices(config), config.mlp_bias),
        "norms": config.n_layers * block_norms + config.d_model * norm_vectors,
        "head": 0 if config.tie_embeddings else config.vocab_size * config.d_model,
    }
    return {part: count for part, count in parts.items() if count}


def matrix_parameters(config: ModelConfig) -> int:
    """The weights of the layers' matrices: those that tokens are multiplied with, and that Muon trains."""
    return config.n_layers * _weights(layer_matrices(config), bias=False)


def layer_parameters(config: ModelConfig) -> int:
    """All parameters of one layer, its biases and norms among them."""
    parts = parameters_by_part(config)
    final_norm = config.d_model * (2 if config.norm == "layernorm" else 1)
    return (parts["attention"] + parts["feed_forward"] + parts["norms"] - final_norm) // config.n_layers


@dataclass(frozen=True)
class TokenFlops:
    """Floating point operations that one token costs in training. The attention_ ones are attention's table."""

    forward: int
    attention_forward: int
    backward: int
    attention_backward: int
    recomputation: int

    @property
    def model(self) -> int:
        """What the model itself costs: the count that utilisation (MFU) is usually taken of."""
        return self.forward + self.attention_forward + self.backward + self.attention_backward

    @property
    def total(self) -> int:
        """All of it, with what is computed twice to save memory."""
        return self.model + self.recomputation


def flops_per_token(
    config: ModelConfig, row_tokens: int, recompute: Literal["none", "selective", "full"] = "none"
) -> TokenFlops:
    """What a token costs in rows of `row_tokens`, padding being a token like any other.

    Selective recomputation keeps the results of all products, those of a plain attention excepted.
    """
    layers = 2 * matrix_parameters(config)
    head = 2 * config.vocab_size * config.d_model
    # Queries with keys, and the weights of attention with values: each row_tokens * head_dim for each head.
    attention = config.n_layers * 4 * row_tokens * config.n_heads * config.head_dim
    recomputation = 0
    if recompute == "full":
        # A layer is computed again up to its last product, whose result the backward pass does not need.
        recomputation = layers + attention - 2 * config.n_layers * config.d_ff * config.d_model
    return TokenFlops(
        forward=layers + head,
        attention_forward=attention,
        backward=2 * (layers + head),
        attention_backward=2 * attention,
        recomputation=recomputation,
    )


def optimizer_flops_per_step(config: ModelConfig, optimizer: Literal["muon", "adamw"]) -> int:
    """The matrix products of one update: none with AdamW, Newton-Schulz iterations with Muon.

    An iteration on a matrix of R rows and C ≥ R columns has products of 2 R²C, 2 R³ and 2 R²C operations. That
    is little next to a batch of half a million tokens, but not next to one of four thousand.
    """
    if optimizer == "adamw":
        return 0
    per_layer = 0
    for matrix in layer_matrices(config):
        r, c = sorted(matrix)
        per_layer += 4 * r * r * c + 2 * r**3
    return _NEWTON_SCHULZ_ITERATIONS * config.n_layers * per_layer


def total_training_flops(config: ModelConfig, section: TrainingSection) -> int:
    """Everything that a training section computes; validation, some percent of it, is left out."""
    row_tokens = section.row_tokens or config.max_seq_len
    steps = section.tokens // section.global_batch_tokens
    per_step = optimizer_flops_per_step(config, section.optimizer)
    return section.tokens * flops_per_token(config, row_tokens, section.recompute).total + steps * per_step


Matrix = tuple[int, int]
"""Rows and columns: outputs and inputs."""


def _attention_matrices(config: ModelConfig) -> list[Matrix]:
    query, key = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    return [(query, config.d_model), (key, config.d_model), (key, config.d_model), (config.d_model, query)]


def _feed_forward_matrices(config: ModelConfig) -> list[Matrix]:
    into = 2 if config.activation == "swiglu" else 1
    return [*[(config.d_ff, config.d_model)] * into, (config.d_model, config.d_ff)]


def layer_matrices(config: ModelConfig) -> list[Matrix]:
    """The matrices of one layer, as outputs and inputs, in the order of the model."""
    return _attention_matrices(config) + _feed_forward_matrices(config)


def _weights(matrices: list[Matrix], bias: bool) -> int:
    return sum(rows * columns + (rows if bias else 0) for rows, columns in matrices)
