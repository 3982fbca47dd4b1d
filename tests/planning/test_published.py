"""The plan's figures of trainings that others have published."""

import io

import pytest
from rich.console import Console

from hornbook.planning.published import PUBLISHED_RUNS, PublishedRun, render_published

FLOPS_WITHIN, HOURS_WITHIN = 0.15, 0.20
HOURS_OF_SIBLINGS_MISSED = {"Llama 2 34B", "Llama 3.1 8B", "Llama 3.1 70B"}
"""Their makers publish no utilisation for them, and that of the sibling does not hold: the hours imply 17 to 38%."""


def _named(run: PublishedRun) -> str:
    return run.name


@pytest.mark.parametrize("run", [run for run in PUBLISHED_RUNS if run.flops], ids=_named)
def test_operations_are_those_that_were_published(run: PublishedRun) -> None:
    assert run.predicted_flops == pytest.approx(run.flops, rel=FLOPS_WITHIN)


@pytest.mark.parametrize("run", [run for run in PUBLISHED_RUNS if run.utilisation and run.gpu_hours], ids=_named)
def test_hours_follow_from_the_utilisation(run: PublishedRun) -> None:
    is_near = run.predicted_gpu_hours == pytest.approx(run.gpu_hours, rel=HOURS_WITHIN)

    assert is_near or run.name in HOURS_OF_SIBLINGS_MISSED
    if run.utilisation_is == "published":
        assert is_near


def test_what_the_hours_imply_is_possible() -> None:
    for run in PUBLISHED_RUNS:
        assert run.implied_utilisation is None or 0.15 < run.implied_utilisation < 0.65, run.name


def test_the_table_names_every_source() -> None:
    console = Console(file=io.StringIO(), width=200)
    render_published(console)

    text = console.file.getvalue()
    assert all(run.name in text and run.source in text for run in PUBLISHED_RUNS)
