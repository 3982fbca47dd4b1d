"""The memory that training needs at its peak, by part, on one device.

A step has three moments at which it can be fullest: when the scores are computed, and everything the layers keep is
there; when the backward pass stands at a layer that is computed again; and when the optimizer makes its step. Weights,
gradients and the optimizer's state are exact, and what the layers keep is counted tensor by tensor, as the model's code
has them. Against torch's own tracker the peak is within 10% (tests/planning/test_memory.py). What is left out is the
program itself (some hundred MB), the fragments of an allocator and the working space of kernels.

This module imports no torch.
"""

from collections import Counter
from dataclasses import dataclass, fields

from hornbook.model.config import ModelConfig
from hornbook.planning.flops import layer_matrices, layer_parameters, matrix_parameters, parameters_by_part
from hornbook.planning.hardware import Kind
from hornbook.planning.layout import Layout, device_parameters
from hornbook.recipe_training import TrainingSection

LONGEST_ROW_IN_BLOCKS_TOKENS = 2048
"""Up to here attention on a CPU in bfloat16 needs no mask for each token (hornbook.model.block_attention)."""

_SCORES_AT_ONCE = {"cpu": 2**21, "accelerator": 2**27}  # as in hornbook.objectives.objective
_MIN_CHUNK_TOKENS = 256
_FLOAT32_BYTES = 4
_BFLOAT16_BYTES = 2
_USABLE_FRACTION = 0.9
_BUCKET_BYTES = 50_000_000
"""What copies of a model average at once of their gradients: two buckets of 25 MB, as torch's DDP."""

