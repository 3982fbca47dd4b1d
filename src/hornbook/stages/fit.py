"""How a training fits into the memory that is free, and over processes: compared before anything is allocated."""

from dataclasses import dataclass

import torch

from hornbook.errors import RunFailed
from hornbook.model.config import ModelConfig
from hornbook.parallel.mesh import Mesh
from hornbook.parallel.parallelize import SpreadModel
from hornbook.planning.hardware import Kind
from hornbook.planning.layout import Layout
from hornbook.planning.memory import most_rows_at_once, rows_that_fit, training_memory
from hornbook.planning.units import size
from hornbook.recipe_training import TrainingSection
from hornbook.stages.context import StageContext
from hornbook.training.memory import free_memory_bytes


@dataclass(frozen=True)
class Fit:
    """How a training fits into the memory that is free.

    rows: computed at once at first; 0: not even one row fits. most_rows: what training would take with memory enough.
    sentence: the same in words, without a capital.
    """

    rows: int
    most_rows: int
    sentence: str


def fit_in_memory(
    config: ModelConfig, section: TrainingSection, device: torch.device, dtype: torch.dtype, there_already: int = 0
) -> Fit:
    """Compare the plan's estimate with what is free, `there_already` bytes of it being allocated.

    An accelerator says when its memory runs out, and the trainer then takes fewer rows. On a CPU the kernel kills the
    process instead, so there it has to be foreseen.
    """
    kind: Kind = "cpu" if device.type == "cpu" else "accelerator"
    section = section.model_copy(update={"precision": "float32" if dtype == torch.float32 else "bfloat16"})
    most = most_rows_at_once(config, section)
    free = free_memory_bytes(device)
    if free is None:
        return Fit(most, most, "how much memory is free is not known here, so it is tried.")
    there = free + there_already
    fitting = rows_that_fit(config, section, there, kind)
    rows = most if kind == "accelerator" else fitting
    needed = size(training_memory(config, section, max(fitting, 1), kind).total)
    if fitting == 0:
        advice = 'Make the rows shorter (row_tokens), set recompute = "full", or choose a smaller model.'
        return Fit(rows, most, f"a single row needs about {needed} of memory, and {size(there)} are free. {advice}")
    if fitting < most:
        words = f"{fitting} rows at once instead of {most}, since {size(there)} of memory are free"
        return Fit(rows, most, f"computing {words} (about {needed} needed); the gradient is the same.")
    return Fit(rows, most, f"{most} rows at once need about {needed}, and {size(there)} are free.")


def fitted(
    context: StageContext,
    section: TrainingSection,
    spread: SpreadModel,
    dtype: torch.dtype,
    there_already: int,
    rows_of_unit: int,
) -> tuple[TrainingSection, int]:
    """The section with as many rows at once as fit, and how many these are; says so where they are fewer than wished.

    there_already: bytes of the model. rows_of_unit: rows that a batch never parts. What is free is known of one process
    alone: several try the rows of their shares, or the recipe's micro-batch. Raises RunFailed where not even one fits.
    """
    config, mesh = spread.shape.config, spread.mesh
    if mesh.is_spread:
        return section, most_rows_at_once(config, section, layout_of_mesh(mesh))
    fit = fit_in_memory(config, section, mesh.device, dtype, there_already)
    if fit.rows == 0:
        raise RunFailed(f"{context.stage.name}: {fit.sentence}")
    if fit.rows < fit.most_rows:
        context.console.print(f"{fit.sentence[0].upper()}{fit.sentence[1:]}", highlight=False)
    if fit.rows < fit.most_rows or (rows_of_unit > 1 and section.micro_batch_size is not None):
        section = section.model_copy(update={"micro_batch_size": max(1, fit.rows // rows_of_unit)})
    return section, fit.rows


def layout_of_mesh(mesh: Mesh) -> Layout:
    """The layout that a plan reckons with."""
    cut = mesh.section
    return Layout(cut.replicate, cut.shard, cut.tensor, cut.pipeline, cut.context, cut.schedule)
