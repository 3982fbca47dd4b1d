"""`hornbook eval --tasks`: benchmarks on one model or, side by side with a paired test, on two."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from hornbook.errors import UserError
from hornbook.evaluation.benchmarks import BENCHMARKS, Benchmark, read_benchmark
from hornbook.evaluation.free_answers import FREE_BENCHMARKS, FreeBenchmark, free_scores, read_free, write_answers
from hornbook.evaluation.likelihood import benchmark_scores, judge, paired_test
from hornbook.inference.engine import Engine
from hornbook.inference.load import find_model, load_engine
from hornbook.run_directory import write_json

TASKS: dict[str, Benchmark | FreeBenchmark] = {**BENCHMARKS, **FREE_BENCHMARKS}


def run_benchmarks(
    models: list[Path], tasks: str, data: Path, limit: int | None, shots: int | None, as_json: bool, to: Path | None
) -> None:
    """Ask one model or two each of the tasks, "all" being those whose files are there, and print what came of it.

    models: runs, of which the pretrained model is taken, or folders in Hugging Face's layout. to: a file for
    the scores and the judgement of every item. Raises UserError as `find_model` and `read_benchmark` do.
    """
    names = _there(data) if tasks == "all" else [name.strip() for name in tasks.split(",")]
    for name in names:
        if name not in TASKS:
            raise UserError(f"--tasks: {name} is no benchmark here. There are: {', '.join(TASKS)}.")
    asks = {name: _reader(name)(name, data, limit, shots) for name in names}
    engines = [load_engine(find_model(model, ("pretrain", "finetune")), "float32") for model in models]
    scores: dict[str, Any] = {}
    items: dict[str, Any] = {}
    for name, asked in asks.items():
        answers = [_answer(engine, name, asked) for engine in engines]
        scores[name] = {"sense": TASKS[name].sense, "models": [of_model for of_model, _ in answers]}
        items[name] = [records for _, records in answers]
        if len(models) == 2:
            scores[name]["paired"] = paired_test(*([one["right"] for one in records] for _, records in answers))
    written = {"models": [str(model) for model in models], "tasks": scores}
    if to is not None:
        write_json(to, written | {"items": items})
    if as_json:
        print(json.dumps(written, indent=2))
    else:
        Console().print(_table([model.name for model in models], scores))


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


def _there(data: Path) -> list[str]:
    names = []
    for name in TASKS:
        with suppress(UserError):
            _reader(name)(name, data, 1)
            names.append(name)
    if not names:
        raise UserError(f"--data {data}: has the file of no benchmark. There are: {', '.join(TASKS)}.")
    return names


def _table(names: list[str], scores: dict[str, Any]) -> Table:
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


def _cell(scores: dict[str, Any], key: str) -> str:
    return f"{100 * scores[key]:.1f} ± {100 * scores[f'{key}_stderr']:.1f}"
