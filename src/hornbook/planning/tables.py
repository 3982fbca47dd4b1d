"""A plan as tables for a terminal."""

from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hornbook.planning.units import duration, money, quantity, size
from hornbook.recipe_parallel import SPREAD_STAGES

if TYPE_CHECKING:
    from hornbook.planning.plan import Plan, StagePlan


def render_plan(plan: "Plan", console: Console) -> None:
    """Print the plan: parameters, training, memory, time, and what the figures rest on."""
    tables = (_settings, _parameters, _training, _memory, _time, _cost, _serving, _expected)
    for make in tables:
        console.print(make(plan))
        console.print()
    _advice(plan, console)
    console.print(
        "Times are at the share of a device's rate that stands beside them; small models and small batches reach less. "
        "Memory leaves out the program itself. Where a step does not fit, training computes fewer rows at once, with "
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
    """One row at once, and as many as training would take, one below the other: stages stand side by side."""
    table = _table("Peak memory, an estimate", "", *(stage.name for stage in plan.stages))
    by_rows = {
        "1 row at once": [stage.memory_bytes_of_one_row for stage in plan.stages],
        "all at once": [stage.memory_bytes_of_most_rows for stage in plan.stages],
    }
    for title, memories in by_rows.items():
        most = [f"{stage.most_rows_at_once:,} rows" for stage in plan.stages]
        table.add_row(f"[bold]{title}[/bold]", *(most if title == "all at once" else [""] * len(most)))
        for part in fields(memories[0]):
            values = [getattr(memory, part.name) for memory in memories]
            if any(values):
                table.add_row(_words(part.name), *map(size, values))
        table.add_row("peak", *(size(memory.total) for memory in memories))
        table.add_section()
    return table


def _time(plan: "Plan") -> Table:
    """Of each stage the time as advised, and what is advised, where that is not what the recipe would do."""
    table = _table("Time", "device", "memory", "FLOP/s", "share reached", *(stage.name for stage in plan.stages))
    for device_plan in plan.devices:
        device, cells = device_plan.device, []
        for stage in plan.stages:
            seconds, advice = device_plan.seconds[stage.name], device_plan.advice[stage.name]
            cannot = "does not fit" if device_plan.n_devices == 1 else "cannot be done"
            lines = [cannot if seconds is None else duration(seconds)]
            if advice is not None and advice.micro_batch_size != stage.most_rows_at_once:
                lines.append(f"{advice.micro_batch_size:,} rows at once")
            if advice is not None and advice.recompute != stage.recompute:
                lines.append(f"recompute {advice.recompute}")
            if device_plan.n_devices > 1 and stage.name not in SPREAD_STAGES:
                lines.append("on one of them")
            cells.append("\n".join(lines))
        table.add_row(
            escape(device.name) if device_plan.n_devices == 1 else f"{device_plan.n_devices} × {escape(device.name)}",
            "" if device.memory_bytes is None else size(device.memory_bytes),
            quantity(device.flops_per_second),
            f"{device_plan.utilisation:.0%} {device_plan.utilisation_is}",
            *cells,
        )
    return table


def _cost(plan: "Plan") -> Table:
    device, cost, seconds = plan.devices[0], plan.cost, plan.devices[0].total_seconds
    table = _table("Cost", "", "this run")
    table.add_row("devices", f"{device.n_devices} × {escape(device.device.name)}")
    if cost is None or seconds is None:
        table.add_row("time and money", "it cannot be done on them")
    else:
        table.add_row("time", duration(seconds))
        table.add_row("hours of a device", f"{cost.device_hours:,.2f}")
        table.add_row("money", "no --price given" if cost.dollars is None else money(cost.dollars))
        energy = "not known" if cost.kilowatt_hours is None else f"{cost.kilowatt_hours:,.3g} kWh"
        table.add_row("energy of the devices", energy)
    best = plan.budget
    if best is not None:
        table.add_section()
        table.add_row(f"best spent on ({best.flops:.2e} FLOPs)", f"{quantity(best.parameters)} parameters")
        table.add_row("trained on", f"{quantity(best.tokens)} tokens")
    return table


def _serving(plan: "Plan") -> Table:
    table = _table(
        "Serving the finished model in bfloat16", "answers at once", "weights", "cache", "tokens/s", "first token"
    )
    for served in plan.serving:
        speed = "not known" if served.tokens_per_second is None else f"up to {served.tokens_per_second:,.0f}"
        first = f"{1000 * served.first_token_seconds:,.0f} ms"
        table.add_row(f"{served.answers_at_once}", size(served.weights_bytes), size(served.cache_bytes), speed, first)
    return table


def _expected(plan: "Plan") -> Table:
    shares = (0.1, 0.25, 0.5, 1.0)
    table = _table("Curves to expect", "stage", "of", "first", *(f"at {share:.0%}" for share in shares))
    for name, expected in plan.expected.items():
        curve = expected.curve
        places = [max(0, round(share * len(curve.mean)) - 1) for share in shares]
        cells = [f"{curve.mean[place]:.2f}\n{curve.low[place]:.2f} to {curve.high[place]:.2f}" for place in places]
        first = "" if expected.first is None else f"{expected.first:.2f}"
        table.add_row(name, _words(expected.figure), first, *cells)
    table.caption = "\n".join(f"{name}: {expected.source}" for name, expected in plan.expected.items())
    return table


def _advice(plan: "Plan", console: Console) -> None:
    console.print("Advice", style="italic")
    if plan.devices[0].device.memory_bytes is None:
        missing = "Rows at once, recomputation and cuts depend on the device's memory: name it with --gpu."
        console.print(f"  {missing}\n", highlight=False, soft_wrap=True)
        return
    for name, advice in plan.advice.items():
        if advice is None:
            console.print(f"  {name}: {plan.not_advised[name]}", highlight=False, soft_wrap=True)
            continue
        for reason in advice.reasons:
            console.print(f"  {name}: {reason}", highlight=False, soft_wrap=True)
        for cut, n_bytes in advice.sent_bytes_per_step.items():
            sent = f"each device sends {size(int(n_bytes))} a step for {cut}"
            console.print(f"  {name}: {sent}.", highlight=False, soft_wrap=True)
    if any(plan.advice.values()):
        console.print(
            "`--write` puts these into the recipe, the cut where it has a section parallel.",
            style="dim",
            highlight=False,
        )
    console.print()


def _table(title: str, first_column: str, *columns: str) -> Table:
    table = Table(first_column, title=title, title_justify="left", caption_justify="left")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _words(name: str) -> str:
    return name.replace("_", " ")
