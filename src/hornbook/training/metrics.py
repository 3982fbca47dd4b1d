"""What is known of a run while it goes on and after it: `metrics.jsonl`, and the result that is read from it.

`metrics.jsonl` has one line for each step and is the only record; the curve and the result are read from it.
A resumed run first cuts the lines that were written after its checkpoint, so it ends with the same lines as a
run that was never interrupted, timings apart.
"""

import json
import math
import os
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from hornbook.run_directory import atomic_write

Record = dict[str, Any]
Evaluation = dict[str, dict[str, float]]

BITS_PER_BYTE = "bits_per_byte"
_FINAL_LOSS_STEPS = 50


def read_metrics(path: Path) -> list[Record]:
    """The records of steps 1, 2, 3 and so on, up to the first line that is damaged or still being written."""
    records: list[Record] = []
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        try:
            record = json.loads(line)
        except ValueError:
            break
        if not isinstance(record, dict) or record.get("step") != len(records) + 1:
            break
        records.append(record)
    return records


def with_finite_figures(record: Record) -> Record:
    """The record without the figures that have no finite value, inner ones too: JSON does not know these."""
    return {
        name: with_finite_figures(value) if isinstance(value, dict) else value
        for name, value in record.items()
        if not isinstance(value, float) or math.isfinite(value)
    }


class MetricsLog:
    """`metrics.jsonl`, open for appending after the line of `step`. Keys that a line may have:

    step (from 1), tokens (since the beginning, padding counted), loss_nats (mean of the step's whole batch;
    null for a step that was skipped), grad_norm (before clipping; null where it is not finite), lr (AdamW's),
    seconds (of the step alone, without evaluation and checkpoint), tokens_per_second (missing where the step
    compiled or warmed up), micro_batch_size (rows), what the objective reports besides, where the model
    was evaluated, evaluation, such as {"validation": {"bits_per_byte": 1.02}}, and activation_rms, the size of the
    numbers that some layers hand on; what its batch holds and how far its weights move (hornbook.training.signs); and
    rolled_back_from_step where the training went back before this step. A figure that had no finite value is missing.
    """

    def __init__(self, path: Path, step: int) -> None:
        self._path = path
        self._file = self._cut(step)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, record: Record) -> None:
        """Append the record of one step."""
        self._file.write(_line(record))
        self._file.flush()

    def forget_after(self, step: int) -> None:
        """Take back the lines of the steps after `step`, which will be made again."""
        self._file.close()
        self._file = self._cut(step)

    def sync(self) -> None:
        """Flush everything written to the disk: a checkpoint must never be ahead of the log."""
        os.fsync(self._file.fileno())

    def _cut(self, step: int) -> IO[str]:
        kept = [record for record in read_metrics(self._path) if record["step"] <= step]
        atomic_write(self._path, "".join(_line(record) for record in kept))
        return open(self._path, "a", encoding="utf-8", newline="\n")


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
            if BITS_PER_BYTE in measured:
                best_bits_per_byte[name] = min(measured[BITS_PER_BYTE], best_bits_per_byte.get(name, float("inf")))
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
