"""How many bytes each process hands to its exchanges in a step, by kind, from the shapes alone.

An all-gather counts with its result, a reduce-scatter with its input, an all-reduce and a send with their tensor: what
goes over the wires is nearly that (a ring of n moves (n-1)/n of a gather's or a scatter's, and twice that of a sum's).
Left out are the few numbers of each step that all processes add up, and padding.

This module imports no torch.
"""

from dataclasses import dataclass

from hornbook.model.config import ModelConfig
from hornbook.planning.flops import parameters_by_part
from hornbook.recipe_parallel import ParallelSection

_FLOAT32_BYTES = 4


@dataclass(frozen=True)
class Communication:
    """Bytes for each process and step, on average over the processes of a pipeline."""

    all_gather: int
    reduce_scatter: int
    all_reduce: int
    send: int

    @property
    def total(self) -> int:
        return self.all_gather + self.reduce_scatter + self.all_reduce + self.send


def step_communication(
    config: ModelConfig,
    parallel: ParallelSection,
    tokens: int,
    micro_batches: int,
    weight_bytes: int,
    activation_bytes: int = _FLOAT32_BYTES,
    recompute: bool = False,
) -> Communication:
    """For the `tokens` of a process's share of a step, in that many micro-batches; `parallel` has no -1.

    weight_bytes: of a weight as it is gathered, 2 for bfloat16; gradients are summed in float32, or wider where weights
    are. activation_bytes: of the sums between layers. recompute: whether layers are computed again in the backward
    pass, exchanges included.
    """
    wide = max(_FLOAT32_BYTES, weight_bytes)
    parts = parameters_by_part(config)
    ends = sum(parts.get(name, 0) for name in ("embedding", "positions", "head")) // parallel.tensor
    matrices = (parts["attention"] + parts["feed_forward"]) // parallel.tensor
    layers = matrices + parts["norms"]
    is_pipelined = parallel.pipeline > 1
    is_tied_twice = is_pipelined and config.tie_embeddings
    held = (layers + ends + (parts["embedding"] // parallel.tensor if is_tied_twice else 0)) / parallel.pipeline

    # A pipeline keeps what it has gathered, and adds up its gradients, until the step is over.
    passes = 1 if is_pipelined else micro_batches
    layer_gathers = 1 if is_pipelined else 2
    ends_held = held - layers / parallel.pipeline
    gathered = passes * (layer_gathers * layers / parallel.pipeline * weight_bytes + ends_held * wide)
    scattered = passes * held * wide
    summed = held / parallel.shard * wide if parallel.replicate > 1 else 0.0
    if parallel.shard == 1 and not parallel.replicate > 1:
        gathered = scattered = 0.0

    values = tokens * config.d_model * activation_bytes
    if parallel.tensor > 1:
        n_layers = config.n_layers / parallel.pipeline
        # Into attention and feed-forward tokens are gathered, out of them sums are scattered; backward turned round.
        forward_times = 2 if recompute else 1
        gathered += (2 * forward_times + 2) * n_layers * values
        scattered += (2 * forward_times + 2) * n_layers * values
        # The embedding; the final norm's result, whose gradient is added up; three numbers for each token of the loss.
        gathered += 2 * values / parallel.pipeline
        scattered += values / parallel.pipeline
        summed += (values + 3 * tokens * wide) / parallel.pipeline
        summed += passes * parts["norms"] * wide / parallel.pipeline
    sent = 0.0
    if is_pipelined:
        # Every boundary between stages is crossed forward and backward.
        sent = 2 * (parallel.stages - 1) * values / parallel.tensor / parallel.pipeline
        if is_tied_twice:
            summed += 2 / parallel.pipeline * parts["embedding"] / parallel.tensor / parallel.shard * wide
    return Communication(round(gathered), round(scattered), round(summed), round(sent))
