"""What a run has made, read from its folder alone: no model is loaded, nothing is computed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hornbook.errors import UserError
from hornbook.run_directory import RunDirectory

_MOST_FACTS_SHOWN = 6


def show_run(path: Path, stage_names: Sequence[str], console: Console) -> None:
    """Print the stages that are done, the scores, a sample, and the paths of what was made.

    Raises UserError where `path` is not the folder of a run.
    """
    run = require_run(path)
    records = {name: record for name in stage_names if (record := run.stage(name).record()) is not None}
    console.print(_stages_table(stage_names, records))
    evaluation = records.get("evaluation", {"facts": {}})["facts"]
    if evaluation.get("scores"):
        console.print(_scores_table(evaluation["scores"]))
    if evaluation.get("samples"):
        console.print("\n[bold]A sample[/bold]")
        console.print(escape(evaluation["samples"][0]), highlight=False, soft_wrap=True)
    made = _made_paths(run, stage_names)
    if made:
        console.print("\n[bold]What was made[/bold]")
        for what, where in made:
            console.print(f"  {what}: {where}", highlight=False, soft_wrap=True)


def require_run(path: Path) -> RunDirectory:
    """The run in a folder. Raises UserError where there is none."""
    if not (path / "recipe.toml").is_file():
        raise UserError(
            f"{path}: holds no run (there is no recipe.toml in it). "
            "Give the folder that `hornbook run` made, such as runs/quickstart."
        )
    return RunDirectory(path)


def _stages_table(stage_names: Sequence[str], records: dict[str, dict[str, Any]]) -> Table:
    table = Table("stage", "seconds", "facts", title="Stages", title_justify="left")
    table.columns[1].justify = "right"
    for name in stage_names:
        record = records.get(name)
        if record is None:
            table.add_row(name, "", "not done")
        else:
            table.add_row(name, f"{record['seconds']:.1f}", escape(_headline(record["facts"])))
    return table


def _headline(facts: dict[str, Any]) -> str:
    """The first plain facts in a line: numbers and short texts, but not lists or tables."""
    plain = [(name, value) for name, value in facts.items() if isinstance(value, int | float | str)]
    return " · ".join(
        f"{name.replace('_', ' ')} {_figure(value)}" for name, value in plain[:_MOST_FACTS_SHOWN]
    )


def _figure(value: int | float | str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else value


def _scores_table(scores: dict[str, dict[str, dict[str, float]]]) -> Table:
    """The share of right answers: a row for each suite, a column for each stage and way of answering."""
    table = Table("suite", title="Right answers", title_justify="left")
    columns = [(stage, way) for stage, suites in scores.items() for way in _ways(suites)]
    for stage, way in columns:
        table.add_column(f"after {stage}\n{way}", justify="right")
    suites = list(dict.fromkeys(suite for stage in scores.values() for suite in stage))
    for suite in suites:
        shares = [scores[stage].get(suite, {}).get(way) for stage, way in columns]
        table.add_row(suite, *("" if share is None else f"{share:.0%}" for share in shares))
    return table


def _ways(suites: dict[str, dict[str, float]]) -> list[str]:
    return list(dict.fromkeys(way for shares in suites.values() for way in shares))


def _made_paths(run: RunDirectory, stage_names: Sequence[str]) -> list[tuple[str, Path]]:
    candidates = [("corpus report", run.path / "corpus" / "report.json")]
    for name in stage_names:
        candidates.append((f"loss curve of {name}", run.path / name / "curve.svg"))
        candidates.append((f"model after {name}", run.path / name / "final"))
    candidates += [("exported model", run.path / "export"), ("all figures", run.path / "summary.json")]
    return [(what, where) for what, where in candidates if where.exists()]
