"""CORE, the aggregate of 22 tasks by which DataComp-LM compares base models (Li et al., arXiv 2406.11794).

Each task's accuracy is centered, so that guessing is 0 and everything right is 1, and CORE is the mean. It is given
only where the files of all 22 are there; a mean over some of them compares with nothing.

The files are those of the paper's evaluation, NAME.jsonl or NAME.jsonl.gz, in three kinds: a query with choices, a
continuation after one of several contexts, and a context whose continuation has to be written greedily to the last
token. A choice's likelihood is taken per token. Examples are drawn from the task's other items, by hashing; the
authors draw theirs from a seeded global generator, so single items can differ where there are examples.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hornbook.errors import UserError
from hornbook.evaluation.benchmarks import Row, find_files, read_rows
from hornbook.evaluation.likelihood import encode_pair, ends_of_contexts
from hornbook.evaluation.scores import share, standard_error
from hornbook.inference.engine import Engine
from hornbook.runtime import numpy_generator


@dataclass(frozen=True)
class CoreTask:
    """names: of its file. shots: examples before each item. joint: after the context; a blank follows it.

    guessing: the share that a baseline without understanding gets: guessing among the choices, or what is
    written here where the paper takes another.
    """

    names: tuple[str, ...]
    shots: int
    joint: str = ""
    guessing: float | None = None


_ANSWER = "\nAnswer:"
CORE_TASKS = {
    "hellaswag_zeroshot": CoreTask(("hellaswag", "hellaswag_val_1000"), 0),
    "hellaswag": CoreTask(("hellaswag", "hellaswag_val_1000"), 10),
    "jeopardy": CoreTask(("jeopardy", "jeopardy_all"), 10, _ANSWER),
    "bigbench_qa_wikidata": CoreTask(("bigbench_qa_wikidata",), 10),
    "arc_easy": CoreTask(("arc_easy",), 10, _ANSWER),
    "arc_challenge": CoreTask(("arc_challenge",), 10, _ANSWER),
    "copa": CoreTask(("copa",), 0),
    "commonsense_qa": CoreTask(("commonsense_qa",), 10),
    "piqa": CoreTask(("piqa",), 10, _ANSWER),
    "openbook_qa": CoreTask(("openbook_qa",), 0),
    "lambada_openai": CoreTask(("lambada_openai",), 0),
    "winograd": CoreTask(("winograd_wsc", "winograd"), 0),
    "winogrande": CoreTask(("winogrande",), 0),
    "bigbench_dyck_languages": CoreTask(("bigbench_dyck_languages",), 10),
    "agi_eval_lsat_ar": CoreTask(("agi_eval_lsat_ar",), 3),
    "bigbench_cs_algorithms": CoreTask(("bigbench_cs_algorithms",), 10),
    "bigbench_operators": CoreTask(("bigbench_operators",), 10),
    "bigbench_repeat_copy_logic": CoreTask(("bigbench_repeat_copy_logic",), 10),
    "squad": CoreTask(("squad",), 10),
    "coqa": CoreTask(("coqa",), 0),
    # Always "yes" is right that often.
    "boolq": CoreTask(("boolq",), 10, _ANSWER, guessing=0.62),
    "bigbench_language_identification": CoreTask(("bigbench_language_identification",), 10),
}


@dataclass(frozen=True)
class _Item:
    contexts: tuple[str, ...]
    choices: tuple[str, ...]
    gold: int

    def __post_init__(self) -> None:
        if not 0 <= self.gold < len(self.choices) or not all(self.choices):
            raise ValueError(f"choice {self.gold} of {len(self.choices)} is right, or a choice is empty")

    def text(self, joint: str) -> str:
        return f"{self.contexts[self.gold].rstrip()}{joint} {self.choices[self.gold]}"


def _item(row: Row) -> _Item:
    if "context_options" in row:
        n = len(row["context_options"])
        return _Item(tuple(row["context_options"]), (row["continuation"],) * n, int(row["gold"]))
    if "choices" in row:
        return _Item((row["query"],) * len(row["choices"]), tuple(row["choices"]), int(row["gold"]))
    return _Item((row["context"],), (row["continuation"] if "continuation" in row else row["answer"],), 0)


def read_core(name: str, folder: Path, limit: int | None = None) -> list[_Item]:
    """The items of a task, at most `limit` taken evenly, with their examples. Raises UserError as `read_rows` does."""
    task = CORE_TASKS[name]
    items = read_rows(find_files(task.names, folder), _item)
    n = len(items) if limit is None else min(limit, len(items))
    chosen = []
    for place in (i * len(items) // n for i in range(n)):
        draws = numpy_generator("core", name, place).choice(len(items), min(task.shots + 1, len(items)), replace=False)
        others = [items[draw] for draw in draws.tolist() if draw != place][: task.shots]
        shown = "".join(f"{other.text(task.joint)}\n\n" for other in others)
        item = items[place]
        chosen.append(
            _Item(tuple(f"{shown}{one.rstrip()}{task.joint}" for one in item.contexts), item.choices, item.gold)
        )
    return chosen


def core_scores(engine: Engine, folder: Path, limit: int | None = None) -> dict[str, Any]:
    """Accuracy and centered accuracy of every task whose file is there, their mean if all are, and which are missing.

    Raises UserError where there is none.
    """
    tasks: dict[str, dict[str, float]] = {}
    for name, task in CORE_TASKS.items():
        with suppress(UserError):
            find_files(task.names, folder)
            tasks[name] = {}
    if not tasks:
        raise UserError(f"--data {folder}: has the file of no task of CORE, such as arc_easy.jsonl.")
    for name in tasks:
        tasks[name] = _score(engine, CORE_TASKS[name].guessing, read_core(name, folder, limit))
    missing = [name for name in CORE_TASKS if name not in tasks]
    core = None if missing else sum(one["centered"] for one in tasks.values()) / len(tasks)
    return {"core": core, "missing": missing, "tasks": tasks}


def _score(engine: Engine, guessing: float | None, items: Sequence[_Item]) -> dict[str, float]:
    pairs = [
        encode_pair(context, f" {choice}", engine.tokenizer)
        for item in items
        for context, choice in zip(item.contexts, item.choices, strict=True)
    ]
    shown = ends_of_contexts(pairs, engine)
    scored = iter(zip(engine.score_greedy(shown, [choice for _, choice in pairs]), pairs, strict=True))
    right = []
    for item in items:
        answers = [next(scored) for _ in item.choices]
        if len(answers) == 1:
            right.append(answers[0][0][1])
        else:
            per_token = [nats / len(choice) for (nats, _), (_, choice) in answers]
            right.append(all(per_token[item.gold] > one for k, one in enumerate(per_token) if k != item.gold))
    accuracy = share(right)
    chance = sum(1 / len(item.choices) if len(item.choices) > 1 else 0.0 for item in items) / len(items)
    guessing = chance if guessing is None else guessing
    return {
        "accuracy": accuracy,
        "accuracy_stderr": standard_error(right),
        "guessing": guessing,
        "centered": (accuracy - guessing) / (1 - guessing),
        "n": len(items),
    }
