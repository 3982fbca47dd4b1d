"""What processes hand to each other in a step, exchange by exchange, from the shapes alone.

An all-gather counts with its result, a reduce-scatter with its input, an all-reduce and a send with their tensor
(benchmarks/parallel.py counts the same in a real step). Over the wires goes nearly that: a ring of n moves (n-1)/n of a
gather's or a scatter's, and twice that of a sum's. Left out are the few numbers of each step that all processes add up,
and padding.

This module imports no torch.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from hornbook.model.config import ModelConfig
from hornbook.planning.flops import parameters_by_part
from hornbook.planning.layout import Layout
from hornbook.recipe_training import TrainingSection

Kind = Literal["all_gather", "reduce_scatter", "all_reduce", "send"]

_FLOAT32_BYTES = 4


@dataclass(frozen=True)
class Exchange:
    """All exchanges of one kind along one cut in a step: the bytes that a process hands to them, and among how many.

    The bytes are an average over the processes of a pipeline.
    """

    cut: str
    kind: Kind
    n_bytes: float
    among: int

    @property
    def sent_bytes(self) -> float:
        """What goes out of the process, all collectives as rings."""
        others = (self.among - 1) / self.among
        return self.n_bytes * {"all_reduce": 2 * others, "send": 1.0}.get(self.kind, others)


def step_exchanges(
    config: ModelConfig,
    layout: Layout,
    tokens: int,
    micro_batches: int,
    weight_bytes: int,
    activation_bytes: int = _FLOAT32_BYTES,
    recompute: bool = False,
) -> Iterator[Exchange]:
    """For the `tokens` of a process's share of a step, in that many micro-batches.

    weight_bytes: of a weight as it is gathered, 2 for bfloat16; gradients are summed in float32, or wider where weights
    are. activation_bytes: of the sums between layers. recompute: whether layers are computed again in the backward
    pass, exchanges included.
    """
    wide = max(_FLOAT32_BYTES, weight_bytes)
    parts = parameters_by_part(config)
    ends = sum(parts.get(name, 0) for name in ("embedding", "positions", "head")) // layout.tensor
    layers = (parts["attention"] + parts["feed_forward"]) // layout.tensor + parts["norms"]
    is_pipelined = layout.pipeline > 1
    is_tied_twice = is_pipelined and config.tie_embeddings
    held = (layers + ends + (parts["embedding"] // layout.tensor if is_tied_twice else 0)) / layout.pipeline

    # A pipeline keeps what it has gathered, and adds up its gradients, until the step is over.
    passes = 1 if is_pipelined else micro_batches
    if layout.parts > 1:
        layer_gathers = 1 if is_pipelined else 2
        ends_held = held - layers / layout.pipeline
        gathered = layer_gathers * layers / layout.pipeline * weight_bytes + ends_held * wide
        yield Exchange("shard", "all_gather", passes * gathered, layout.parts)
        yield Exchange("shard", "reduce_scatter", passes * held * wide, layout.parts)
    if layout.replicate > 1:
        yield Exchange("replicate", "all_reduce", held / layout.parts * wide, layout.replicate)

    values = tokens * config.d_model * activation_bytes
    if layout.tensor > 1:
        # Into attention and feed-forward tokens are gathered, out of them sums are scattered; backward turned round.
        times = (2 * (2 if recompute else 1) + 2) * config.n_layers / layout.pipeline
        # The embedding; the final norm's result, whose gradient is added up; three numbers for each token of the loss.
        yield Exchange("tensor", "all_gather", (times + 2 / layout.pipeline) * values, layout.tensor)
        yield Exchange("tensor", "reduce_scatter", (times + 1 / layout.pipeline) * values, layout.tensor)
        summed = values + 3 * tokens * wide + passes * parts["norms"] * wide
        yield Exchange("tensor", "all_reduce", summed / layout.pipeline, layout.tensor)
    if layout.context > 1:
        # Keys and values of whole rows, in every layer.
        keys = 2 * tokens * layout.context * config.n_kv_heads * config.head_dim // layout.tensor * activation_bytes
        forward_times = 2 if recompute else 1
        yield Exchange("context", "all_gather", forward_times * config.n_layers * keys, layout.context)
        yield Exchange("context", "reduce_scatter", config.n_layers * keys, layout.context)
    if is_pipelined:
        # Every boundary between stages is crossed forward and backward.
        crossings = 2 * (layout.stages - 1) / layout.pipeline
        yield Exchange("pipeline", "send", crossings * values / layout.tensor, layout.pipeline)
        if is_tied_twice:
            embedding = parts["embedding"] / layout.tensor / layout.parts
            yield Exchange("pipeline", "all_reduce", 2 / layout.pipeline * embedding * wide, 2)


def sent_bytes_per_step(
    config: ModelConfig, section: TrainingSection, layout: Layout, n_rows: int, weight_bytes: int
) -> dict[str, float]:
    """What one device sends in a step of a training section, `n_rows` at once, by the way it is cut."""
    row_tokens = section.row_tokens or config.max_seq_len
    rows = section.global_batch_tokens // row_tokens / layout.data
    tokens = int(rows * row_tokens / layout.context)
    micro_batches = max(1, -(-int(rows) // max(1, n_rows)))
    sent: dict[str, float] = defaultdict(float)
    recompute = section.recompute == "full"
    for exchange in step_exchanges(config, layout, tokens, micro_batches, weight_bytes, recompute=recompute):
        sent[exchange.cut] += exchange.sent_bytes
    return dict(sent)
