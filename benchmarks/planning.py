"""The plan against what was published and what is measured.

    python benchmarks/planning.py                    # published trainings; peak memory of trainings
    python benchmarks/planning.py --published        # the first alone, without torch

On a GPU the peak is torch.cuda.max_memory_allocated; on a CPU it is what torch's own tracker counts, and the growth of
the resident memory stands beside it.
"""

import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from hornbook.planning.memory import training_memory
from hornbook.planning.published import render_published

sys.path.insert(0, str(Path(__file__).parent.parent))


def main() -> None:
    """Print both tables."""
    console = Console(width=180)
    render_published(console)
    if "--published" not in sys.argv:
        _memory(console)


def _memory(console: Console) -> None:
    import torch
    from tests.planning.measured import CASES, GPU_CASES, measured_peak_bytes

    from hornbook.planning.prediction import PeakMemory
    from hornbook.runtime import pick_device

    device = pick_device("auto")
    on_gpu = device.type == "cuda"
    counted_by = "max_memory_allocated" if on_gpu else "torch's tracker"
    table = Table("training", title="Peak memory of a step", title_justify="left")
    for column in ("planned", counted_by, "planned / counted", *([] if on_gpu else ["resident memory grew by"])):
        table.add_column(column, justify="right")
    ratios = []
    for name, (config, section, n_rows) in (GPU_CASES if on_gpu else CASES).items():
        resident = PeakMemory(torch.device("cpu"), 0)
        counted = measured_peak_bytes(config, section, n_rows, device)
        planned = training_memory(config, section, n_rows, "accelerator" if on_gpu else "cpu").total
        ratios.append(planned / counted)
        grew = None if on_gpu else resident.peak_bytes()
        row = (f"{planned / 1e6:.1f} MB", f"{counted / 1e6:.1f} MB", f"{ratios[-1]:.3f}")
        table.add_row(name, *row, *([] if grew is None else [f"{grew / 1e6:.1f} MB"]))
    console.print(table)
    console.print(f"largest difference: {max(abs(ratio - 1) for ratio in ratios):.1%}")


if __name__ == "__main__":
    main()
