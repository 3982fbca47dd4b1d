"""How many documents a second our quality rules judge, side by side with datatrove's filters.

    python benchmarks/corpus.py speed --peer-python VENV/bin/python --data FOLDER

VENV has datatrove 0.10.1, spacy and regex. FOLDER/web has the web samples. Both sides judge the same documents,
by turns, three times; the median counts. On one core the seconds are those of the processor, so that other work
on the machine disturbs less. On both cores datatrove has two processes, each with half of the documents, as its
local executor would, and ours is one Daft query; the seconds are those of the clock. datatrove stops at the
first rule that a document breaks; ours finds all of them. Its splitter is spaCy's, and then the fastest regular
expression that will do.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow
from corpus_parts.datatrove_peer import SECTIONS, Worker, read_web_samples

from hornbook.corpus import filters
from hornbook.corpus.engine import load_daft
from hornbook.recipe_data import FilterSection

TARGETS = {"spacy": 25, "fastest": 3}
# spaCy takes so long that fewer documents will do.
EACH = {"spacy": 8, "fastest": 2}
ROUNDS = 3
ALL = ["gopher_quality", "gopher_repetition", "c4", "fineweb"]


def main() -> None:
    """Print a table of documents per second, and exit with status 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    texts = [text for _, text in read_web_samples(options.data)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "documents.json"
        path.write_text(json.dumps(texts), encoding="utf-8")
        with Worker(options.peer_python, path) as one, Worker(options.peer_python, path) as other:
            raise SystemExit(0 if compare(texts, one, other) else 1)


def compare(texts: list[str], one: Worker, other: Worker) -> bool:
    """Print the table; whether all filters together reach the targets on one core and on both."""
    is_good = True
    print(f"{'filters':18} {'splitter':8} {'cores':>5} {'datatrove':>10} {'ours':>8}  documents/s")
    for splitter in ("spacy", "fastest"):
        for names in ([name] for name in ALL):
            ratio(texts, splitter, names, 1, one, other)
        for cores in (1, 2):
            is_good &= ratio(texts, splitter, ALL, cores, one, other) >= TARGETS[splitter]
    return is_good


def ratio(texts: list[str], splitter: str, names: list[str], cores: int, one: Worker, other: Worker) -> float:
    """Print one line of the table, and return how many times datatrove's speed is ours."""
    each = EACH[splitter]
    sample = texts[::each]
    sections = [SECTIONS[name] for name in names]
    fields = {field: value for section in sections for field, value in section if value is not None}
    ours = our_run(sample, FilterSection(**{**fields, "preset": ()}), cores)
    workers = [one, other][:cores]
    seconds: dict[str, list[float]] = {"theirs": [], "ours": []}
    for number in range(ROUNDS + 1):
        for first, worker in enumerate(workers):
            worker.ask(splitter, names, first * each, cores * each)
        clock = "cpu_seconds" if cores == 1 else "seconds"
        theirs = max(worker.answer()[clock] for worker in workers)
        own = ours()
        if number:  # the first round loads what the others find loaded
            seconds["theirs"].append(theirs)
            seconds["ours"].append(own)
    speed = {side: len(sample) / statistics.median(values) for side, values in seconds.items()}
    times = speed["ours"] / speed["theirs"]
    name = names[0] if len(names) == 1 else "all"
    print(
        f"{name:18} {splitter:8} {cores:5} {speed['theirs']:10,.0f} {speed['ours']:8,.0f}  {times:6.1f} times",
        flush=True,
    )
    return times


def our_run(texts: list[str], section: FilterSection, cores: int) -> Callable[[], float]:
    """A function that judges the texts and returns the seconds it took."""
    edit = filters.line_editor(section)
    array = pyarrow.array(texts, pyarrow.large_string())

    def on_one_core() -> float:
        started = time.process_time()
        edited = array if edit is None else pyarrow.array([edit(text) for text in array.to_pylist()])
        filters.rules_broken_by(edited, section)
        return time.process_time() - started

    daft = load_daft()
    frame = daft.from_arrow(pyarrow.table({"text": array})).into_batches(64).collect()
    judged = frame.select(filters.broken_rules(filters.edit_lines(daft.col("text"), section), section))

    def on_all_cores() -> float:
        started = time.perf_counter()
        judged.to_arrow()
        return time.perf_counter() - started

    return on_one_core if cores == 1 else on_all_cores
