"""A fitted law as a picture: one valley for each budget of operations, the loss over the size."""

import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from hornbook.planning.law import Law
from hornbook.planning.scaling import Point
from hornbook.run_directory import atomic_write
from hornbook.training.curve import with_description

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
_MARKERS = ("o", "s", "^", "D", "v")


def draw_law(points: Sequence[Point], law: Law, held_out: Point, path: Path, title: str) -> None:
    """Draw the runs by their budgets with the law's own valleys, and the held-out run as a star."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    budgets: dict[int, list[Point]] = {}
    for point in points:
        budgets.setdefault(round(math.log2(point.flops)), []).append(point)
    budgets.setdefault(round(math.log2(held_out.flops)), [])
    sizes = [point.parameters for point in [*points, held_out]]
    low, high = math.log(min(sizes) / 1.3), math.log(max(sizes) * 1.3)
    drawn_at = [math.exp(low + (high - low) * number / 60) for number in range(61)]
    style: Any = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
                  "grid.color": "#e5e5e5", "svg.hashsalt": "hornbook", "svg.fonttype": "none"}  # fmt: skip
    with matplotlib.rc_context(style):
        figure, axis = pyplot.subplots(figsize=(7, 4), layout="constrained")
        for number, (_, runs) in enumerate(sorted(budgets.items())):
            colour, marker = _COLOURS[number % 5], _MARKERS[number % 5]
            flops = math.exp(sum(math.log(run.flops) for run in runs) / len(runs)) if runs else held_out.flops
            valley = [law.loss(n, flops / 6 / n) for n in drawn_at]
            axis.plot(drawn_at, valley, color=colour, linewidth=1.2, label=f"{flops:.1e} FLOPs")
            axis.plot([run.parameters for run in runs], [run.loss for run in runs], marker, color=colour)
        axis.plot([held_out.parameters], [held_out.loss], "*", color="black", markersize=12, label="held out")
        axis.set(xscale="log", title=title, xlabel="parameters", ylabel="loss (nats per token)")
        losses = [point.loss for point in [*points, held_out]]
        axis.set_ylim(min(losses) * 0.95, max(losses) * 1.08)
        axis.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
        axis.legend(frameon=False)
        drawn = BytesIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None})
        pyplot.close(figure)
    predicted = law.loss(held_out.parameters, held_out.tokens)
    text = f"The held-out run has a loss of {held_out.loss:.3f}; the law predicted {predicted:.3f}."
    atomic_write(path, with_description(drawn.getvalue().decode(), title, text))
