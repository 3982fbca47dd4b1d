"""Draws a training run from its `metrics.jsonl`: loss in nats per token, validation in bits per byte."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from itertools import cycle
from pathlib import Path
from typing import Any

from hornbook.run_directory import atomic_write
from hornbook.training.metrics import read_metrics

# Okabe and Ito's palette, told apart by all common forms of colour vision. Lines differ by more than colour.
_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#595959"
_SMOOTHED_FRACTION = 0.02


@dataclass(frozen=True)
class ExpectedCurve:
    """The band that a loss should stay in: at each place, in tokens, the lowest, the mean and the highest value."""

    tokens: Sequence[float]
    low: Sequence[float]
    mean: Sequence[float]
    high: Sequence[float]


def draw_curve(
    metrics_path: Path,
    svg_path: Path,
    title: str,
    floor_bits_per_byte: float | None = None,
    expected: ExpectedCurve | None = None,
) -> None:
    """Draw the run so far as `svg_path`, with a title and a description for those who do not see it.

    The upper panel shows the training loss, thin as measured and thick when smoothed; the lower one bits per
    byte of each evaluator that measures them. The floor is a level that no model can go below on average: the
    generator's own bits per byte, where a text's true probability is known. Where it is known what to expect, the upper
    panel has that as a band.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    records = read_metrics(metrics_path)
    trained = [record for record in records if record["loss_nats"] is not None]
    evaluations: dict[str, list[tuple[int, float]]] = {}
    for record in records:
        for name, measured in record.get("evaluation", {}).items():
            if "bits_per_byte" in measured:
                evaluations.setdefault(name, []).append((record["tokens"], measured["bits_per_byte"]))

    style: Any = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
             "grid.color": "#e5e5e5", "svg.hashsalt": "hornbook", "svg.fonttype": "none"}  # fmt: skip
    n_panels = 2 if evaluations else 1
    with matplotlib.rc_context(style):
        figure, panels = pyplot.subplots(
            n_panels, 1, sharex=True, figsize=(7, 3.2 * n_panels), layout="constrained", squeeze=False
        )
        losses = [record["loss_nats"] for record in trained]
        tokens = [record["tokens"] for record in trained]
        panels[0, 0].plot(tokens, losses, color=_BLUE, linewidth=0.6, alpha=0.4, label="each step")
        panels[0, 0].plot(tokens, _smoothed(losses), color=_BLUE, linewidth=1.8, label="smoothed")
        if expected is not None:
            label = "expected"
            panels[0, 0].fill_between(
                expected.tokens, expected.low, expected.high, color=_GREY, alpha=0.15, label=label
            )
            panels[0, 0].plot(expected.tokens, expected.mean, color=_GREY, linewidth=0.8, linestyle="--")
        panels[0, 0].set(title=title, ylabel="training loss (nats per token)")
        panels[0, 0].legend(frameon=False)
        for (name, points), line in zip(evaluations.items(), cycle(("-", "--", ":", "-.")), strict=False):
            panels[1, 0].plot(*zip(*points, strict=True), line, color=_ORANGE, marker="o", markersize=3, label=name)
        if evaluations and floor_bits_per_byte is not None:
            panels[1, 0].axhline(
                floor_bits_per_byte, color=_GREY, linestyle=(0, (6, 3)), label="generator's own bits per byte"
            )
        if evaluations:
            panels[1, 0].set(ylabel="bits per byte")
            panels[1, 0].legend(frameon=False)
        panels[-1, 0].set(xlabel="tokens trained on")
        panels[-1, 0].xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
        drawn = BytesIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None})
        pyplot.close(figure)
    atomic_write(svg_path, with_description(drawn.getvalue().decode(), title, _describe(losses, evaluations)))


def _smoothed(values: Sequence[float]) -> list[float]:
    """Exponential moving average over about a fiftieth of the run, its start corrected as Adam's is."""
    decay = 1 - 1 / max(1.0, _SMOOTHED_FRACTION * len(values))
    average, weight, smoothed = 0.0, 0.0, []
    for value in values:
        average, weight = decay * average + (1 - decay) * value, decay * weight + (1 - decay)
        smoothed.append(average / weight)
    return smoothed


def _describe(losses: Sequence[float], evaluations: dict[str, list[tuple[int, float]]]) -> str:
    sentences = []
    if losses:
        sentences.append(f"The training loss goes from {losses[0]:.2f} to {_smoothed(losses)[-1]:.2f} nats per token.")
    for name, points in evaluations.items():
        sentences.append(f"On {name}, bits per byte go from {points[0][1]:.3f} to {points[-1][1]:.3f}.")
    return " ".join(sentences)


def with_description(svg: str, title: str, description: str) -> str:
    """The drawing with what a screen reader reads out."""
    accessible = f'<svg role="img" aria-label="{escape(title)}. {escape(description)}"'
    head = f"<title>{escape(title)}</title>\n<desc>{escape(description)}</desc>\n"
    svg = svg.replace("<svg", accessible, 1)
    return re.sub(r"(<svg[^>]*>)", lambda tag: f"{tag.group(1)}\n{head}", svg, count=1)
