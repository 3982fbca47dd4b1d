"""What is read from the log."""

import math
from pathlib import Path
from typing import Any

import pytest

from hornbook.training.metrics import MetricsLog, read_metrics, summarize, with_finite_figures


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


def test_steps_that_are_made_again_are_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path, step=0) as log:
        for step in (1, 2, 3):
            log.write(_record(step))
        log.forget_after(1)
        log.write(_record(2, loss_nats=7.0))

    assert read_metrics(path) == [_record(1), _record(2, loss_nats=7.0)]


@pytest.mark.parametrize(
    "damaged", [b"\0" * 20, b"", b'{"step": 2, "lo', b'{"step": 3}', b'{"s\xff": 2}', b"[2]", b"2"]
)
def test_what_is_read_ends_before_the_first_damaged_line(damaged: bytes, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path, step=0) as log:
        for step in (1, 2, 3):
            log.write(_record(step))
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], damaged, lines[2], b""]))

    assert read_metrics(path) == [_record(1)]


def test_figures_without_a_finite_value_are_left_out_inner_ones_too() -> None:
    record = _record(1, loss_nats=None, update_ratio=math.inf, evaluation={"validation": {"a": math.nan, "b": 1.0}})

    assert with_finite_figures(record) == _record(1, loss_nats=None, evaluation={"validation": {"b": 1.0}})


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
