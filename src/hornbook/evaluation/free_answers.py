"""Benchmarks whose answers are written, not chosen, in the prompts and with the grading of EleutherAI's harness 0.4.

| name | sense | the model is shown | and right is |
|---|---|---|---|
| triviaqa | facts | Question: … Answer: | what it writes up to a line end, full stop or comma, as one of the aliases |
| gsm8k | reasoning | 5 worked examples, the question | the number after ####, as the answer's |

The harness draws GSM8K's examples at random; here they are the first of the training file, the same for every item.
Sources: Joshi et al., arXiv 1705.03551; Cobbe et al., arXiv 2110.14168.
"""

import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hornbook.evaluation.benchmarks import Row, find_files, read_rows
from hornbook.evaluation.scores import share, standard_error
from hornbook.inference.engine import Engine
from hornbook.inference.text import TextStream

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_MARKED_NUMBER = re.compile(r"#### (-?[0-9.,]+)")


@dataclass(frozen=True)
class Asked:
    """A question, and every answer that is right."""

    prompt: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class FreeBenchmark:
    """How a benchmark's rows become questions, where an answer ends, and what counts of it."""

    sense: Literal["comprehension", "reasoning", "facts"]
    files: tuple[str, ...]
    read: Callable[[Row], Asked]
    example: Callable[[Row], str]
    stop_strings: tuple[str, ...]
    new_tokens: int
    normalise: Callable[[str], str]
    shot_files: tuple[str, ...] = ()
    shots: int = 0
    split: str = "test"


@dataclass(frozen=True)
class Written:
    """What a model wrote, and whether it is right."""

    text: str
    is_right: bool


def _triviaqa(row: Row) -> Asked:
    if "context" in row:
        return Asked(row["context"], tuple(row["aliases"]))
    return Asked(f"Question: {row['question']}?\nAnswer:", tuple(row["answer"]["aliases"]))


def _triviaqa_example(row: Row) -> str:
    asked = _triviaqa(row)
    return f"{asked.prompt} {row['answer'] if 'context' in row else row['answer']['value']}"


def _gsm8k(row: Row) -> Asked:
    return Asked(f"Question: {row['question']}\nAnswer:", (row["answer"],))


def _plain(text: str) -> str:
    return text.strip().lower().translate(_PUNCTUATION)


def _marked_number(text: str) -> str:
    """The number that an answer ends in; an answer without one equals none."""
    found = _MARKED_NUMBER.search(text)
    return found.group(1).replace(",", "").removesuffix(".") if found else ""


FREE_BENCHMARKS = {
    "triviaqa": FreeBenchmark(
        "facts",
        ("triviaqa", "triviaqa_sm_sub"),
        _triviaqa,
        _triviaqa_example,
        ("\n", ".", ","),
        32,
        _plain,
        split="validation",
    ),
    "gsm8k": FreeBenchmark(
        "reasoning",
        ("gsm8k_test", "gsm8k"),
        _gsm8k,
        lambda row: f"Question: {row['question']}\nAnswer: {row['answer']}",
        ("Question:",),
        256,
        _marked_number,
        ("gsm8k_train",),
        5,
    ),
}


def read_free(name: str, folder: Path, limit: int | None = None, shots: int | None = None) -> list[Asked]:
    """The questions of a benchmark, at most `limit` taken evenly, each after so many examples of its training file.

    Raises UserError where a file is missing or a row has other fields, and where examples are wanted of which
    there is no file.
    """
    benchmark = FREE_BENCHMARKS[name]
    asked = read_rows(find_files(benchmark.files, folder, benchmark.split), benchmark.read)
    n_shots = benchmark.shots if shots is None else shots
    shown = ""
    if n_shots:
        files = find_files(benchmark.shot_files or (f"{name}_train",), folder, "train", benchmark.files)
        examples = read_rows(files, benchmark.example)
        shown = "".join(f"{example}\n\n" for example in examples[:n_shots])
    n = len(asked) if limit is None else min(limit, len(asked))
    chosen = [asked[place * len(asked) // n] for place in range(n)]
    return [Asked(shown + one.prompt, one.answers) for one in chosen]


def write_answers(engine: Engine, name: str, questions: Sequence[Asked]) -> list[Written]:
    """What the model writes greedily after each prompt, up to the benchmark's stop strings, graded."""
    benchmark = FREE_BENCHMARKS[name]
    prompts = [engine.tokenizer.encode(one.prompt) for one in questions]
    written = []
    for one, tokens in zip(questions, engine.generate(prompts, benchmark.new_tokens), strict=True):
        stream = TextStream(engine.tokenizer, benchmark.stop_strings)
        text = "".join([*(stream.add(token) for token in tokens), stream.finish()])
        found = benchmark.normalise(text)
        written.append(Written(text, bool(found) and found in map(benchmark.normalise, one.answers)))
    return written


def free_scores(written: Sequence[Written]) -> dict[str, Any]:
    """The share of right answers with its standard error; guessing gets none."""
    right = [one.is_right for one in written]
    return {"accuracy": share(right), "accuracy_stderr": standard_error(right), "chance": 0.0, "n": len(right)}
