"""The table of scores, and the standard error."""

import io

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


def _printed(scores: dict[str, dict[str, SuiteScores]]) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(score_table(scores))
    return console.file.getvalue()


def test_before_and_after_stand_side_by_side() -> None:
    text = _printed(
        {
            "pretrain": {"comprehension": _scores(0.41, 0.1)},
            "finetune": {"comprehension": _scores(0.83, 0.75), "facts": _scores(0.5, 0.5)},
        }
    )
    (row,) = [line for line in text.splitlines() if "comprehension" in line]

    assert text.index("pretrain") < text.index("finetune")
    for earlier, later in zip(
        ("200", "25", "41 ± 2", "10 ± 3", "83 ± 2"),
        ("25", "41 ± 2", "10 ± 3", "83 ± 2", "75 ± 3"),
        strict=True,
    ):
        assert row.index(earlier) < row.index(later)


def test_a_suite_that_a_stage_was_not_asked_is_empty_there() -> None:
    text = _printed({"pretrain": {}, "finetune": {"facts": _scores(0.5, 0.6)}})
    (row,) = [line for line in text.splitlines() if "facts" in line]

    assert row.count("±") == 3


@pytest.mark.parametrize(("right", "error"), [([True, False], 0.5), ([True] * 9, 0.0), ([True], 0.0)])
def test_the_standard_error_is_that_of_a_share(right: list[bool], error: float) -> None:
    assert standard_error(right) == pytest.approx(error)
