"""Do our quality rules keep and drop the same documents as datatrove's filters?

    python benchmarks/corpus.py agreement --peer-python VENV/bin/python --data FOLDER [--to disagreements.jsonl]

VENV has datatrove 0.10.1, spacy and regex. FOLDER/web has the web samples. Both sides judge the same documents,
first with the same splitter into words and sentences (our patterns, in datatrove's place for a tokenizer), then
datatrove with its own spaCy splitter. Each document on which the two differ is written with what both sides say
and what ours measured, so that each can be explained.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import TextIO

import pyarrow
from corpus_parts.datatrove_peer import SECTIONS, Worker, read_web_samples

from hornbook.corpus import filters
from hornbook.corpus.text_batch import text_batches
from hornbook.recipe_data import FilterSection

TARGET = 0.995
RULES_DIFFER = "the two differ with the same words and sentences: they count something else"
SPLITTERS_DIFFER = "with the same words and sentences the two agree: spaCy cuts others"


def main() -> None:
    """Print a table, write the disagreements, and exit with status 1 where the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--to", type=Path, default=Path("disagreements.jsonl"))
    options = parser.parse_args()
    documents = read_web_samples(options.data)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "documents.json"
        path.write_text(json.dumps([text for _, text in documents]), encoding="utf-8")
        with Worker(options.peer_python, path) as worker, options.to.open("w", encoding="utf-8") as file:
            raise SystemExit(0 if compare(worker, documents, file) else 1)


def compare(worker: Worker, documents: list[tuple[str, str]], file: TextIO) -> bool:
    """Print how often both agree on each filter; whether all reach the target with the same splitter."""
    is_good = True
    rules_differ: set[tuple[str, int]] = set()
    print(f"{len(documents):,} documents\n{'filter':22} {'splitter':8} {'kept':>5} {'agree':>8} differ  same text")
    for splitter in ("ours", "spacy"):
        for name, section in SECTIONS.items():
            worker.ask(splitter, [name], with_texts=True)
            edit = filters.line_editor(section) or str
            texts = [edit(text) for _, text in documents]
            rules = filters.rules_broken_by(pyarrow.array(texts), section).to_pylist()
            answer = worker.answer()
            differ = [n for n, why in enumerate(answer["reasons"]) if (why is None) != (not rules[n])]
            both_keep = [n for n, why in enumerate(answer["reasons"]) if why is None and not rules[n]]
            same_text = sum(texts[n].split() == answer["texts"][n].split() for n in both_keep)
            share = 1 - len(differ) / len(documents)
            is_good &= splitter == "spacy" or share >= TARGET
            print(
                f"{name:22} {splitter:8} {sum(not broken for broken in rules):5} {share:8.2%} {len(differ):6}  "
                f"{same_text}/{len(both_keep)}"
            )
            if splitter == "ours":
                rules_differ |= {(name, n) for n in differ}
            for n in differ:
                row = {
                    "filter": name,
                    "splitter": splitter,
                    "document": documents[n][0],
                    "datatrove": answer["reasons"][n] or "kept",
                    "ours": rules[n] or "kept",
                    "measured": measured(texts[n], section),
                    "explanation": SPLITTERS_DIFFER if (name, n) not in rules_differ else RULES_DIFFER,
                }
                print(json.dumps(row, ensure_ascii=False), file=file)
    return is_good


def measured(text: str, section: FilterSection) -> dict[str, list[float]]:
    """What our rules measure of one text, each with its threshold."""
    (batch,) = text_batches(pyarrow.array([text]))
    thresholds = {name: getattr(section, name) for name in filters.MEASURES}
    return {
        name: [round(float(filters.MEASURES[name](batch)[0]), 4), threshold]
        for name, threshold in thresholds.items()
        if threshold is not None
    }
