"""What is read from the log, and what is shown while it grows."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from hornbook.training import metrics
from hornbook.training.metrics import MetricsLog, ProgressDisplay, read_metrics, summarize


def _record(step: int, **fields: Any) -> dict[str, Any]:
    return {
        "step": step,
        "tokens": 10 * step,
        "loss_nats": 1 / step,
        "seconds": 0.5,
        "micro_batch_size": 4,
    } | fields


def test_a_log_continued_from_a_step_forgets_what_came_after_it(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path, step=0) as log:
        for step in (1, 2, 3):
            log.write(_record(step))
    with path.open("a") as file:
        file.write('{"step": 4, "tok')
    assert len(read_metrics(path)) == 3

    with MetricsLog(path, step=2) as log:
        log.write(_record(3, loss_nats=7.0))
        log.sync()

    assert read_metrics(path) == [_record(1), _record(2), _record(3, loss_nats=7.0)]


def test_values_that_json_does_not_know_are_refused(tmp_path: Path) -> None:
    with MetricsLog(tmp_path / "metrics.jsonl", step=0) as log, pytest.raises(ValueError):
        log.write(_record(1, loss_nats=float("nan")))


def test_the_result_is_read_from_the_records() -> None:
    records = [
        _record(1),
        _record(2, tokens_per_second=10.0, evaluation={"validation": {"bits_per_byte": 1.5}}),
        _record(3, tokens_per_second=30.0, loss_nats=None),
        _record(4, tokens_per_second=20.0, evaluation={"validation": {"bits_per_byte": 2.0, "other": 0.0}}),
    ]

    result = summarize(records)

    assert result.steps == 4
    assert result.tokens == 40
    assert result.skipped_steps == 1
    assert result.final_loss_nats == 0.25
    assert result.tokens_per_second == 20.0
    assert result.training_seconds == 2.0
    assert result.last_evaluation == {"validation": {"bits_per_byte": 2.0, "other": 0.0}}
    assert result.best_bits_per_byte == {"validation": 1.5}


def test_the_final_loss_is_a_mean_over_the_last_tenth_of_the_steps() -> None:
    records = [_record(step, loss_nats=float(step)) for step in range(1, 31)]

    assert summarize(records).final_loss_nats == 29.0


def test_without_a_terminal_lines_come_at_intervals_at_evaluations_and_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(metrics.time, "monotonic", lambda: now[0])
    said = io.StringIO()
    with ProgressDisplay(Console(file=said, width=200), "pretrain", step=0, total_steps=40) as display:
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


def test_on_a_terminal_a_bar_is_drawn() -> None:
    said = io.StringIO()
    console = Console(file=said, width=120, force_terminal=True)
    with ProgressDisplay(console, "pretrain", step=2, total_steps=4) as display:
        display.show(_record(3))
        display.show(_record(4, tokens_per_second=1000.0))

    assert "step 4/4, loss 0.250, 1,000 tokens/s, 0 s left" in said.getvalue()
    assert "━" in said.getvalue()


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (61, "1 min 01 s"), (3 * 3600 + 120, "3 h 02 min")])
def test_durations_are_written_for_people(seconds: float, text: str) -> None:
    assert metrics._duration(seconds) == text
