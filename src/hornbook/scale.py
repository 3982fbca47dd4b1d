"""`hornbook scale`: a ladder of small runs on a recipe's own data, the law that they follow, and whether it holds.

The law is fitted to the runs of five sizes and two budgets. Then one more run, four times as dear as the dearest of
them, is predicted first and made after: the prediction's error is part of what is written. `NAME.law.json` beside the
recipe has all of it, and `hornbook run` takes it along for the curve to expect.
"""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.table import Table

from hornbook.errors import UserError
from hornbook.many_runs import make_data, run_on
from hornbook.planning.curves import N_WINDOWS, windows
from hornbook.planning.expected import LAW_FILE
from hornbook.planning.flops import total_training_flops
from hornbook.planning.ladder import HELD_OUT, Rung, budget_of, ladder, rung, rung_recipe
from hornbook.planning.law import Law
from hornbook.planning.law_picture import draw_law
from hornbook.planning.plan import planned_config
from hornbook.planning.scaling import Point, bootstrap, fit_law, with_approach
from hornbook.planning.units import quantity
from hornbook.recipe import Recipe
from hornbook.recipe_training import PretrainSection
from hornbook.run_directory import RunDirectory, read_json, write_json
from hornbook.stages.training import BEGINNING_FILE
from hornbook.training.metrics import read_metrics
from hornbook.training.schedule import learning_rate_scale

_LEAST_SIZES = 3
_SHARE_OF_THE_RECIPE = 1 / 16
_WARM_UP_WINDOWS = 2
"""The first windows of a training, in which the learning rate rises, and the loss falls from its first value."""
_HIGH_RATE = 0.9
"""From such a share of its peak on, a learning rate counts as high."""
_TIMES_A_WINDOW = 100


class Options(Protocol):
    """What is read of the verb's options."""

    recipe: Path
    sizes: int
    flops: float | None
    runs: Path
    json: bool


def scale(options: Options, recipe: Recipe, console: Console) -> None:
    """Run the ladder, fit the law, check it on the held-out run, and write and print what was found.

    Runs that are there already are not made again. Raises UserError where the recipe has no pretraining of its own, for
    fewer than three sizes, and for a number of operations that no ladder can have.
    """
    if recipe.pretrain is None or recipe.origin is not None:
        raise UserError("scale: fits a law to pretraining from new weights, and this recipe has none.")
    if options.sizes < _LEAST_SIZES:
        raise UserError(f"sizes: must be at least {_LEAST_SIZES}, or there is no valley to see, but is {options.sizes}")
    flops = options.flops
    if flops is not None and not 0 < flops < math.inf:
        raise UserError(f"flops: must be a number above 0, but is {flops}")
    if flops is None:
        flops = total_training_flops(planned_config(recipe), recipe.pretrain) * _SHARE_OF_THE_RECIPE
    rungs = ladder(recipe, options.sizes, flops)
    fewest = min(one.tokens for one in rungs) // recipe.pretrain.global_batch_tokens
    if fewest < N_WINDOWS:
        raise UserError(
            f"flops: the shortest run of the ladder would have {fewest} steps, and {N_WINDOWS} are needed to draw a "
            "curve. Give more operations, or the recipe a smaller pretrain.global_batch_tokens."
        )
    console.print(f"{len(rungs)} runs, {budget_of(rungs):.2e} FLOPs in all, and one of {HELD_OUT * flops:.2e}")
    data = make_data(recipe, options.runs, console)
    made = [_run(recipe, one, options.runs, data, console) for one in rungs]
    points = [point for point, _ in made]
    law = with_approach(fit_law(points), made, _windows_at_a_high_rate(recipe.pretrain))
    best, tokens = law.best_split(HELD_OUT * flops)
    held_out = rung(recipe, best, HELD_OUT * flops)
    predicted = law.loss(held_out.parameters, held_out.tokens)
    console.print(f"predicted of the held-out run: {predicted:.3f} nats", highlight=False)
    measured, curve = _run(recipe, held_out, options.runs, data, console)
    intervals = bootstrap(points, law, HELD_OUT * flops)
    found = {
        "law": asdict(law),
        "intervals_80_percent": {name: vars(interval) for name, interval in intervals.items()},
        "points": [vars(point) for point in points],
        "best_for_four_times": {"flops": HELD_OUT * flops, "parameters": best, "tokens": tokens},
        "held_out": vars(measured)
        | {"predicted": predicted, "off_by": predicted / measured.loss - 1}
        | {"curve_off_by": _off_by(law.curve(held_out.parameters, held_out.tokens), curve)},
    }
    write_json(options.recipe.with_suffix(f".{LAW_FILE}"), found)
    picture = options.recipe.with_suffix(".law.svg")
    draw_law(points, law, measured, picture, f"{recipe.name}: the loss of each budget, by size")
    if options.json:
        print(json.dumps(found, indent=2))
        return
    _print(found, law, points, console)
    console.print(f"{options.recipe.with_suffix(f'.{LAW_FILE}')}, {picture}", highlight=False, soft_wrap=True)


