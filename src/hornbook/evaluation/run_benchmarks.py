"""`hornbook eval --tasks`: benchmarks on one model or, side by side with a paired test, on two."""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from hornbook.errors import UserError
from hornbook.evaluation.benchmarks import BENCHMARKS, Benchmark, find_files, read_benchmark
from hornbook.evaluation.core import core_scores
from hornbook.evaluation.free_answers import FREE_BENCHMARKS, FreeBenchmark, free_scores, read_free, write_answers
from hornbook.evaluation.likelihood import benchmark_scores, judge, paired_test
from hornbook.evaluation.picture import draw_scores
from hornbook.inference.engine import Engine
from hornbook.inference.load import TUNED_STAGES, EngineOptions, find_model, load_engine
from hornbook.run_directory import write_json

TASKS: dict[str, Benchmark | FreeBenchmark] = {**BENCHMARKS, **FREE_BENCHMARKS}


@dataclass(frozen=True)
class Asking:
    """What is asked: names of tasks, "all" being those whose files are there, "core" those of DCLM's aggregate.

    data: the folder of their files. limit: items of each. shots: examples, else as published. int8: with weights
    held so.
    """

    tasks: str
    data: Path
    limit: int | None = None
    shots: int | None = None
    int8: bool = False


def run_benchmarks(models: list[Path], asking: Asking, as_json: bool, to: Path | None, picture: Path | None) -> None:
    """Ask one model or two each of the tasks, and print what came of it.

    models: runs, of which the pretrained model is taken, or folders in Hugging Face's layout. to: a file for
    the scores and the judgement of every item. picture: a file for a chart of the scores. Raises UserError as
    `find_model` and `read_benchmark` do.
    """
    if picture is not None and picture.suffix not in (".svg", ".png", ".pdf"):
        raise UserError(f"--picture {picture}: ends in none of .svg, .png and .pdf.")
    options = EngineOptions("float32", asking.int8)
    if asking.tasks == "core":
        engines = [load_engine(find_model(model, ("pretrain", *TUNED_STAGES)), options) for model in models]
        of_models = [core_scores(engine, asking.data, asking.limit) for engine in engines]
        written: dict[str, Any] = {"models": [str(model) for model in models], "core": of_models}
        _finish(written, {}, as_json, to)
        if not as_json:
            Console().print(_core_table([model.name for model in models], of_models))
        return
    asks = read_tasks(asking)
    engines = [load_engine(find_model(model, ("pretrain", *TUNED_STAGES)), options) for model in models]
    scores, items = ask(engines, asks)
    written = {"models": [str(model) for model in models], "tasks": scores}
    _finish(written, items, as_json, to)
    if picture is not None:
        draw_scores([model.name for model in models], scores, picture)
    if not as_json:
        Console().print(score_table([model.name for model in models], scores))


def read_tasks(asking: Asking) -> dict[str, list[Any]]:
    """The items of every task that is asked for. Raises UserError for a name that is none, and as the readers do."""
    names = _there(asking.data) if asking.tasks == "all" else [name.strip() for name in asking.tasks.split(",")]
    for name in names:
        if name not in TASKS:
            raise UserError(f"--tasks: {name} is no benchmark here. There are: {', '.join(TASKS)}, and core, alone.")
    return {name: _reader(name)(name, asking.data, asking.limit, asking.shots) for name in names}


