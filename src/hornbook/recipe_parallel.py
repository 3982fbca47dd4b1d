"""The section of a recipe for several processes: in which ways the model and its batches are cut.

The product of the five numbers is the number of processes. Everything that does not fit together is found here, from
the recipe alone, and again by the run itself, which also knows how many processes there are.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from hornbook.recipe_fields import Section

if TYPE_CHECKING:
    from hornbook.recipe import Recipe

Schedule = Literal["gpipe", "1f1b", "interleaved"]

TAKES_THE_REST = -1
_STAGES_FOR_EACH_PROCESS = {"gpipe": 1, "1f1b": 1, "interleaved": 2}
SPREAD_STAGES = ("pretrain", "finetune")
"""Those that all processes train together; the others are trained by the first alone, while the rest waits."""

Problem = tuple[list[str], str]
"""All the fields that were looked at, and what is wrong with the first."""


def pipeline_stages(processes: int, schedule: Schedule) -> int:
    """Into how many pieces the layers are cut for a pipeline of so many processes."""
    return processes * (_STAGES_FOR_EACH_PROCESS[schedule] if processes > 1 else 1)


class ParallelSection(Section):
    """How a training is spread over processes, one for each device; what is learned does not depend on it."""

    replicate: int = Field(1, gt=0, description="Copies of the model, each of which takes a share of the rows.")
    shard: int = Field(
        TAKES_THE_REST,
        ge=TAKES_THE_REST,
        description="Processes that share the rows, and keep a part of the weights each (FSDP). -1: all that are left.",
    )
    tensor: int = Field(1, gt=0, description="Processes that share each layer: its heads, its width, the vocabulary.")
    pipeline: int = Field(1, gt=0, description="Processes that take some of the layers each, one after the other.")
    context: int = Field(1, gt=0, description="Processes that share the tokens of every row, for long rows.")
    schedule: Schedule = Field(
        "1f1b",
        description="Order of work in a pipeline: all micro-batches forward, then backward (gpipe); one forward, one "
        "backward, which keeps fewer activations (1f1b); the same with two parts of the model for each process, which "
        "waits less and sends more (interleaved).",
    )

    @property
    def stages(self) -> int:
        """The parts that the layers are cut into."""
        return pipeline_stages(self.pipeline, self.schedule)

    @property
    def processes(self) -> int | None:
        """How many processes it takes, or None where `shard` takes any number of them."""
        return None if self.shard == TAKES_THE_REST else self.shard * self._without_shard

    @property
    def _without_shard(self) -> int:
        return self.replicate * self.tensor * self.pipeline * self.context

    def resolved(self, processes: int) -> "ParallelSection":
        """The same with the number of processes that `shard` takes, at least one."""
        if self.shard != TAKES_THE_REST:
            return self
        return self.model_copy(update={"shard": max(1, processes // self._without_shard)})


@dataclass(frozen=True)
class Cuttable:
    """The numbers of a training that have to divide. None where they are not known yet.

    n_rows: rows of a step, of `row_tokens` tokens each. n_positions: of a table of learned positions; 0: there is none.
    """

    stage: str
    n_layers: int | None
    n_heads: int | None
    n_kv_heads: int | None
    d_ff: int | None
    vocab_size: int | None
    n_positions: int | None
    row_tokens: int
    n_rows: int
    has_adapters: bool


def process_problems(section: ParallelSection, processes: int) -> Iterator[Problem]:
    """What is wrong with a layout for this number of processes."""
    needed = section.resolved(processes).processes
    if needed != processes:
        parts = " x ".join(
            f"{name} {getattr(section, name)}"
            for name in ("replicate", "shard", "tensor", "pipeline", "context")
            if getattr(section, name) not in (1, TAKES_THE_REST)
        )
        rest = " or a multiple of it" if section.shard == TAKES_THE_REST else ""
        yield (
            ["parallel"],
            f"needs {needed}{rest} processes ({parts}), but {processes} {'was' if processes == 1 else 'were'} started; "
            f"start it with torchrun --nproc-per-node {needed} -m hornbook run …, or change the section",
        )


def layout_problems(section: ParallelSection, training: Cuttable) -> Iterator[Problem]:
    """Every way in which a training cannot be cut as the section says; nothing where it can."""
    stage = training.stage
    if section.shard == 0:
        yield ["parallel.shard"], "must be -1, which takes all processes that are left, or at least 1, but is 0"
    stretches = section.context * section.tensor
    if training.row_tokens % stretches:
        yield (
            [f"{stage}.row_tokens", "parallel.context", "parallel.tensor"],
            f"must be a multiple of parallel.context x parallel.tensor, which is {stretches}, "
            f"but is {training.row_tokens}",
        )
    if section.context > 1 and section.pipeline > 1:
        yield (
            ["parallel.context", "parallel.pipeline"],
            f"must be 1 where parallel.pipeline is more than 1, but is {section.context}",
        )
    if section.tensor > 1:
        numbers: Mapping[str, int | None] = {
            "model.n_heads": training.n_heads,
            "model.n_kv_heads": training.n_kv_heads,
            "model.d_ff": training.d_ff,
            "tokenizer.vocab_size": training.vocab_size,
            "model.max_seq_len": training.n_positions,
        }
        for name, number in numbers.items():
            if number is not None and number % section.tensor:
                multiple = f"a multiple of parallel.tensor, which is {section.tensor}"
                yield [name, "parallel.tensor"], f"must be {multiple}, but is {number}"
        if training.has_adapters:
            yield [f"{stage}.lora", "parallel.tensor"], "must be left out where parallel.tensor is more than 1"
    if training.n_layers is not None and section.stages > training.n_layers:
        yield (
            ["parallel.pipeline", "parallel.schedule", "model.n_layers"],
            f"cuts the model into {section.stages} parts, more than the {training.n_layers} layers of model.n_layers",
        )
    n_data = section.replicate * (1 if section.shard in (0, TAKES_THE_REST) else section.shard)
    if training.n_rows % n_data:
        yield (
            ["parallel.shard", "parallel.replicate", f"{stage}.global_batch_tokens"],
            f"and replicate must divide the {training.n_rows} rows of a step of {stage}, but come to {n_data}",
        )
    elif section.pipeline > training.n_rows // n_data:
        yield (
            [f"{stage}.global_batch_tokens", "parallel.pipeline"],
            f"must have a row for each of the {section.pipeline} processes of parallel.pipeline, but has "
            f"{training.n_rows // n_data} for each share of the rows",
        )


def recipe_problems(recipe: "Recipe") -> Iterator[Problem]:
    """The problems of all trainings of a recipe, each told once."""
    told = set()
    for training in _cuttables(recipe):
        for names, what in layout_problems(recipe.parallel, training):
            if (names[0], what) not in told:
                told.add((names[0], what))
                yield names, what


def _cuttables(recipe: "Recipe") -> Iterator[Cuttable]:
    model = recipe.model
    for name, section in recipe.training_sections.items():
        if name not in SPREAD_STAGES:
            continue
        row_tokens = section.row_tokens or model.max_seq_len
        cuttable = Cuttable(
            stage=name,
            n_layers=model.n_layers,
            n_heads=model.n_heads,
            n_kv_heads=model.n_kv_heads or model.n_heads,
            d_ff=model.d_ff,
            vocab_size=recipe.tokenizer.vocab_size if recipe.tokenizer.load_from is None else None,
            n_positions=model.max_seq_len if model.preset == "gpt2" else 0,
            row_tokens=row_tokens,
            n_rows=max(1, section.global_batch_tokens // row_tokens),
            has_adapters=getattr(section, "lora", None) is not None,
        )
        if recipe.origin is not None:  # the model in that folder says it
            cuttable = replace(
                cuttable, n_layers=None, n_heads=None, n_kv_heads=None, d_ff=None, vocab_size=None, n_positions=None
            )
        yield cuttable
