"""`hornbook reference`: run a recipe's trainings with several seeds, and record the curves that it should have.

What comes of it, `NAME.expected.json` beside the recipe, has for each training the mean and the band of its loss and of
the signs that are watched, over tokens, and what its data was like. It holds on every machine; `hornbook run` takes it
along and compares.
"""

import math
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from hornbook.errors import UserError
from hornbook.many_runs import make_data, run_on, seeded
from hornbook.planning.curves import N_WINDOWS
from hornbook.planning.expected import REFERENCE_FILE, record_of, write_reference
from hornbook.recipe import Recipe
from hornbook.run_directory import RunDirectory, read_json
from hornbook.stages.training import BEGINNING_FILE, read_beginning
from hornbook.training.metrics import read_metrics

_LEAST_SEEDS = 2


class Options(Protocol):
    """What is read of the verb's options."""

    recipe: Path
    seeds: int
    runs: Path


def record_reference(options: Options, recipe: Recipe, console: Console) -> None:
    """Run the trainings of a recipe with each seed, and write the reference beside the recipe.

    Runs that are there already go on. The data does not depend on the seed, and is made once. Raises UserError for
    fewer than two seeds, which say nothing of how far runs differ, and for a training that is too short for a curve.
    """
    if options.seeds < _LEAST_SEEDS:
        raise UserError(f"seeds: must be at least {_LEAST_SEEDS}, for a band needs runs that differ; three are better.")
    for name, section in recipe.training_sections.items():
        steps = math.ceil(section.tokens / section.global_batch_tokens)
        if steps < N_WINDOWS:
            raise UserError(
                f"{name}.tokens: a training of {steps} steps is too short: {N_WINDOWS} are needed to draw a curve. "
                f"Give more tokens, or a smaller {name}.global_batch_tokens."
            )
    last = list(recipe.training_sections)[-1]
    data = make_data(recipe, options.runs, console)
    runs = {seed: run_on(data, one, options.runs, last, console) for seed, one in seeded(recipe, options.seeds)}
    path = options.recipe.with_suffix(f".{REFERENCE_FILE}")
    write_reference(path, reference_of(recipe, runs))
    console.print(f"recorded the curves of {options.seeds} seeds: {path}", highlight=False, soft_wrap=True)


def reference_of(recipe: Recipe, runs: dict[int, RunDirectory]) -> dict[str, Any]:
    """The reference that finished runs of one recipe make, by their seeds."""
    stages = {}
    for name in recipe.training_sections:
        folders = {seed: run.stage(name).path for seed, run in runs.items()}
        first = next(iter(folders.values()))
        records = {seed: list(read_metrics(folder / "metrics.jsonl")) for seed, folder in folders.items()}
        beginning = read_beginning(first)
        stages[name] = record_of(records, beginning, read_json(first / BEGINNING_FILE)["data"])
    return {"recipe": recipe.name, "seeds": list(runs), "stages": stages}
