"""A plan as tables for a terminal."""

from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from hornbook.planning.plan import Plan, StagePlan


def render_plan(plan: "Plan", console: Console) -> None:
    """Print the plan: parameters, training, memory, time, and what the figures rest on."""
    for table in (_settings(plan), _parameters(plan), _training(plan), _memory(plan), _time(plan)):
        console.print(table)
        console.print()
    console.print(
        "Times are for one device at the share of its rate that is assumed here; small models and small batches "
        "reach less. Memory is an estimate; where a step does not fit, training computes fewer rows at once, with "
        "the same result. Preparing the data, validation and evaluation are not counted.",
        style="dim",
        highlight=False,
    )


def _settings(plan: "Plan") -> Table:
    dialled = plan.depth_gives
    table = _table("Settings", "", "value", *([] if dialled is None else ["the depth alone gives"]))
    for name, value in plan.settings.items():
        cells = [f"{value:,}"]
        if dialled is not None:
            cells.append(f"{dialled[name]:,}" if name in dialled else "")
        table.add_row(name, *cells)
    return table


def _parameters(plan: "Plan") -> Table:
    table = _table(f"Parameters of {escape(plan.recipe)}", "part", "parameters", "share")
    for part, count in plan.parameters.items():
        table.add_row(_words(part), f"{count:,}", f"{count / plan.n_parameters:.1%}")
    table.add_section()
    table.add_row("all", f"{plan.n_parameters:,}", "")
    return table


def _training(plan: "Plan") -> Table:
    rows: dict[str, Callable[[StagePlan], str]] = {
        "tokens": lambda stage: f"{stage.tokens:,}",
        "steps": lambda stage: f"{stage.steps:,}",
        "rows × tokens of a step": lambda stage: f"{stage.rows_per_step:,} × {stage.row_tokens:,}",
        "FLOPs per token": lambda stage: quantity(stage.flops_per_token.total),
        "  forward": lambda stage: quantity(stage.flops_per_token.forward),
        "  backward": lambda stage: quantity(stage.flops_per_token.backward),
        "  attention, both ways": lambda stage: quantity(
            stage.flops_per_token.attention_forward + stage.flops_per_token.attention_backward
        ),
        "  recomputed": lambda stage: quantity(stage.flops_per_token.recomputation),
        "FLOPs of the optimizer, per step": lambda stage: quantity(stage.optimizer_flops_per_step),
        "FLOPs in all": lambda stage: f"{stage.total_flops:.2e}",
    }
    table = _table("Training", "", *(stage.name for stage in plan.stages))
    for name, cell in rows.items():
        table.add_row(name, *(cell(stage) for stage in plan.stages))
    if plan.tokens_per_parameter is not None:
        table.caption = (
            f"{plan.tokens_per_parameter:.1f} tokens of pretraining for each parameter. Where computing is what is "
            f"scarce, about 20 are best (Chinchilla): {plan.compute_optimal_tokens:,} tokens for this model."
        )
    return table


def _memory(plan: "Plan") -> Table:
    table = _table("Peak memory, an estimate", "")
    columns = []
    for stage in plan.stages:
        rows = stage.most_rows_at_once
        columns += [stage.memory_bytes_of_one_row, stage.memory_bytes_of_most_rows]
        table.add_column(f"{stage.name}\n1 row at once", justify="right")
        table.add_column(f"{stage.name}\n{rows:,} rows at once", justify="right")
    for part in fields(columns[0]):
        table.add_row(_words(part.name), *(size(getattr(memory, part.name)) for memory in columns))
    table.add_section()
    table.add_row("all", *(size(memory.total) for memory in columns))
    return table


def _time(plan: "Plan") -> Table:
    names = [stage.name for stage in plan.stages]
    table = _table(
        "Time",
        "device",
        "memory",
        "FLOP/s",
        "share reached",
        *names,
        *(f"rows at once\n{name}" for name in names),
    )
    for device_plan in plan.devices:
        device = device_plan.device
        rows_at_once = device_plan.rows_at_once
        rows = [""] * len(names) if rows_at_once is None else [f"{rows_at_once[n]:,}" for n in names]
        table.add_row(
            escape(device.name),
            "" if device.memory_bytes is None else size(device.memory_bytes),
            quantity(device.flops_per_second),
            f"{device_plan.utilisation:.0%}",
            *(duration(device_plan.seconds[name]) for name in names),
            *("does not fit" if cell == "0" else cell for cell in rows),
        )
    return table


def _table(title: str, first_column: str, *columns: str) -> Table:
    table = Table(first_column, title=title, title_justify="left", caption_justify="left")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _words(name: str) -> str:
    return name.replace("_", " ")


def quantity(number: float) -> str:
    """A large number short, 855000000 as "855 M"; a small one as it is."""
    for power, letter in ((15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if number >= 10**power:
            return f"{number / 10**power:,.3g} {letter}"
    return f"{number:,.3g}"


def size(n_bytes: int) -> str:
    """Bytes in MB or GB, the powers of ten that datasheets use."""
    return f"{n_bytes / 1e9:,.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:,.1f} MB"


def duration(seconds: float) -> str:
    """A time in the unit that a person would choose."""
    for unit_seconds, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 1.5 * unit_seconds:
            return f"{seconds / unit_seconds:,.1f} {unit}"
    return f"{seconds:.0f} s"
