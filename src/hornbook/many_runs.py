"""Several runs of one recipe that differ in their training alone: corpus, tokenizer and tokens are made once."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from hornbook.pipeline import Selection, run_pipeline
from hornbook.recipe import Recipe
from hornbook.run_directory import RunDirectory

DATA_STAGES = ("corpus", "tokenizer", "tokens")


def make_data(recipe: Recipe, runs: Path, console: Console) -> RunDirectory:
    """A run of the recipe's data alone, in the folder NAME-data; nothing is made where the recipe has no corpus."""
    named = recipe.model_copy(update={"name": f"{recipe.name}-data"})
    if recipe.pretrain is None:
        return RunDirectory(runs / named.name)
    return run_pipeline(named, runs, Selection(until="tokens"), console)


def run_on(data: RunDirectory, recipe: Recipe, runs: Path, until: str, console: Console) -> RunDirectory:
    """Run a recipe of the same data up to a stage; what is made already is taken as it is, file by file, not copied."""
    for name in DATA_STAGES:
        source, target = data.stage(name).path, runs / recipe.name / name
        if source.is_dir() and not target.exists():
            shutil.copytree(source, target, copy_function=_link)
    return run_pipeline(recipe, runs, Selection(until=until), console)


def seeded(recipe: Recipe, seeds: int) -> Iterator[tuple[int, Recipe]]:
    """The recipe with each of so many seeds, under a name of its own."""
    for seed in range(recipe.seed, recipe.seed + seeds):
        yield seed, recipe.model_copy(update={"seed": seed, "name": f"{recipe.name}-seed{seed}"})


def _link(source: str, target: str) -> None:
    """One file under a second name; a copy where the file system knows no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
