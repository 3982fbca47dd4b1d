"""The second stage: a vocabulary is learned from the corpus, or comes with the model that training goes on from."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hornbook.corpus.documents import read_texts
from hornbook.run_directory import write_json
from hornbook.stages.context import StageContext
from hornbook.tokenizer.tokenizer import Tokenizer, compression_report

TRAINING_BYTES = 100_000_000
"""Text that the vocabulary is learned from, at most: more of the same hardly changes the merges."""
REPORT_DOCUMENTS = 2000


def run(context: StageContext) -> dict[str, Any]:
    """Learn the tokenizer into the stage's folder. Returns its size and how well it compresses."""
    section = context.recipe.tokenizer
    corpus = context.run.stage("corpus").path
    if context.recipe.origin is not None:
        tokenizer = Tokenizer.load(context.recipe.origin)
    else:
        with context.console.status("learning the merges"):
            tokenizer = Tokenizer.train(_training_texts(corpus), section.vocab_size, section.split_pattern)
    tokenizer.save(context.stage.path)
    held_out = next(read_texts(corpus, "validation"))[:REPORT_DOCUMENTS]
    report = compression_report(tokenizer, held_out)
    write_json(context.stage.path / "report.json", report)
    facts = {"vocab_size": tokenizer.vocab_size, "bytes_per_token": report["bytes_per_token"]}
    context.console.print(
        f"{facts['vocab_size']:,} tokens; {facts['bytes_per_token']:.2f} bytes of held-out text for each",
        highlight=False,
    )
    return facts


def _training_texts(corpus: Path) -> Iterator[str]:
    left = TRAINING_BYTES
    for texts in read_texts(corpus, "train"):
        for text in texts:
            if left <= 0:
                return
            left -= len(text.encode())
            yield text