def ask(engines: list[Engine], asks: dict[str, list[Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The scores of every task, of two models with their paired test; and the judgement of every item."""
    scores: dict[str, Any] = {}
    items: dict[str, Any] = {}
    for name, asked in asks.items():
        answers = [_answer(engine, name, asked) for engine in engines]
        scores[name] = {"sense": TASKS[name].sense, "models": [of_model for of_model, _ in answers]}
        items[name] = [records for _, records in answers]
        if len(engines) == 2:
            scores[name]["paired"] = paired_test(*([one["right"] for one in records] for _, records in answers))
    return scores, items


def _finish(written: dict[str, Any], items: dict[str, Any], as_json: bool, to: Path | None) -> None:
    if to is not None:
        write_json(to, written | ({"items": items} if items else {}))
    if as_json:
        print(json.dumps(written, indent=2))


def _reader(name: str) -> Callable[..., list[Any]]:
    return read_benchmark if name in BENCHMARKS else read_free


def _answer(engine: Engine, name: str, asked: list[Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One model's scores, and a record of each item."""
    if name in FREE_BENCHMARKS:
        written = write_answers(engine, name, asked)
        return free_scores(written), [{"right": one.is_right, "text": one.text} for one in written]
    judged = judge(engine, asked)
    records = [
        {"right": one.is_right, "right_normalised": one.is_right_normalised, "gold": one.item.gold, "nats": one.nats}
        for one in judged
    ]
    return benchmark_scores(judged, BENCHMARKS[name].has_length), records


def files_of(name: str, data: Path) -> list[Path]:
    """The files that a benchmark is read from, none where they are missing."""
    benchmark = TASKS[name]
    found: list[Path] = []
    for names, split in (
        (benchmark.files, benchmark.split),
        (benchmark.shot_files, "dev"),
        (benchmark.shot_files, "train"),
    ):
        if names:
            with suppress(UserError):
                found += find_files(names, data, split, benchmark.files)
    return list(dict.fromkeys(found))


def _there(data: Path) -> list[str]:
    names = []
    for name in TASKS:
        with suppress(UserError):
            _reader(name)(name, data, 1)
            names.append(name)
    if not names:
        raise UserError(f"--data {data}: has the file of no benchmark. There are: {', '.join(TASKS)}.")
    return names


def score_table(names: list[str], scores: dict[str, Any]) -> Table:
    """The scores of one model or two side by side, a row for each task."""
    table = Table(title="Right answers in percent, ± standard error", title_justify="left")
    # The table of two models has no room for the senses, and the order of tasks shows them.
    is_alone = len(names) == 1
    table.add_column("task", no_wrap=True)
    if is_alone:
        table.add_column("sense", no_wrap=True)
    table.add_column("guess", justify="right")
    for name in names:
        table.add_column(f"{name}\nright", justify="right")
        table.add_column("per\nlength", justify="right")
    table.add_column("items", justify="right")
    if not is_alone:
        table.add_column("difference\n(p)", justify="right")
    for task, of_task in scores.items():
        cells = [task, *([of_task["sense"]] if is_alone else []), f"{100 * of_task['models'][0]['chance']:.0f}"]
        for one in of_task["models"]:
            cells += [_cell(one, "accuracy"), _cell(one, "normalised") if "normalised" in one else ""]
        cells.append(str(of_task["models"][0]["n"]))
        if "paired" in of_task:
            paired = of_task["paired"]
            cells.append(f"{100 * paired['difference']:+.1f} ({paired['p_value']:.2g})")
        table.add_row(*cells)
    return table


def _core_table(names: list[str], of_models: list[dict[str, Any]]) -> Table:
    table = Table(
        title="CORE: right answers in percent, and centered: guessing is 0, all right 1", title_justify="left"
    )
    table.caption_justify = "left"
    table.add_column("task", no_wrap=True)
    for name in names:
        table.add_column(f"{name}\nright", justify="right")
        table.add_column("centered", justify="right")
    for task in of_models[0]["tasks"]:
        of_task = [one["tasks"][task] for one in of_models]
        table.add_row(task, *(cell for one in of_task for cell in (_cell(one, "accuracy"), f"{one['centered']:+.3f}")))
    missing = of_models[0]["missing"]
    if missing:
        table.caption = f"No CORE: the files of {len(missing)} tasks are missing: {', '.join(missing)}."
    else:
        table.add_row("CORE", *(cell for one in of_models for cell in ("", f"{one['core']:.4f}")))
    return table


def _cell(scores: dict[str, Any], key: str) -> str:
    return f"{100 * scores[key]:.1f} ± {100 * scores[f'{key}_stderr']:.1f}"
