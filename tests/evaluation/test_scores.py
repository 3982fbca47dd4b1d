"""The table of scores, and the standard error."""

import io
import subprocess
import sys

import pytest
from rich.console import Console

from hornbook.evaluation.scores import SuiteScores, score_table, standard_error


def _scores(choice: float, free: float) -> SuiteScores:
    return {
        "choice": choice,
        "choice_stderr": 0.02,
        "choice_normalised": choice,
        "choice_normalised_stderr": 0.02,
        "free": free,
        "free_stderr": 0.03,
        "chance": 0.25,
        "n": 200,
        "n_cut": 0,
    }


def _printed(scores: dict[str, dict[str, SuiteScores]], width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(score_table(scores))
    return console.file.getvalue()


def test_what_training_changed_stands_below_and_within_80_columns() -> None:
    text = _printed(
        {
            "pretrain": {"comprehension": _scores(0.41, 0.1)},
            "finetune": {"comprehension": _scores(0.83, 1.0), "facts": _scores(0.5, 0.5)},
        }
    )
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if "±" in line][1:]

    assert rows == [
        ["comprehension", "pretrain", "25", "41 ± 2", "10 ± 3"],
        ["", "finetune", "25", "83 ± 2", "100 ± 3"],
        ["facts", "finetune", "25", "50 ± 2", "50 ± 3"],
    ]
    assert "200 questions a suite" in text
    assert "…" not in text


def test_a_suite_that_a_stage_was_not_asked_is_empty_there() -> None:
    text = _printed({"pretrain": {}, "finetune": {"facts": _scores(0.5, 0.6)}})
    (row,) = [line for line in text.splitlines() if "facts" in line]

    assert row.count("±") == 2


def test_suites_of_different_sizes_are_told_with_both() -> None:
    short = _scores(0.5, 0.6) | {"n": 12}
    assert "12 to 200 questions a suite" in _printed({"pretrain": {"facts": _scores(0.5, 0.6), "reasoning": short}})


def test_scores_are_read_without_torch() -> None:
    code = "import sys, hornbook.show, hornbook.evaluation.scores; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("right", "error"), [([True, False], 0.5), ([True] * 9, 0.0), ([True], 0.0)])
def test_the_standard_error_is_that_of_a_share(right: list[bool], error: float) -> None:
    assert standard_error(right) == pytest.approx(error)
