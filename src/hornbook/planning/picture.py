"""The memory of one device as a picture: a bar for each stage, its parts stacked, and the line of what there is."""

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hornbook.run_directory import atomic_write
from hornbook.training.curve import with_description

if TYPE_CHECKING:
    from hornbook.planning.plan import Plan

# Okabe and Ito's palette; hatching tells neighbours apart where colour does not.
_COLOURS = ("#0072B2", "#56B4E9", "#009E73", "#F0E442", "#E69F00", "#D55E00", "#CC79A7", "#999999", "#000000")
_PARTS = (
    "weights",
    "gradients",
    "optimizer",
    "cast_weights",
    "activations",
    "logits",
    "working",
    "update",
    "communication",
)


def draw_memory(plan: "Plan", path: Path) -> None:
    """Draw what each stage holds on one device with the advised choices, or with one row at once where nothing fits.

    Parts that are never there together are drawn in full, so the peak, marked by a line, can lie below the end.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    device = plan.devices[0].device
    bars = {
        stage.name: stage.memory_bytes_of_one_row if (advice := plan.advice[stage.name]) is None else advice.memory
        for stage in plan.stages
    }
    style: Any = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "hornbook",
                  "svg.fonttype": "none", "hatch.linewidth": 0.4}  # fmt: skip
    largest = max(memory.total - memory.apart for memory in bars.values())
    unit, divisor = ("GB", 1e9) if largest >= 1e9 else ("MB", 1e6)
    sentences = []
    with matplotlib.rc_context(style):
        figure, axis = pyplot.subplots(figsize=(8, 1.6 + 0.9 * len(bars)), layout="constrained")
        for place, (name, memory) in enumerate(bars.items()):
            left = 0.0
            for number, part in enumerate(_PARTS):
                width = getattr(memory, part) / divisor
                label = part.replace("_", " ") if place == 0 else None
                hatch = "//" if number % 2 else ""
                axis.barh(place, width, left=left, color=_COLOURS[number], hatch=hatch, label=label, edgecolor="white")
                left += width
            peak = memory.total / divisor
            axis.plot([peak, peak], [place - 0.45, place + 0.45], color="black", linewidth=2)
            axis.annotate(f"peak {peak:,.1f}", (peak, place - 0.47), ha="center", va="bottom", fontsize=8)
            sentences.append(f"{name} has its peak at {peak:,.1f} {unit}.")
        if device.memory_bytes is not None:
            if device.memory_bytes / divisor < 4 * largest / divisor:
                axis.axvline(device.memory_bytes / divisor, color="#595959", linestyle=(0, (6, 3)))
            sentences.append(f"{device.name} has {device.memory_bytes / divisor:,.0f} {unit}.")
        title = f"{plan.recipe}: memory of one device"
        axis.set(yticks=range(len(bars)), yticklabels=list(bars), xlabel=unit, title=title)
        axis.invert_yaxis()
        figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=8)
        drawn = BytesIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None})
        pyplot.close(figure)
    atomic_write(path, with_description(drawn.getvalue().decode(), title, " ".join(sentences)))
