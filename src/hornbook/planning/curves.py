"""Curves over a training cut into windows: what is compared of two runs, whatever machine they ran on.

A run of T tokens has twenty windows of T / 20 tokens; a figure's value in a window is its mean there. What is expected
is a mean and a band around it for each window.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

N_WINDOWS = 20
_STANDARD_DEVIATIONS = 5.0
_NEIGHBOURS = 2

Record = Mapping[str, Any]
Window = float | None


@dataclass(frozen=True)
class Band:
    """The mean that is expected in each window, and the lowest and highest value that are still as expected."""

    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class Tolerance:
    """The least half width of a band: a share of the mean, and a value of its own."""

    relative: float = 0.0
    absolute: float = 0.0


TOLERANCES = {
    "loss_nats": Tolerance(relative=0.02),
    "grad_norm": Tolerance(relative=0.5),
    "lr": Tolerance(relative=0.05, absolute=1e-9),
    "update_ratio": Tolerance(relative=0.5, absolute=1e-6),
    "labelled_fraction": Tolerance(relative=0.1, absolute=0.01),
    "next_label_fraction": Tolerance(absolute=0.02),
    "top_label_fraction": Tolerance(relative=0.3, absolute=0.01),
    "repeated_fraction": Tolerance(absolute=0.05),
    "not_finite": Tolerance(absolute=0.005),
    "reward": Tolerance(relative=0.15, absolute=0.08),
    "pass_in_group": Tolerance(relative=0.15, absolute=0.08),
}
"""The figures that are compared, and how far even a run of the same seed on another machine may lie off."""


def windows(records: Sequence[Record], figure: str, total_tokens: int) -> list[Window]:
    """The mean of a figure in each window that has begun; None where it was not measured there."""
    sums = [[0.0, 0] for _ in range(N_WINDOWS)]
    for record in records:
        value = _value(record, figure)
        if value is not None and math.isfinite(value):
            place = min(N_WINDOWS - 1, max(0, math.ceil(record["tokens"] * N_WINDOWS / total_tokens) - 1))
            sums[place][0] += value
            sums[place][1] += 1
    return [total / count if count else None for total, count in sums]


def finished_windows(records: Sequence[Record], total_tokens: int) -> int:
    """How many windows are over."""
    return min(N_WINDOWS, records[-1]["tokens"] * N_WINDOWS // total_tokens) if records else 0


def band_of(runs: Sequence[Sequence[Window]], tolerance: Tolerance) -> Band | None:
    """The band around several runs of one recipe, one for each seed; None where a window has no value.

    Its half width is five standard deviations of a further run, the variance being averaged over neighbouring windows,
    since three seeds alone say little about it; and at least the figure's tolerance. No figure can be below 0.
    """
    columns = [[value for value in column if value is not None] for column in zip(*runs, strict=True)]
    if not all(columns):
        return None
    means = [statistics.fmean(column) for column in columns]
    variances = [statistics.variance(column) if len(column) > 1 else 0.0 for column in columns]
    halves = []
    for place, mean in enumerate(means):
        near = variances[max(0, place - _NEIGHBOURS) : place + _NEIGHBOURS + 1]
        deviation = math.sqrt(statistics.fmean(near) * (1 + 1 / len(runs)))
        halves.append(max(_STANDARD_DEVIATIONS * deviation, tolerance.relative * abs(mean), tolerance.absolute))
    return Band(
        tuple(means),
        tuple(max(0.0, mean - half) for mean, half in zip(means, halves, strict=True)),
        tuple(mean + half for mean, half in zip(means, halves, strict=True)),
    )


def _value(record: Record, figure: str) -> float | None:
    if figure == "not_finite":
        return float(record["loss_nats"] is None and record["grad_norm"] is None)
    if "." in figure:
        evaluator, _, name = figure.partition(".")
        value = record.get("evaluation", {}).get(evaluator, {}).get(name)
    else:
        value = record.get(figure)
    return None if value is None else float(value)
