"""The first stage: the recipe's sources become curated documents, and a report says what happened to each."""

import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hornbook.corpus.benchmarks import Benchmark, Item, read_benchmarks
from hornbook.corpus.curate import curate
from hornbook.recipe import Recipe
from hornbook.stages.context import StageContext
from hornbook.storyworld.questions import held_out_questions

# Questions of a suite are looked for by the full thousand, so that asking a few more of them does not make the
# corpus, and all that is trained on it, anew.
QUESTIONS_AT_ONCE = 1000


def run(context: StageContext) -> dict[str, Any]:
    """Curate the corpus into the stage's folder. Returns its headline figures.

    The generator's bits per byte are those of the validation documents whose exact probability is known: what a
    model that knew the storyworld's rules would reach on them. None where there are no such documents.
    """
    recipe = context.recipe
    started = time.monotonic()
    doing = "reading, cleaning and judging documents"
    with context.console.status(doing) as status:

        def show(documents: int, n_bytes: int) -> None:
            speed = documents / (time.monotonic() - started)
            status.update(f"{doing}: {documents:,} so far, {n_bytes / 1e6:,.0f} MB, {speed:,.0f} documents a second")

        report = curate(recipe.corpus, recipe.storyworld, context.stage.path, benchmarks_of(recipe), show)
    _print_report(report, context.stage.path / "histograms.svg", context.console)
    counts, generator = report["documents"], report["generator"]
    return {
        "documents": counts["kept"],
        "documents_bytes": sum(report["bytes"].values()),
        "validation_documents": counts["validation"],
        "validation_bytes": report["bytes"]["validation"],
        "documents_read": counts["read"],
        "documents_set_aside": counts["set_aside"],
        "documents_dropped": counts["dropped"],
        "dropped_by_rule": {rule: entry["documents"] for rule, entry in report["dropped"].items()},
        "generator_bits_per_byte": generator["validation_bits_per_byte"],
        "validation_documents_without_generator_bits": generator["validation_documents_without_bits"],
        "raw_megabytes_per_second": report["raw_megabytes_per_second"],
    }


def questions_looked_for(recipe: Recipe) -> int:
    """How many questions of each suite the corpus must not give away: all that will be asked, and some more."""
    return -(-recipe.evaluate.questions_per_suite // QUESTIONS_AT_ONCE) * QUESTIONS_AT_ONCE


def benchmarks_of(recipe: Recipe) -> list[Benchmark]:
    """What nothing that is trained on may give away: all that the recipe evaluates, and the files that it names."""
    n_questions = questions_looked_for(recipe)
    suites = []
    for suite in recipe.evaluate.suites:
        questions = enumerate(held_out_questions(suite, n_questions, recipe.storyworld), start=1)
        suites.append(
            Benchmark(suite, [Item(str(n), (question.context, question.question)) for n, question in questions])
        )
    return [*suites, *read_benchmarks(recipe.corpus.decontaminate_against)]


def _print_report(report: dict[str, Any], histograms: Path, console: Console) -> None:
    quality = report["quality"]
    table = Table("step", title="Corpus", title_justify="left")
    for name in ("documents", "MB", *(("precision", "recall") if quality else ())):
        table.add_column(name, justify="right")
    for step in report["steps"]:
        table.add_row(step["step"], *_amount(step))
    table.add_section()
    lost = {**report["set_aside"], **report["dropped"]}
    for reason, entry in sorted(lost.items(), key=lambda item: -item[1]["documents"]):
        kind = "set aside" if reason in report["set_aside"] else "dropped"
        rates = quality["by_rule"].get(reason, {}) if quality else {}
        shares = (_percent(rates.get("precision")), _percent(rates.get("recall"))) if quality else ()
        table.add_row(f"{kind}: {reason}", *_amount(entry), *shares)
    console.print(table)
    if quality:
        console.print(
            f"Of {quality['pages']:,} web pages whose answer is known, dropping had a precision of "
            f"{_percent(quality['precision'])} and a recall of {_percent(quality['recall'])}; deduplication "
            f"{_percent(quality['deduplication']['precision'])} and {_percent(quality['deduplication']['recall'])}. "
            "A rule's recall is that of the kinds of mess that it is meant for; – where these pages cannot say.",
            highlight=False,
        )
        console.print(_kinds_of_mess(quality["by_label"]))
    console.print(f"{report['raw_megabytes_per_second']:.1f} MB of raw text a second", highlight=False)
    console.print(f"Lengths and scores: {escape(str(histograms))}", highlight=False, soft_wrap=True)


def _kinds_of_mess(by_label: dict[str, dict[str, int]]) -> Table:
    """What became of the pages with each kind of mess; a page may have several."""
    table = Table("kind of mess", title="Pages whose answer is known", title_justify="left")
    for name in ("pages", "dropped", "kept and restored exactly"):
        table.add_column(name, justify="right")
    for label, counts in by_label.items():
        n_pages = counts["documents"]
        shares = (_percent(counts.get(name, 0) / n_pages) for name in ("dropped", "restored_exactly"))
        table.add_row(label, f"{n_pages:,}", *shares)
    return table


def _amount(entry: dict[str, Any]) -> tuple[str, str]:
    return f"{entry['documents']:,}", f"{entry['bytes'] / 1e6:,.2f}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"
