"""What a suite of questions came to, in figures and as a table. Needs no torch: scores are read from runs, too."""

import math
from collections.abc import Mapping, Sequence
from typing import TypedDict

from rich.table import Table


class SuiteScores(TypedDict):
    """Shares of right answers, each from 0 to 1, with the standard error of what they would be on all such questions.

    choice: the likeliest of the choices is the right one. choice_normalised: the same with the likelihood
    taken per byte of the choice. free: what the model wrote is the answer. chance: the share that guessing
    among the choices gives. n: questions. n_cut: those whose beginning did not fit in the model's context.
    """

    choice: float
    choice_stderr: float
    choice_normalised: float
    choice_normalised_stderr: float
    free: float
    free_stderr: float
    chance: float
    n: int
    n_cut: int


def share(right: Sequence[bool]) -> float:
    """The share of right answers."""
    return sum(right) / len(right)


def standard_error(right: Sequence[bool]) -> float:
    """The standard error of that share, √(p (1 - p) / (n - 1)); 0 for a single answer, which tells none."""
    p = share(right)
    return math.sqrt(p * (1 - p) / max(1, len(right) - 1))


def score_table(scores: Mapping[str, Mapping[str, SuiteScores]]) -> Table:
    """A row for each suite and each stage that was asked it, in the order given: what training changed stands below.

    scores: stage → suite → scores. The table is less than 80 columns wide, which is what a log has.
    """
    table = Table(title="Right answers in percent, ± standard error", title_justify="left")
    table.caption, table.caption_justify = _caption(scores), "left"
    for column in ("suite", "after"):
        table.add_column(column)
    for column in ("guessing", "choice", "free"):
        table.add_column(column, justify="right")
    for suite in dict.fromkeys(suite for of_stage in scores.values() for suite in of_stage):
        name = suite
        for stage, of_stage in scores.items():
            if suite in of_stage:
                table.add_row(name, stage, f"{100 * of_stage[suite]['chance']:.0f}", *_cells(of_stage[suite]))
                name = ""
        table.add_section()
    return table


def _cells(scores: SuiteScores) -> list[str]:
    pairs = ((scores["choice"], scores["choice_stderr"]), (scores["free"], scores["free_stderr"]))
    return [f"{100 * value:.0f} ± {100 * error:.0f}" for value, error in pairs]


def _caption(scores: Mapping[str, Mapping[str, SuiteScores]]) -> str:
    numbers = [suite["n"] for of_stage in scores.values() for suite in of_stage.values()]
    fewest, most = min(numbers, default=0), max(numbers, default=0)
    return (
        f"{fewest if fewest == most else f'{fewest} to {most}'} questions a suite. "
        "choice: of the given answers the right one is the likeliest. free: what the model writes is right."
    )
