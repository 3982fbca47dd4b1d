"""What is told of a training while it goes on: metrics.jsonl, the trackers and the progress, by one process alone."""

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from hornbook.parallel.mesh import Mesh
from hornbook.recipe_training import TrainingSection
from hornbook.training.metrics import MetricsLog, Record, TrainingResult, read_metrics, summarize, with_finite_figures
from hornbook.training.progress import ProgressDisplay, Yardstick
from hornbook.training.tracking import Trackers


class Reporting:
    """A context that takes the records of the steps after `step`. Only rank 0 writes and shows them."""

    def __init__(
        self,
        directory: Path,
        step: int,
        total_steps: int,
        section: TrainingSection,
        console: Console,
        mesh: Mesh,
        yardstick: Yardstick | None,
    ) -> None:
        self._stack = ExitStack()
        self._is_first = mesh.is_first
        if self._is_first:
            self._log = MetricsLog(metrics_path(directory), step)
            self._trackers = Trackers(section.tracking, directory, step)
            self._progress = ProgressDisplay(console, directory.name, step, total_steps, mesh.device, yardstick)

    def __enter__(self) -> "Reporting":
        if self._is_first:
            for context in (self._log, self._trackers, self._progress):
                self._stack.enter_context(context)
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._stack.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)

    def write(self, record: Record) -> None:
        """Keep and show the record of one step."""
        if self._is_first:
            record = with_finite_figures(record)
            self._log.write(record)
            self._trackers.log(record)
            self._progress.show(record)

    def forget_after(self, step: int) -> None:
        """Take back the records of the steps after `step`, which will be made again."""
        if self._is_first:
            self._log.forget_after(step)

    def sync(self) -> None:
        """Flush the records to the disk: a checkpoint must never be ahead of them."""
        if self._is_first:
            self._log.sync()


def metrics_path(directory: Path) -> Path:
    return directory / "metrics.jsonl"


def result_of(directory: Path, mesh: Mesh) -> TrainingResult:
    """The result of the training that was reported in a folder; rank 0 reads it for all."""
    found = mesh.processes.first_does(lambda: asdict(summarize(read_metrics(metrics_path(directory)))))
    return TrainingResult(**found)
