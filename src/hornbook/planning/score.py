"""The score of a plan: what was predicted of a training beside what was measured, in one table."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from hornbook.planning.units import duration, quantity, size

Row = dict[str, float | None]

_SPELLED = {
    "parameters": lambda value: f"{value:,.0f}",
    "flops": lambda value: f"{value:.3e}",
    "peak_memory_bytes": lambda value: size(int(value)),
    "tokens_per_second": lambda value: f"{quantity(value)}",
    "seconds": duration,
    "loss_nats": lambda value: f"{value:.3f}",
}


def score(predicted: Mapping[str, float | None], measured: Mapping[str, float | None]) -> dict[str, Row]:
    """For each figure what was predicted, what was measured, and by which share the prediction was off.

    None where it was not known beforehand, or could not be measured.
    """
    rows: dict[str, Row] = {}
    for name in _SPELLED:
        before, after = predicted.get(name), measured.get(name)
        off = None if before is None or not after else before / after - 1
        rows[name] = {"predicted": before, "measured": after, "off_by": off}
    return rows


def plan_score_table(stage: str, rows: Mapping[str, Mapping[str, Any]]) -> Table:
    """The score as a table for a terminal."""
    table = Table("", title=f"The plan of {stage}, scored", title_justify="left")
    for column in ("predicted", "measured", "off by"):
        table.add_column(column, justify="right")
    for name, row in rows.items():
        spell = _SPELLED.get(name, str)
        before, after = ("" if row[key] is None else spell(row[key]) for key in ("predicted", "measured"))
        off = "" if row["off_by"] is None else f"{row['off_by']:+.1%}"
        table.add_row(name.replace("_", " "), before, after, off)
    return table