def _windows_at_a_high_rate(section: PretrainSection) -> list[int]:
    """The windows of a training in which the learning rate is about its peak; at least that in which it is highest."""
    n_times = N_WINDOWS * _TIMES_A_WINDOW
    scales = [learning_rate_scale(time, n_times, section) for time in range(n_times)]
    lowest = [min(scales[first : first + _TIMES_A_WINDOW]) for first in range(0, n_times, _TIMES_A_WINDOW)]
    return [number for number, scale in enumerate(lowest) if scale >= min(_HIGH_RATE, max(lowest))]


def _off_by(predicted: Sequence[float] | None, measured: Sequence[float | None]) -> list[float | None]:
    """For each window, the share by which the prediction lies above what was measured."""
    assert predicted is not None
    pairs = zip(predicted, measured, strict=True)
    return [None if loss is None else guess / loss - 1 for guess, loss in pairs]


def _run(
    recipe: Recipe, one: Rung, runs: Path, data: RunDirectory, console: Console
) -> tuple[Point, list[float | None]]:
    """One rung, run and measured: the validation's loss in nats per token, and the training's in each window."""
    name = f"{recipe.name}-{quantity(one.parameters).replace(' ', '')}-{quantity(one.tokens).replace(' ', '')}"
    console.print(f"{quantity(one.parameters)} parameters on {quantity(one.tokens)} tokens", highlight=False)
    run = run_on(data, rung_recipe(recipe, one, name), runs, "pretrain", Console(quiet=True))
    stage = run.stage("pretrain")
    facts = (stage.record() or {"facts": {}})["facts"]
    bytes_per_token = read_json(stage.path / BEGINNING_FILE)["data"]["bytes_per_label"]
    loss = facts["validation_bits_per_byte"] * math.log(2) * bytes_per_token
    console.print(f"  {loss:.3f} nats, {facts['training_seconds']:.0f} s", highlight=False)
    curve = windows(read_metrics(stage.path / "metrics.jsonl"), "loss_nats", one.tokens)
    return Point(one.parameters, one.tokens, loss), curve


def _print(found: dict[str, Any], law: Law, points: list[Point], console: Console) -> None:
    table = Table("parameters", title="The ladder", title_justify="left")
    for column in ("tokens", "FLOPs", "loss, nats", "by the law", "off by"):
        table.add_column(column, justify="right")
    held_out = found["held_out"]
    last = Point(held_out["parameters"], held_out["tokens"], held_out["loss"])
    for point in [*points, last]:
        if point is last:
            table.add_section()
        by_law = law.loss(point.parameters, point.tokens)
        table.add_row(
            quantity(point.parameters),
            quantity(point.tokens),
            f"{point.flops:.2e}",
            f"{point.loss:.3f}",
            f"{by_law:.3f}",
            f"{by_law / point.loss - 1:+.1%}",
        )
    console.print(table)
    off_by = [abs(share) for share in held_out["curve_off_by"][_WARM_UP_WINDOWS:] if share is not None]
    console.print(
        f"The held-out run's curve, after its first {_WARM_UP_WINDOWS / N_WINDOWS:.0%}: "
        f"off by {max(off_by):.1%} at most, {statistics.fmean(off_by):.1%} on average",
        highlight=False,
    )
    console.print(
        f"L = {law.e:.3f} + {law.a:.3g} / N^{law.alpha:.3f} + {law.b:.3g} / D^{law.beta:.3f}", highlight=False
    )
    for name, interval in found["intervals_80_percent"].items():
        text = f"  {name.replace('_', ' ')}: {interval['low']:.4g} to {interval['high']:.4g}"
        console.print(text, style="dim", highlight=False)
