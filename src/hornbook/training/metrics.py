"""What is known of a run while it goes on and after it: `metrics.jsonl`, the progress display, the result.

`metrics.jsonl` has one line for each step and is the only record; the curve and the result are read from it.
A resumed run first cuts the lines that were written after its checkpoint, so it ends with the same lines as a
run that was never interrupted, timings apart.
"""

import json
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from hornbook.run_directory import atomic_write

Record = dict[str, Any]
Evaluation = dict[str, dict[str, float]]

_PLAIN_LINE_INTERVAL_SECONDS = 10.0
_FINAL_LOSS_STEPS = 50
_BITS_PER_BYTE = "bits_per_byte"


def read_metrics(path: Path) -> list[Record]:
    """The records of all steps so far. Where the last line is still being written, it is left out."""
    records = []
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for line in lines:
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records


class MetricsLog:
    """`metrics.jsonl`, open for appending after the line of `step`. Keys that a line may have:

    step (from 1), tokens (since the beginning, padding counted), loss_nats (mean of the step's whole batch;
    null for a step that was skipped), grad_norm (before clipping; null where it is not finite), lr (AdamW's),
    seconds (of the step alone, without evaluation and checkpoint), tokens_per_second (missing where the step
    compiled or warmed up), micro_batch_size (rows), what the objective reports besides, and where the model
    was evaluated, evaluation, such as {"validation": {"bits_per_byte": 1.02}}.
    """

    def __init__(self, path: Path, step: int) -> None:
        kept = [record for record in read_metrics(path) if record["step"] <= step]
        atomic_write(path, "".join(_line(record) for record in kept))
        self._file: IO[str] = open(path, "a", encoding="utf-8", newline="\n")  # noqa: SIM115 (closed by __exit__)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, record: Record) -> None:
        """Append the record of one step."""
        self._file.write(_line(record))
        self._file.flush()

    def sync(self) -> None:
        """Flush everything written to the disk: a checkpoint must never be ahead of the log."""
        os.fsync(self._file.fileno())


def _line(record: Record) -> str:
    return json.dumps(record, allow_nan=False) + "\n"


@dataclass(frozen=True)
class TrainingResult:
    """A finished training in figures."""

    steps: int
    tokens: int
    skipped_steps: int
    final_loss_nats: float
    """Mean training loss of the last 50 steps, or of the last tenth where that is fewer."""
    tokens_per_second: float | None
    """Median over steps. None where no step ran that neither compiled nor warmed up."""
    training_seconds: float
    """Sum over all steps that are part of the result, without evaluations and checkpoints."""
    micro_batch_size: int
    last_evaluation: Evaluation
    best_bits_per_byte: dict[str, float]
    """The lowest of each evaluator that measures bits per byte."""


def summarize(records: list[Record]) -> TrainingResult:
    """The result of the training that wrote these records, at least one."""
    losses = [record["loss_nats"] for record in records if record["loss_nats"] is not None]
    last_losses = losses[-max(1, min(_FINAL_LOSS_STEPS, len(records) // 10)) :]
    speeds = [record["tokens_per_second"] for record in records if "tokens_per_second" in record]
    evaluations: list[Evaluation] = [record["evaluation"] for record in records if "evaluation" in record]
    best_bits_per_byte: dict[str, float] = {}
    for evaluation in evaluations:
        for name, measured in evaluation.items():
            if _BITS_PER_BYTE in measured:
                best_bits_per_byte[name] = min(measured[_BITS_PER_BYTE], best_bits_per_byte.get(name, float("inf")))
    return TrainingResult(
        steps=len(records),
        tokens=records[-1]["tokens"],
        skipped_steps=len(records) - len(losses),
        final_loss_nats=statistics.fmean(last_losses) if last_losses else float("nan"),
        tokens_per_second=statistics.median(speeds) if speeds else None,
        training_seconds=sum(record["seconds"] for record in records),
        micro_batch_size=records[-1]["micro_batch_size"],
        last_evaluation=evaluations[-1] if evaluations else {},
        best_bits_per_byte=best_bits_per_byte,
    )


class ProgressDisplay:
    """How far the training is: a bar on a terminal, elsewhere a plain line every ten seconds."""

    def __init__(self, console: Console, title: str, step: int, total_steps: int) -> None:
        self._console, self._title, self._total_steps = console, title, total_steps
        # The time left is judged from the end of the first step on, because that one compiles.
        self._first_step, self._first_time = step + 1, 0.0
        self._last_line_time = time.monotonic()
        self._evaluation = ""
        self._bar: Progress | None = None
        self._task = TaskID(0)
        if console.is_terminal:
            self._bar = Progress(TextColumn("{task.description}"), BarColumn(), console=console)
            self._task = self._bar.add_task(title, total=total_steps, completed=step)

    def __enter__(self) -> "ProgressDisplay":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, record: Record) -> None:
        """Show the record of the step that was just made."""
        if record["step"] == self._first_step:
            self._first_time = time.monotonic()
        for name, measured in record.get("evaluation", {}).items():
            if _BITS_PER_BYTE in measured:
                self._evaluation = f"{name} {measured[_BITS_PER_BYTE]:.3f} bits per byte"
        if self._bar is not None:
            self._bar.update(self._task, completed=record["step"], description=self._line(record))
            return
        now = time.monotonic()
        is_last = record["step"] == self._total_steps
        if is_last or "evaluation" in record or now - self._last_line_time >= _PLAIN_LINE_INTERVAL_SECONDS:
            self._last_line_time = now
            self._console.print(self._line(record), highlight=False, soft_wrap=True)

    def _line(self, record: Record) -> str:
        parts = [f"{self._title}: step {record['step']}/{self._total_steps}"]
        if record["loss_nats"] is not None:
            parts.append(f"loss {record['loss_nats']:.3f}")
        if self._evaluation:
            parts.append(self._evaluation)
        if "tokens_per_second" in record:
            parts.append(f"{record['tokens_per_second']:,.0f} tokens/s")
        steps_made = record["step"] - self._first_step
        if steps_made > 0:
            seconds_per_step = (time.monotonic() - self._first_time) / steps_made
            parts.append(f"{_duration(seconds_per_step * (self._total_steps - record['step']))} left")
        return ", ".join(parts)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
