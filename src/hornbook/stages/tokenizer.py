"""The second stage: a vocabulary is learned from the corpus, or a published one is taken over.

A model that training goes on from brings its own.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pyarrow
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hornbook.corpus.documents import read_documents, read_texts
from hornbook.corpus.rules.language import detected_language
from hornbook.corpus.text_batch import TextBatch
from hornbook.recipe_data import TokenizerSection
from hornbook.run_directory import write_json
from hornbook.stages.context import StageContext
from hornbook.tokenizer.published import vocabularies_at_hand
from hornbook.tokenizer.report import Document, compression_report
from hornbook.tokenizer.tokenizer import Tokenizer

TRAINING_BYTES = 100_000_000
"""Text that the vocabulary is learned from, at most: more of the same hardly changes the merges."""
REPORT_DOCUMENTS = 2000
GROUPS_SHOWN = 8
LONGEST_SHOWN = 5
CHARACTERS_SHOWN = 24


def run(context: StageContext) -> dict[str, Any]:
    """Make the tokenizer in the stage's folder. Returns its size and how well it compresses."""
    section = context.recipe.tokenizer
    corpus = context.run.stage("corpus").path
    tokenizer = _make(section, context.recipe.origin or section.load_from, corpus, context.console)
    tokenizer.save(context.stage.path)
    with context.console.status("measuring how well it fits"):
        report = compression_report(tokenizer, _held_out(corpus), vocabularies_at_hand())
    write_json(context.stage.path / "report.json", report)
    _print_report(report, tokenizer.vocab_size, context.console)
    return {
        "vocab_size": tokenizer.vocab_size,
        "bytes_per_token": report["bytes_per_token"],
        "used_fraction_of_vocabulary": report["used_fraction_of_vocabulary"],
    }


def _make(section: TokenizerSection, published: str | None, corpus: Path, console: Console) -> Tokenizer:
    if published is None:
        with console.status("learning the merges"):
            return Tokenizer.train(
                _training_texts(corpus), section.vocab_size, section.split_pattern, section.special_tokens
            )
    with console.status("reading the published tokenizer"):
        tokenizer = Tokenizer.from_published(published, section.special_tokens)
    if published == section.load_from and tokenizer.vocab_size != section.vocab_size:
        n_tokens = tokenizer.vocab_size
        console.print(
            f"{section.load_from} has {n_tokens:,} tokens, with those added here, and so will the model. For a plan of "
            f"that size set tokenizer.vocab_size = {n_tokens}; the recipe says {section.vocab_size}.",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    return tokenizer


def _training_texts(corpus: Path) -> Iterator[str]:
    left = TRAINING_BYTES
    for texts in read_texts(corpus, "train"):
        for text in texts:
            if left <= 0:
                return
            left -= len(text.encode())
            yield text


def _held_out(corpus: Path) -> list[Document]:
    """Validation documents, spread evenly over all of them so that every source has its share."""
    rows = [row for batch in read_documents(corpus, "validation") for row in batch]
    chosen = numpy.unique(numpy.linspace(0, len(rows) - 1, min(REPORT_DOCUMENTS, len(rows))).astype(int))
    sources, texts = zip(*(rows[number] for number in chosen), strict=True)
    languages = detected_language(TextBatch(pyarrow.array(texts, pyarrow.large_string())))
    return [
        Document(text, source, str(language)) for text, source, language in zip(texts, sources, languages, strict=True)
    ]


def _print_report(report: dict[str, Any], vocab_size: int, console: Console) -> None:
    others = report["compared_with"]
    table = Table(title=f"Tokenizer: {vocab_size:,} tokens", title_justify="left")
    table.add_column("bytes per token, held out", overflow="fold")
    for name in ("bytes", "this one", *(f"{name} ({entry['vocab_size']:,})" for name, entry in others.items())):
        table.add_column(name, justify="right")
    whole = {"own": report["bytes_per_token"]} | {name: entry["bytes_per_token"] for name, entry in others.items()}
    table.add_row("all", *_cells(report["bytes"], whole))
    for kind in ("source", "language"):
        groups = report[f"by_{kind}"]
        if len(groups) > 1:
            table.add_section()
            for name, group in list(groups.items())[:GROUPS_SHOWN]:
                table.add_row(f"{kind}: {escape(name or 'unknown')}", *_cells(group["bytes"], group["bytes_per_token"]))
    console.print(table)
    longest = ", ".join(_shown(token) for token in report["longest_tokens"][:LONGEST_SHOWN])
    console.print(
        f"{report['used_fraction_of_vocabulary']:.1%} of the vocabulary occurs in these {report['documents']:,} "
        f"documents. Longest tokens: {longest}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _shown(token: str) -> str:
    return repr(token if len(token) <= CHARACTERS_SHOWN else f"{token[:CHARACTERS_SHOWN]}…")


def _cells(n_bytes: int, bytes_per_token: dict[str, float]) -> list[str]:
    return [f"{n_bytes:,}", *(f"{figure:.2f}" for figure in bytes_per_token.values())]
