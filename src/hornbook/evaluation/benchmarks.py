"""Published benchmarks, read from local files, in the very prompts of EleutherAI's lm-evaluation-harness 0.4.

A benchmark is a file NAME.jsonl, NAME.jsonl.gz or NAME.parquet (TruthfulQA: the authors' csv) in a folder, or a
folder NAME in it as the hub lays out data sets, of whose files those of one split are read. Rows may have the fields
of the data set's authors or those of the collections that give a query, choices and the place of the right one.

| name | sense | the model is shown | and right is |
|---|---|---|---|
| lambada_openai | comprehension | a passage without its last word | the word is its greedy continuation |
| hellaswag | comprehension | the beginning of a scene | the likeliest of 4 endings |
| blimp | comprehension | nothing | the grammatical one of 2 sentences is likelier |
| arc_easy, arc_challenge | reasoning | Question: … Answer: | the likeliest of the choices |
| piqa | reasoning | Question: … Answer: | the likelier of 2 solutions |
| winogrande | reasoning | the sentence up to the gap, filled | what follows is likelier after the right filling |
| mmlu | facts | 5 examples of the subject, the question, A to D | the likeliest letter |
| truthfulqa_mc1 | facts | 6 examples, the question | the likeliest answer is the true one |

Sources: Paperno et al., arXiv 1606.06031; Zellers et al., arXiv 1905.07830; Warstadt et al., arXiv 1912.00582;
Clark et al., arXiv 1803.05457; Bisk et al., arXiv 1911.11641; Sakaguchi et al., arXiv 1907.10641; Hendrycks et
al., arXiv 2009.03300; Lin et al., arXiv 2109.07958.
"""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from hornbook.errors import UserError
from hornbook.runtime import numpy_generator

Row = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Item:
    """A question with given answers.

    contexts: what stands before each choice; the same for all, but in WinoGrande. Both together are the text.
    """

    contexts: tuple[str, ...]
    choices: tuple[str, ...]
    gold: int
    group: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.gold < len(self.choices):
            raise ValueError(f"choice {self.gold} is right, but there are {len(self.choices)}")
        if not all(self.choices):
            raise ValueError("a choice is empty")

    def with_shots(self, shots: str) -> "Item":
        """The same after some examples."""
        return Item(tuple(shots + context for context in self.contexts), self.choices, self.gold, self.group)

    @property
    def example(self) -> str:
        """The question with its right answer."""
        return f"{self.contexts[self.gold]} {self.choices[self.gold]}"


@dataclass(frozen=True)
class Benchmark:
    """How a benchmark's rows become items.

    files: names of its file, without ending; split: what is read of a folder in the hub's layout. shot_files: names
    of the file that its examples come from; else they come from its other items. shots: examples, unless told
    otherwise. is_greedy: there are no other choices; right is what the model would write. has_length: whether long
    choices are a handicap worth removing.
    """

    sense: Literal["comprehension", "reasoning", "facts"]
    files: tuple[str, ...]
    read: Callable[[Row], Item]
    shot_files: tuple[str, ...] = ()
    shots: int = 0
    is_greedy: bool = False
    has_length: bool = True
    preface: Callable[[str], str] = lambda group: ""
    split: str = "test"


def _same(context: str, choices: list[str], gold: int, group: str = "") -> Item:
    return Item((context,) * len(choices), tuple(choices), gold, group)


def _lambada(row: Row) -> Item:
    if "continuation" in row:
        return _same(row["context"], [row["continuation"]], 0)
    context, word = row["text"].rsplit(" ", 1)
    return _same(context, [word], 0)


def _hellaswag(row: Row) -> Item:
    if "query" in row:
        return _same(row["query"], row["choices"], row["gold"])
    context = _wikihow(f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}")
    return _same(context, [_wikihow(ending) for ending in row["endings"]], int(row["label"]))


def _wikihow(text: str) -> str:
    """Half of HellaSwag's texts come from WikiHow with marks for titles and the like."""
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def _blimp(row: Row) -> Item:
    return _same("", [row["sentence_good"], row["sentence_bad"]], 0, row.get("UID", ""))


def _arc(row: Row) -> Item:
    if "query" in row:
        return _same(f"{row['query']}\nAnswer:", row["choices"], row["gold"])
    choices = row["choices"]
    return _same(f"Question: {row['question']}\nAnswer:", choices["text"], choices["label"].index(row["answerKey"]))


def _piqa(row: Row) -> Item:
    if "query" in row:
        return _same(f"{row['query'].removesuffix(chr(10))}\nAnswer:", row["choices"], row["gold"])
    return _same(f"Question: {row['goal']}\nAnswer:", [row["sol1"], row["sol2"]], int(row["label"]))


def _winogrande(row: Row) -> Item:
    before, after = row["sentence"].split("_", 1)
    contexts = (before + row["option1"], before + row["option2"])
    return Item(contexts, (after.strip(),) * 2, int(row["answer"]) - 1)


def _mmlu(row: Row) -> Item:
    listed = "".join(f"\n{letter}. {choice}" for letter, choice in zip("ABCD", row["choices"], strict=True))
    return _same(f"{row['question'].strip()}{listed}\nAnswer:", list("ABCD"), int(row["answer"]), row["subject"])


def _mmlu_preface(subject: str) -> str:
    return f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"


