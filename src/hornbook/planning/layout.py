"""How a training is spread over devices, and what they send each other for it.

The numbers are those of a recipe's section `parallel`: copies of the model (replicate), each shared out in shards
(FSDP), each layer cut in width (tensor), the layers cut in depth (pipeline), and the row cut in length (context).
"""

from dataclasses import dataclass

from hornbook.model.config import ModelConfig
from hornbook.planning.flops import layer_parameters, parameters_by_part
from hornbook.recipe import Recipe
from hornbook.recipe_training import TrainingSection

_FLOAT32_BYTES = 4


@dataclass(frozen=True)
class Layout:
    """The processes of a training; their product is the number of devices."""

    replicate: int = 1
    shard: int = 1
    tensor: int = 1
    pipeline: int = 1
    context: int = 1

    @property
    def n_devices(self) -> int:
        return self.replicate * self.shard * self.tensor * self.pipeline * self.context

    @property
    def data(self) -> int:
        """Among how many devices the rows of a step are shared."""
        return self.replicate * self.shard

    def __str__(self) -> str:
        parts = [f"{name} {number}" for name, number in vars(self).items() if number > 1]
        return " × ".join(parts) or "one device"


def layout_of(recipe: Recipe, n_devices: int) -> Layout | None:
    """The layout that a recipe asks for on so many devices; None where it asks for none."""
    section = recipe.parallel
    if n_devices == 1:
        return None
    cut = {name: getattr(section, name) for name in ("replicate", "tensor", "pipeline", "context")}
    if section.shard == -1 and all(number == 1 for number in cut.values()):
        return None  # the default, which asks for nothing
    layout = Layout(**cut)
    rest = max(1, n_devices // layout.n_devices)
    return Layout(**cut, shard=rest if section.shard == -1 else section.shard)


def device_parameters(config: ModelConfig, layout: Layout) -> int:
    """The parameters that the fullest device holds: its stage of the pipeline, its part of each layer, its shard."""
    parts = parameters_by_part(config)
    layers = -(-config.n_layers // layout.pipeline) * layer_parameters(config)
    ends = parts["embedding"] + parts.get("positions", 0) + parts.get("head", 0)
    if layout.pipeline > 1:  # the first stage has the embedding and the last one the head
        ends = max(parts["embedding"] + parts.get("positions", 0), parts.get("head", parts["embedding"]))
    final_norm = config.d_model * (2 if config.norm == "layernorm" else 1)
    return -(-(layers + ends + final_norm) // (layout.tensor * layout.shard))


def sent_bytes_per_step(
    config: ModelConfig, section: TrainingSection, layout: Layout, n_rows: int, value_bytes: int
) -> dict[str, float]:
    """What one device sends in a step, by the way it is cut, all collectives as rings.

    FSDP gathers the weights of each layer twice for each micro-batch (forward, backward) and sends its gradients once,
    in float32; copies average their gradients once a step, which costs 2 (r - 1) / r of them; tensor parallelism with
    sequence parallelism gathers and scatters the stream around both halves of a layer, both ways; a pipeline hands the
    stream on, and its gradient back (Rajbhandari et al. 2020, arXiv 1910.02054; Korthikanti et al., arXiv 2205.05198).
    """
    row_tokens = section.row_tokens or config.max_seq_len
    rows = section.global_batch_tokens // row_tokens / layout.data
    micro_batches = max(1, -(-int(rows) // max(1, n_rows)))
    weights = device_parameters(config, layout) * layout.shard
    stream = rows * row_tokens * config.d_model * value_bytes / layout.context
    others = {name: (number - 1) / number for name, number in vars(layout).items()}
    layers = -(-config.n_layers // layout.pipeline)
    sent = {
        "shard": micro_batches * others["shard"] * weights * (2 * value_bytes + _FLOAT32_BYTES),
        "replicate": 2 * others["replicate"] * weights / layout.shard * _FLOAT32_BYTES,
        "tensor": 8 * layers * others["tensor"] * stream,
        "pipeline": 2 * stream / layout.tensor if layout.pipeline > 1 else 0.0,
        "context": 4 * layers * others["context"] * stream * config.n_kv_heads / config.n_heads,
    }
    return {name: n_bytes for name, n_bytes in sent.items() if n_bytes}
