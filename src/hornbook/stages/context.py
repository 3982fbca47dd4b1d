"""What every stage is handed: the recipe, the run's folder, its own folder, and where to report progress."""

from dataclasses import dataclass, field

from rich.console import Console

from hornbook.parallel.processes import Processes
from hornbook.recipe import Recipe
from hornbook.run_directory import RunDirectory, StageDirectory


@dataclass(frozen=True)
class StageContext:
    """A stage writes into `stage.path`, and reads other stages' folders through `run.stage(name).path`.

    processes: those that run the stage together; what is written, rank 0 writes.
    """

    recipe: Recipe
    run: RunDirectory
    stage: StageDirectory
    console: Console
    processes: Processes = field(default_factory=Processes)