ONE_DEVICE = Layout()


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak, by part.

    logits: the scores, their gradient, and the head's gradient that is taken along. working: what a layer's backward
    pass holds for a moment. update: the working space of the optimizer's step. communication: weights gathered from
    other devices, and gradients on their way. apart: below zero, what of all these is not there at the same moment, so
    that the parts add up to the total.
    """

    weights: int
    gradients: int
    optimizer: int
    cast_weights: int
    activations: int
    logits: int
    working: int
    update: int
    communication: int
    apart: int

    @property
    def total(self) -> int:
        return sum(getattr(self, part.name) for part in fields(self))


def training_memory(
    config: ModelConfig, section: TrainingSection, n_rows: int, kind: Kind, layout: Layout = ONE_DEVICE
) -> Memory:
    """The estimate for `n_rows` rows computed at once by the device that needs most.

    precision "auto" is taken as bfloat16, which it is on most machines of the last years.
    """
    value_bytes = 4 if section.precision == "float32" else 2
    row_tokens = section.row_tokens or config.max_seq_len
    n_tokens = -(-n_rows * row_tokens // layout.context)
    cut = layout.tensor * layout.pipeline
    held = device_parameters(config, layout)
    matrices = -(-matrix_parameters(config) // (cut * layout.parts))
    by_muon = matrices if section.optimizer == "muon" else 0
    head = -(-config.vocab_size * config.d_model // layout.tensor)

    weights = gradients = _FLOAT32_BYTES * held
    optimizer = _FLOAT32_BYTES * (by_muon + 2 * (held - by_muon))
    cast = 0 if value_bytes == _FLOAT32_BYTES else value_bytes * (-(-matrix_parameters(config) // cut) + head)
    if layout.parts > 1:  # gathered in the type computed in, and counted there
        cast = 0 if value_bytes == _FLOAT32_BYTES else value_bytes * head
    kept, again = _kept_bytes(config, section, row_tokens, value_bytes, kind, layout)
    logits = _logits_bytes(config, n_tokens, value_bytes, kind, layout)
    working = n_tokens * value_bytes * (config.d_ff // layout.tensor + config.d_model)
    update = _update_bytes(config, kind, value_bytes) // (cut * layout.parts) if section.optimizer == "muon" else 0
    communication = _communication_bytes(config, value_bytes, held, layout)

    rows_of_device = section.global_batch_tokens // row_tokens / layout.data
    early = gradients if n_rows < rows_of_device or layout.pipeline > 1 else 0
    moments = (
        early + cast + n_tokens * kept + logits,
        early + cast + n_tokens * (kept + again) + working,
        gradients + update,
    )
    activations = n_tokens * (kept + (again if moments[1] >= moments[0] else 0))
    parts = (gradients, cast, activations, logits, working, update)
    return Memory(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        cast_weights=cast,
        activations=activations,
        logits=logits,
        working=working,
        update=update,
        communication=communication,
        apart=max(moments) - sum(parts),
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

    # Queries, result, keys and values; a sum for each head; the mask in the type computed in.
    mask = 0 if _is_in_blocks(row_tokens, value_bytes, kind) else row_tokens * value_bytes
    attention = (2 * query + 2 * key) * value_bytes + _FLOAT32_BYTES * config.n_heads + mask
    head_norms = 2 * _FLOAT32_BYTES * (query + key) if config.qk_norm else 0
    return 2 * _norm_bytes(config) + inputs + feed_forward + attention + head_norms


def product_bytes_per_token(config: ModelConfig, row_tokens: int, value_bytes: int, kind: Kind) -> int:
    """What one layer keeps of a token where only the results of products with weights, and of the fused attention, are
    kept (hornbook.parallel.recompute)."""
    query, key = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    wide = 2 if config.activation == "swiglu" else 1
    projections = query + 2 * key + config.d_model + wide * config.d_ff + config.d_model
    return projections * value_bytes + query * value_bytes + _FLOAT32_BYTES * config.n_heads


def _is_in_blocks(row_tokens: int, value_bytes: int, kind: Kind) -> bool:
    """Whether attention needs no mask for each token (hornbook.model.block_attention)."""
    return kind == "cpu" and value_bytes == 2 and row_tokens <= LONGEST_ROW_IN_BLOCKS_TOKENS


def _norm_bytes(config: ModelConfig) -> int:
    """What a norm keeps of a token: RMSNorm, written out, its input and that scaled; LayerNorm is one kernel."""
    return _FLOAT32_BYTES * config.d_model * (2 if config.norm == "rmsnorm" else 1)


def most_rows_at_once(config: ModelConfig, section: TrainingSection, layout: Layout = ONE_DEVICE) -> int:
    """The rows that a device tries to compute at once: the recipe's micro-batch, or all of its rows of a step."""
    rows = section.global_batch_tokens // (section.row_tokens or config.max_seq_len)
    of_device = max(1, rows // layout.data)
    return min(section.micro_batch_size or of_device, of_device)


def rows_that_fit(
    config: ModelConfig, section: TrainingSection, memory_bytes: int, kind: Kind, layout: Layout = ONE_DEVICE
) -> int:
    """The rows that training will compute at once: the most it tries, halved until they fit. 0: not even one.

    A tenth of the memory is left to what the estimate leaves out.
    """
    rows = most_rows_at_once(config, section, layout)
    while training_memory(config, section, rows, kind, layout).total > _USABLE_FRACTION * memory_bytes:
        if rows == 1:
            return 0
        rows = (rows + 1) // 2
    return rows


def serving_memory(config: ModelConfig, n_sequences: int, value_bytes: int = 2) -> dict[str, int]:
    """Bytes of a model that answers: its weights, and the keys and values of full rows of `n_sequences` answers."""
    n_parameters = sum(parameters_by_part(config).values())
    return {
        "weights": value_bytes * n_parameters,
        "cache": n_sequences * config.max_seq_len * cache_bytes_per_token(config, value_bytes),
    }


def cache_bytes_per_token(config: ModelConfig, value_bytes: int = 2) -> int:
    """The keys and values that generation keeps of one token, in all layers."""
    return 2 * config.n_layers * config.n_kv_heads * config.head_dim * value_bytes


def _kept_bytes(
    config: ModelConfig, section: TrainingSection, row_tokens: int, value_bytes: int, kind: Kind, layout: Layout
) -> tuple[int, int]:
    """Of a token: what is kept until its scores are there, and what is added when a layer is computed again."""
    layers = -(-config.n_layers // layout.pipeline)
    per_layer = layer_activation_bytes_per_token(config, row_tokens, value_bytes, kind)
    ends = _norm_bytes(config) + 2 * _FLOAT32_BYTES * config.d_model  # final norm; its output and gradient
    layer_input = _FLOAT32_BYTES * config.d_model
    again = 0
    if section.recompute == "full":
        kept, again = layers * layer_input, per_layer
    elif section.recompute == "selective":
        # While a layer is computed again, all of it is there, the kept results among them.
        products = product_bytes_per_token(config, row_tokens, value_bytes, kind)
        kept, again = layers * (layer_input + products), per_layer - products
    else:
        kept = layers * per_layer
    # One forward, one backward: the first stage of a pipeline has begun as many micro-batches as there are stages.
    return (layout.pipeline * kept + ends) // layout.tensor, again // layout.tensor


def _logits_bytes(config: ModelConfig, n_tokens: int, value_bytes: int, kind: Kind, layout: Layout) -> int:
    """The scores of a chunk, in the objective's own steps, and the gradients that are taken along."""
    vocab_size = config.vocab_size // layout.tensor
    chunk_tokens = max(_MIN_CHUNK_TOKENS, _SCORES_AT_ONCE[kind] // config.vocab_size)
    # Scores in float32, which become the gradient in place, and that rounded where it is. From the second chunk on
    # those of the one before are still there as well.
    of_chunk = _FLOAT32_BYTES + (value_bytes if value_bytes < _FLOAT32_BYTES else 0)
    bytes_per_score = of_chunk * (1 if n_tokens <= chunk_tokens else 2)
    head = _FLOAT32_BYTES * vocab_size * config.d_model
    return head + bytes_per_score * vocab_size * min(chunk_tokens, n_tokens)


def _update_bytes(config: ModelConfig, kind: Kind, value_bytes: int) -> int:
    """What Muon's step holds for a moment: a direction for each matrix; of the largest group of matrices of one shape
    the directions, twice while they are scaled and cast, then with two copies and two tables of products in the type of
    the products; and the result of the group before. Accelerators make the products in bfloat16. A CPU that computes
    in it goes matrix by matrix instead (hornbook.kernels): two copies and two tables of the largest."""
    if kind == "cpu" and value_bytes == _BFLOAT16_BYTES:
        return (
            2 * value_bytes * max(rows * columns + min(rows, columns) ** 2 for rows, columns in layer_matrices(config))
        )
    groups: Counter[tuple[int, int]] = Counter()
    for matrix in layer_matrices(config):
        groups[min(matrix), max(matrix)] += config.n_layers
    sizes = [(n * rows * columns, n * rows * rows) for (rows, columns), n in groups.items()]
    before = [0, *(elements for elements, _ in sizes[:-1])]
    wide, narrow = _FLOAT32_BYTES, _FLOAT32_BYTES if kind == "cpu" else _BFLOAT16_BYTES
    moments = []
    for (own, table), last in zip(sizes, before, strict=True):
        casting = 2 * wide * own + narrow * own
        iterating = wide * own + 2 * narrow * (own + table)
        moments.append(max(casting, iterating) + narrow * last)
    return wide * matrix_parameters(config) + max(moments)


def _communication_bytes(config: ModelConfig, value_bytes: int, held: int, layout: Layout) -> int:
    if layout.parts > 1:
        # This layer and the next one, gathered, and the gradients of one before they are shared out.
        return (2 * value_bytes + _FLOAT32_BYTES) * layer_parameters(config) // layout.tensor
    return min(_BUCKET_BYTES, _FLOAT32_BYTES * held) if layout.replicate > 1 else 0
