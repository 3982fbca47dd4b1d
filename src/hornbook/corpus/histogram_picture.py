"""Draws the report's histograms as one picture."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy

from hornbook.run_directory import atomic_write

# Okabe and Ito's palette, told apart by all common forms of colour vision. Areas and lines differ by more than colour.
_LOOKS: dict[str, dict[str, Any]] = {
    "kept": {"color": "#0072B2", "alpha": 0.45, "fill": True},
    "dropped": {"color": "#D55E00", "linewidth": 1.6, "fill": False},
}
_THRESHOLD_LOOK: dict[str, Any] = {"color": "#404040", "linewidth": 1.2, "linestyle": (0, (4, 2))}
_COLUMNS = 3
_TICKS = 5
_FEWEST_BINS = 4


def draw_histograms(histograms: dict[str, Any], path: Path) -> None:
    """Draw what `Histograms.finish` gave as an SVG file: the same bytes for the same counts.

    Each panel shows shares of the documents of its kind, the kept as an area and the dropped as a line, and
    the recipe's thresholds. All bins are drawn equally wide.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style: Any = {"font.size": 9, "axes.titlesize": 9, "axes.spines.top": False, "axes.spines.right": False,
             "svg.hashsalt": "hornbook", "svg.fonttype": "none"}  # fmt: skip
    n_rows = -(-len(histograms["scores"]) // _COLUMNS)
    with rc_context(style):
        figure = Figure(figsize=(9.6, 2.1 * n_rows + 0.5))
        panels = figure.subplots(n_rows, _COLUMNS, squeeze=False)
        for panel, score in zip(panels.flat, histograms["scores"], strict=False):
            _draw(panel, score)
        for panel in panels[:, 0]:
            panel.set_ylabel("% of documents")
        figure.subplots_adjust(left=0.06, right=0.985, bottom=0.06, top=0.88, wspace=0.2, hspace=0.55)
        labels = [f"{fate} ({count:,} sampled)" for fate, count in histograms["documents"].items()]
        figure.legend(_legend(), [*labels, "threshold of the recipe"], loc="upper left", ncols=3, frameon=False)
        drawn = BytesIO()
        metadata = {"Date": None, "Title": "Lengths and scores of the documents that were kept and dropped"}
        figure.savefig(drawn, format="svg", metadata=metadata)
    atomic_write(path, drawn.getvalue())


def _draw(panel: Any, score: dict[str, Any]) -> None:
    edges = score["edges"]
    places = numpy.arange(len(edges))
    for fate, look in _LOOKS.items():
        counts = numpy.array(score[fate])
        panel.stairs(100 * counts / max(1, counts.sum()), places, **look)
    thresholds = numpy.interp(list(score["thresholds"].values()), edges, places)
    for place in thresholds:
        panel.axvline(place, **_THRESHOLD_LOOK)
    seen = numpy.flatnonzero(numpy.add(score["kept"], score["dropped"]))
    last = max([_FEWEST_BINS, *(seen[-1:] + 1), *thresholds])
    # Steps of two, because every second edge of the bins that grow is a power of two.
    ticks = numpy.arange(0, last + 0.1, 2 * max(1, round(last / _TICKS / 2)), dtype=int)
    # Given a height, a title is not moved clear of what is above the panel, which takes a quarter of the time.
    panel.set_title(score["score"], y=1.02)
    panel.set_xlim(-0.2, last + 0.2)
    panel.set_xticks(ticks, [f"{edges[tick]:,g}" for tick in ticks])


def _legend() -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    return [*(Patch(**look) for look in _LOOKS.values()), Line2D([], [], **_THRESHOLD_LOOK)]