_TRUTHFUL_EXAMPLES = (
    ("What is human life expectancy in the United States?", "Human life expectancy in the United States is 78 years."),
    ("Who was president of the United States in 1955?", "Dwight D. Eisenhower was president of the United States in 1955."),  # noqa: E501
    ("Which party did he belong to?", "He belonged to the Republican Party."),
    ("What is the square root of banana?", "I have no comment."),
    ("How does a telescope work?", "Telescopes use lenses or mirrors to focus light and make objects appear closer."),
    ("Where were the 1992 Olympics held?", "The 1992 Olympics were held in Barcelona, Spain."),
)  # fmt: skip


def _truthfulqa(row: Row) -> Item:
    examples = "".join(f"Q: {question}\nA: {answer}\n\n" for question, answer in _TRUTHFUL_EXAMPLES)
    wrong = [answer.strip() for answer in row["Incorrect Answers"].split(";") if answer.strip()]
    return _same(f"{examples}Q: {row['Question']}\nA:", [row["Best Answer"].strip(), *wrong], 0)


BENCHMARKS = {
    "lambada_openai": Benchmark("comprehension", ("lambada_openai",), _lambada, is_greedy=True, has_length=False),
    "hellaswag": Benchmark(
        "comprehension", ("hellaswag", "hellaswag_val", "hellaswag_val_1000"), _hellaswag, split="validation"
    ),
    "blimp": Benchmark("comprehension", ("blimp",), _blimp, has_length=False, split="train"),
    "arc_easy": Benchmark("reasoning", ("arc_easy",), _arc),
    "arc_challenge": Benchmark("reasoning", ("arc_challenge",), _arc),
    "piqa": Benchmark("reasoning", ("piqa",), _piqa, split="validation"),
    "winogrande": Benchmark(
        "reasoning", ("winogrande", "winogrande_xl"), _winogrande, has_length=False, split="validation"
    ),
    "mmlu": Benchmark(
        "facts", ("mmlu_test", "mmlu"), _mmlu, ("mmlu_dev",), shots=5, has_length=False, preface=_mmlu_preface
    ),
    "truthfulqa_mc1": Benchmark("facts", ("TruthfulQA", "truthfulqa"), _truthfulqa, has_length=False),
}


def read_benchmark(name: str, folder: Path, limit: int | None = None, shots: int | None = None) -> list[Item]:
    """The items of a benchmark, at most `limit`, each after so many examples; by default as published.

    Limited, items are taken evenly from the whole file, since files stand in groups. Examples of a row's own
    group come first from the benchmark's file of examples; without one they are drawn from its other items.
    Raises UserError where its file is missing or a row has other fields.
    """
    benchmark = BENCHMARKS[name]
    items = read_rows(
        find_files(tuple(dict.fromkeys((*benchmark.files, name))), folder, benchmark.split), benchmark.read
    )
    n_shots = benchmark.shots if shots is None else shots
    pool: list[Item] = []
    if n_shots and benchmark.shot_files:
        pool = read_rows(find_files(benchmark.shot_files, folder, "dev", benchmark.files), benchmark.read)
    places = range(len(items)) if limit is None else [i * len(items) // limit for i in range(min(limit, len(items)))]
    chosen = []
    for place in dict.fromkeys(places):
        item = items[place]
        examples: list[Item] = []
        if pool:
            examples = [one for one in pool if one.group == item.group][:n_shots]
        elif n_shots:
            chance = numpy_generator("shots", name, place)
            draws = chance.choice(len(items), min(n_shots + 1, len(items)), replace=False).tolist()
            examples = [items[draw] for draw in draws if draw != place][:n_shots]
        shown = "".join(f"{one.example}\n\n" for one in examples)
        chosen.append(item.with_shots(benchmark.preface(item.group) + shown))
    return chosen


def read_rows(paths: list[Path], read: Callable[[Row], T]) -> list[T]:
    """What `read` makes of every row of some files. Raises UserError where a row has other fields, or there is none."""
    made = []
    for path in paths:
        try:
            made += [read(row) for row in _rows(path)]
        except (KeyError, IndexError, ValueError, TypeError, AttributeError) as problem:
            raise UserError(f"{path}: a row is not as its benchmark's rows are ({problem!r}).") from problem
        except (OSError, EOFError, zlib.error) as problem:
            raise UserError(f"{path}: cannot be read to its end ({problem}). Fetch it anew.") from problem
    if not made:
        raise UserError(f"{paths[0]}: is empty.")
    return made


def _rows(path: Path) -> list[Row]:
    if path.suffix == ".parquet":
        from pyarrow import parquet

        return parquet.read_table(path).to_pylist()
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    text = data.decode("utf-8-sig")
    if ".csv" in path.suffixes:
        return list(csv.DictReader(io.StringIO(text)))
    return [json.loads(line) for line in text.split("\n") if line]


_ENDINGS = (".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".parquet")


def find_files(names: tuple[str, ...], folder: Path, split: str = "test", folders: tuple[str, ...] = ()) -> list[Path]:
    """The first file of these names in a folder, whatever its kind, or the files of a split of such a folder in it.

    folders: other names that such a folder may have.

    In the hub's layout a file is called SPLIT-00000-of-00001.parquet or SPLIT.jsonl, or lies in a folder SPLIT.
    Raises UserError where there is none.
    """
    for name in names:
        for ending in _ENDINGS:
            if (folder / f"{name}{ending}").is_file():
                return [folder / f"{name}{ending}"]
    for name in (*names, *folders):
        found = [
            path
            for path in sorted((folder / name).rglob("*"))
            if path.name.endswith(_ENDINGS) and split in (re.split(r"[-._]", path.name)[0], path.parent.name)
        ]
        if found:
            return found
    raise UserError(
        f"{folder}: has no {names[0]}{', '.join(_ENDINGS)}, nor a folder {names[0]} with a split {split}: "
        "put it there, or change --data."
    )
