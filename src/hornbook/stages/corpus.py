"""The first stage: the recipe's sources become curated documents, and a report says what happened to each."""

from typing import Any

from rich.console import Console
from rich.table import Table

from hornbook.corpus.curate import curate
from hornbook.stages.context import StageContext


def run(context: StageContext) -> dict[str, Any]:
    """Curate the corpus into the stage's folder. Returns its headline figures.

    The generator's bits per byte are those of the validation documents whose exact probability is known: what a
    model that knew the storyworld's rules would reach on them. None where there are no such documents.
    """
    recipe = context.recipe
    with context.console.status("reading, cleaning and judging documents"):
        report = curate(recipe.corpus, recipe.storyworld, context.stage.path)
    _print_report(report, context.console)
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


def _print_report(report: dict[str, Any], console: Console) -> None:
    table = Table("step", title="Corpus", title_justify="left")
    table.add_column("documents", justify="right")
    table.add_column("MB", justify="right")
    for step in report["steps"]:
        table.add_row(step["step"], f"{step['documents']:,}", f"{step['bytes'] / 1e6:,.1f}")
    table.add_section()
    lost = {**report["set_aside"], **report["dropped"]}
    for reason, entry in sorted(lost.items(), key=lambda item: -item[1]["documents"]):
        kind = "set aside" if reason in report["set_aside"] else "dropped"
        table.add_row(f"{kind}: {reason}", f"{entry['documents']:,}", f"{entry['bytes'] / 1e6:,.1f}")
    console.print(table)
    quality = report["quality"]
    if quality and quality["precision"] is not None and quality["recall"] is not None:
        console.print(
            f"Of {quality['pages']:,} web pages whose answer is known, dropping had a precision of "
            f"{quality['precision']:.1%} and a recall of {quality['recall']:.1%}.",
            highlight=False,
        )
    console.print(f"{report['raw_megabytes_per_second']:.1f} MB of raw text a second", highlight=False)
