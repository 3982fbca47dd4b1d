"""A chart of benchmark scores: a bar for each task and model, its standard error, and a mark where guessing stands."""

import io
from pathlib import Path
from typing import Any

from hornbook.run_directory import atomic_write

_COLOURS = ("#4c6f91", "#c98a3d")
"""Told apart also in grey and by the colour-blind: one is dark, the other light."""


def draw_scores(names: list[str], scores: dict[str, Any], to: Path) -> None:
    """Draw the scores that `run_benchmarks.ask` gives, for one model or two, into a file of the kind its name says."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.8 + 0.28 * len(scores) * (1 + len(names))), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(names)
    for number, name in enumerate(names):
        of_model = [one["models"][number] for one in scores.values()]
        places = [place + (number - (len(names) - 1) / 2) * width for place in range(len(scores))]
        axes.barh(
            places,
            [100 * one["accuracy"] for one in of_model],
            height=0.9 * width,
            xerr=[100 * one["accuracy_stderr"] for one in of_model],
            color=_COLOURS[number],
            label=name,
        )
    for place, one in enumerate(scores.values()):
        chance = 100 * one["models"][0]["chance"]
        axes.vlines(chance, place - 0.45, place + 0.45, colors="black", linestyles="dotted")
    axes.set_yticks(range(len(scores)), list(scores))
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("right answers in percent (lines: standard error; dots: guessing)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper left", ncols=len(names), frameon=False)
    made = io.BytesIO()
    figure.savefig(made, format=to.suffix.removeprefix("."))
    atomic_write(to, made.getvalue())
