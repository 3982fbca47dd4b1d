"""Pictures of what a stage logs besides its loss: one panel for each figure, over the steps."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from itertools import cycle
from pathlib import Path
from typing import Any

from hornbook.run_directory import atomic_write
from hornbook.training.curve import with_description
from hornbook.training.metrics import Record, read_metrics

_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#595959"


def draw_course(metrics_path: Path, svg_path: Path, title: str, panels: Mapping[str, Sequence[str]]) -> None:
    """Draw the run so far as `svg_path`: for each panel, by its label, the figures named.

    A figure is one of the training, such as "reward", thin, or one of an evaluator, such as "validation.accuracy",
    thick and with points.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    records = read_metrics(metrics_path)
    style: Any = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
             "grid.color": "#e5e5e5", "svg.hashsalt": "hornbook", "svg.fonttype": "none"}  # fmt: skip
    sentences = []
    with matplotlib.rc_context(style):
        figure, axes = pyplot.subplots(
            len(panels), 1, sharex=True, figsize=(7, 2.4 * len(panels)), layout="constrained", squeeze=False
        )
        axes[0, 0].set(title=title)
        for axis, (label, names) in zip(axes[:, 0], panels.items(), strict=True):
            looks_of_training = cycle(({"color": _BLUE}, {"color": _GREY, "linestyle": "--"}))
            looks_of_evaluations = cycle(({"marker": "o"}, {"marker": "s", "linestyle": "--"}))
            for name in names:
                points = _points(records, name)
                if not points:
                    continue
                looks: dict[str, Any]
                if "." not in name:
                    looks = {"linewidth": 0.8, **next(looks_of_training)}
                else:
                    looks = {"color": _ORANGE, "linewidth": 1.6, "markersize": 4, **next(looks_of_evaluations)}
                words = name.replace(".", ": ").replace("_", " ")
                axis.plot(*zip(*points, strict=True), **looks, label=words)
                sentences.append(f"{words} goes from {points[0][1]:.3g} to {points[-1][1]:.3g}.")
            axis.set(ylabel=label)
            axis.legend(frameon=False)
        axes[-1, 0].set(xlabel="steps")
        drawn = BytesIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None})
        pyplot.close(figure)
    atomic_write(svg_path, with_description(drawn.getvalue().decode(), title, " ".join(sentences)))


def _points(records: Sequence[Record], name: str) -> list[tuple[int, float]]:
    evaluator, _, figure = name.rpartition(".")
    points = []
    for record in records:
        table = record.get("evaluation", {}).get(evaluator, {}) if evaluator else record
        if table.get(figure) is not None:
            points.append((record["step"], table[figure]))
    return points
