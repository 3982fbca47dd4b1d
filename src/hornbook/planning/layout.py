"""How a training is spread over devices.

The numbers are those of a recipe's section `parallel`: copies of the model (replicate), each shared out in shards
(FSDP), each layer cut in width (tensor), the layers cut in depth (pipeline), and the row cut in length (context).
"""

from dataclasses import dataclass, replace

from hornbook.model.config import ModelConfig
from hornbook.planning.flops import layer_parameters, parameters_by_part
from hornbook.recipe import Recipe
from hornbook.recipe_parallel import Cuttable, ParallelSection, Schedule, layout_problems, pipeline_stages
from hornbook.recipe_training import TrainingSection


@dataclass(frozen=True)
class Layout:
    """The processes of a training; their product is the number of devices."""

    replicate: int = 1
    shard: int = 1
    tensor: int = 1
    pipeline: int = 1
    context: int = 1
    schedule: Schedule = "1f1b"

    @property
    def stages(self) -> int:
        """Into how many pieces the layers are cut."""
        return pipeline_stages(self.pipeline, self.schedule)

    @property
    def parts(self) -> int:
        """Among how many devices FSDP shares out the weights: those that share a row take part in it."""
        return self.shard * self.context

    @property
    def n_devices(self) -> int:
        return self.replicate * self.shard * self.tensor * self.pipeline * self.context

    @property
    def data(self) -> int:
        """Among how many devices the rows of a step are shared."""
        return self.replicate * self.shard

    def __str__(self) -> str:
        numbers = {name: number for name, number in vars(self).items() if name != "schedule"}
        parts = [f"{name} {number}" for name, number in numbers.items() if number > 1]
        return " × ".join(parts) or "one device"


def layout_of(recipe: Recipe, n_devices: int) -> Layout | None:
    """The layout that a recipe asks for on so many devices, whether or not it takes all of them; None for none."""
    section = recipe.parallel
    layout = Layout(section.replicate, 1, section.tensor, section.pipeline, section.context, section.schedule)
    if section.shard == -1 and layout.n_devices == 1:
        return None  # the default, which asks for nothing
    rest = max(1, n_devices // layout.n_devices)
    return replace(layout, shard=rest if section.shard == -1 else section.shard)


def to_cut(name: str, config: ModelConfig, section: TrainingSection) -> Cuttable:
    """What of a stage is to be cut among processes."""
    row_tokens = section.row_tokens or config.max_seq_len
    return Cuttable(
        stage=name,
        n_layers=config.n_layers,
        n_heads=config.n_heads,
        n_kv_heads=config.n_kv_heads,
        d_ff=config.d_ff,
        vocab_size=config.vocab_size,
        n_positions=config.max_seq_len if config.positions == "learned" else 0,
        row_tokens=row_tokens,
        n_rows=section.global_batch_tokens // row_tokens,
        has_adapters=getattr(section, "lora", None) is not None,
    )


def is_possible(layout: Layout, config: ModelConfig, section: TrainingSection) -> bool:
    """Whether a training can be cut so: heads, widths, layers and the rows of a step have to come out even."""
    return not any(layout_problems(ParallelSection(**vars(layout)), to_cut("", config, section)))


def device_parameters(config: ModelConfig, layout: Layout) -> int:
    """The parameters that the fullest device holds: its stage of the pipeline, its part of each layer, its shard."""
    parts = parameters_by_part(config)
    layers = -(-config.n_layers // layout.pipeline) * layer_parameters(config)
    ends = parts["embedding"] + parts.get("positions", 0) + parts.get("head", 0)
    if layout.pipeline > 1:  # the first stage has the embedding and the last one the head
        ends = max(parts["embedding"] + parts.get("positions", 0), parts.get("head", parts["embedding"]))
    final_norm = config.d_model * (2 if config.norm == "layernorm" else 1)
    return -(-(layers + ends + final_norm) // (layout.tensor * layout.parts))
