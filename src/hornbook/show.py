"""What a run has made, read from its folder alone: no model is loaded, nothing is computed."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hornbook.evaluation.scores import score_table
from hornbook.planning.score import plan_score_table
from hornbook.run_directory import RunDirectory, open_run

_MOST_FACTS_SHOWN = 6
_MOST_CAUSES_SHOWN = 3


def show_run(path: Path, stage_names: Sequence[str], console: Console) -> None:
    """Print the stages that are done, the scores, a sample, and the paths of what was made.

    Raises UserError where `path` is not the folder of a run.
    """
    run = open_run(path)
    records = {name: record for name in stage_names if (record := run.stage(name).record()) is not None}
    console.print(_stages_table(stage_names, records))
    for name, record in records.items():
        _print_verdict(name, record["facts"], console)
    evaluation = records.get("evaluation", {"facts": {}})["facts"]
    if any(evaluation.get("scores", {}).values()):
        console.print(score_table(evaluation["scores"]))
    if evaluation.get("samples"):
        console.print("\n[bold]A sample[/bold]")
        console.print(escape(evaluation["samples"][0]), highlight=False, soft_wrap=True)
    made = _made_paths(run, records)
    if made:
        console.print("\n[bold]What was made[/bold]")
        for what, where in made:
            console.print(f"  {what}: {where}", highlight=False, soft_wrap=True)


def _print_verdict(stage: str, facts: dict[str, Any], console: Console) -> None:
    """Whether a training went as expected, why perhaps not, and how good its plan was. Older runs say nothing of it."""
    verdict, score = facts.get("verdict"), facts.get("plan_score")
    if verdict is not None:
        colour = "green" if verdict["is_within"] else "red"
        sentence = escape(verdict["sentence"])
        console.print(f"[bold]{stage}[/bold] [{colour}]{sentence}[/{colour}]", highlight=False, soft_wrap=True)
        for cause in verdict["causes"][:_MOST_CAUSES_SHOWN]:
            text = f"  perhaps {cause['name']}: {cause['because']} {cause['check']}"
            console.print(text, markup=False, highlight=False, soft_wrap=True)
    if score is not None:
        console.print(plan_score_table(stage, score))


def _stages_table(stage_names: Sequence[str], records: dict[str, dict[str, Any]]) -> Table:
    table = Table("stage", title="Stages", title_justify="left")
    table.add_column("seconds", justify="right")
    table.add_column("facts", overflow="fold")
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
    return " · ".join(f"{name.replace('_', ' ')} {_figure(value)}" for name, value in plain[:_MOST_FACTS_SHOWN])


def _figure(value: int | float | str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 1000 else f"{value:.4g}"


def _made_paths(run: RunDirectory, done: Collection[str]) -> list[tuple[str, Path]]:
    """What finished stages left. In the folders of the others may lie what an earlier form of the recipe made."""
    candidates = [("corpus", "corpus report", "corpus/report.json")]
    for name in done:
        candidates.append((name, f"loss curve of {name}", f"{name}/curve.svg"))
        candidates.append((name, f"model after {name}", f"{name}/final"))
    candidates.append(("export", "exported model", "export"))
    made = [(what, run.path / where) for stage, what, where in candidates if stage in done]
    if done:
        made.append(("all figures", run.path / "summary.json"))
    return [(what, where) for what, where in made if where.exists()]
