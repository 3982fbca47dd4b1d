"""What is shown while a training goes on."""

import io
from typing import Any

import pytest
import torch
from rich.console import Console

from hornbook.training import progress
from hornbook.training.progress import ProgressDisplay, Yardstick


def _record(step: int, **fields: Any) -> dict[str, Any]:
    return {"step": step, "loss_nats": 1 / step} | fields


def test_without_a_terminal_lines_come_at_intervals_at_evaluations_and_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    said = io.StringIO()
    with ProgressDisplay(Console(file=said, width=200), "pretrain", 0, 40, torch.device("cpu")) as display:
        for step in range(1, 41):
            now[0] += 1
            fields: dict[str, Any] = {"tokens_per_second": 12345.6}
            if step == 15:
                fields["evaluation"] = {"validation": {"bits_per_byte": 1.25}}
            display.show(_record(step, **fields))

    lines = said.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == [f"pretrain: step {step}/40" for step in (10, 15, 25, 35, 40)]
    assert lines[0] == "pretrain: step 10/40, loss 0.100, 12,346 tokens/s, 30 s left"
    assert "validation 1.250 bits per byte" in lines[1]
    assert "validation 1.250 bits per byte" in lines[2]


def test_on_a_terminal_a_panel_shows_the_figures_that_are_known() -> None:
    said = io.StringIO()
    console = Console(file=said, width=120, force_terminal=True, color_system=None)
    yardstick = Yardstick(flops_per_token=2_000_000, peak_flops_per_second=10e9)
    with ProgressDisplay(console, "pretrain", 2, 40, torch.device("cpu"), yardstick) as display:
        display.show(_record(3))
        fields = {"grad_norm": 0.75, "lr": 0.003, "evaluation": {"validation": {"bits_per_byte": 1.25}}}
        display.show(_record(4, tokens_per_second=1000.0, **fields))

    panel = said.getvalue()
    for figure in (
        "pretrain",
        "step 4 of 40",
        "loss 0.250",
        "validation 1.250 bits per byte",
        "1,000 tokens/s",
        "MFU 20% of 10 GFLOP/s measured",
        "GB in use",
        "gradient 0.75, learning rate 0.003",
        "0 s left",
        "━",
    ):
        assert figure in panel, figure


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (61, "1 min 01 s"), (3 * 3600 + 120, "3 h 02 min")])
def test_durations_are_written_for_people(seconds: float, text: str) -> None:
    assert progress.duration(seconds) == text
