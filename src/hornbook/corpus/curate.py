"""The corpus query: sources → clean → filter → deduplicate → split → shards and a report.

It runs in three steps, each in bounded memory. First the engine reads, cleans and judges all documents as one
lazy query, on all cores, and leaves the outcome in a staging folder. Then repeats are found among the
survivors' keys, without their texts. Last the shards are written range by range in the order of the
documents' indices. So the same recipe gives the same bytes, whatever order the engine works in.
"""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import pyarrow
import pyarrow.compute
import pyarrow.parquet

from hornbook.corpus import cleaning, deduplicate, filters
from hornbook.corpus.engine import load_daft
from hornbook.corpus.report import ReportWriter
from hornbook.corpus.sources import read_sources
from hornbook.errors import UserError
from hornbook.recipe import CorpusSection, StoryworldSection
from hornbook.run_directory import atomic_writer, write_json

if TYPE_CHECKING:
    from daft import DataFrame

DOCUMENTS_PER_SHARD = 100_000
EXCERPT_CHARACTERS = 200
# Small, because the engine keeps what it writes in memory until a row group is full.
STAGED_FILE_BYTES = 64 * 2**20
STAGED_ROW_GROUP_BYTES = 8 * 2**20
EMPTY = "empty"


def curate(corpus: CorpusSection, world: StoryworldSection, folder: Path) -> dict[str, Any]:
    """Write the curated corpus into `folder`, and return the report that is written beside it.

    The folder gets `documents-*.parquet` (id, source, split, text, n_bytes, generator_bits),
    `dropped-*.parquet` (id, source, reasons, excerpt) and `report.json`. `generator_bits` is -log2 of a
    text's exact probability where the storyworld wrote it and cleaning gave it back unchanged, else null.

    Raises UserError where a source cannot be read, or where nothing is left to train on or to validate with.
    """
    started = time.perf_counter()
    staging = folder / ".staging"
    shutil.rmtree(staging, ignore_errors=True)
    for leftover in [*folder.glob("documents-*.parquet"), *folder.glob("dropped-*.parquet")]:
        leftover.unlink()
    folder.mkdir(parents=True, exist_ok=True)

    daft = load_daft()
    judged = judge(read_sources(corpus, world), corpus)
    with daft.execution_config_ctx(
        parquet_target_filesize=STAGED_FILE_BYTES, parquet_target_row_group_size=STAGED_ROW_GROUP_BYTES
    ):
        judged.write_parquet(str(staging), write_mode="overwrite")
    staged = daft.read_parquet(str(staging / "*.parquet"))
    survivors = find_survivors(staged, corpus)
    report = ReportWriter()
    for number, documents in enumerate(_in_order(staged)):
        kept, dropped = _part(documents, survivors)
        _write_shard(folder / f"documents-{number:05}.parquet", kept.select(_KEPT_COLUMNS))
        _write_shard(folder / f"dropped-{number:05}.parquet", dropped.select(_DROPPED_COLUMNS))
        report.add(documents, kept, dropped)
    shutil.rmtree(staging)
    finished = report.finish(time.perf_counter() - started)
    write_json(folder / "report.json", finished)
    _check_something_is_left(finished, corpus)
    return finished


_KEPT_COLUMNS = ["id", "source", "split", "text", "n_bytes", "generator_bits"]
_DROPPED_COLUMNS = ["id", "source", "reasons", "excerpt"]


def judge(documents: "DataFrame", corpus: CorpusSection) -> "DataFrame":
    """Clean raw documents and find what is wrong with each, lazily.

    Adds `text` (cleaned), `problem` ("empty" where cleaning leaves nothing), `reasons` (rules broken), `key`,
    `n_raw_bytes`, `n_bytes`, `generator_bits`, and for pages whose answer is known `is_restored` and
    `is_wanted`.
    """
    daft = load_daft()
    col, lit, functions = daft.col, daft.lit, daft.functions
    documents = documents.with_column("n_raw_bytes", functions.length_bytes(col("text")))
    documents = documents.with_column("text", cleaning.clean(col("text"), col("is_html"), corpus.cleaning))
    is_empty = functions.is_null(col("problem")) & (col("text") == lit(""))
    is_restored = col("text") == col("expected")
    return documents.with_columns(
        {
            "problem": functions.when(is_empty, lit(EMPTY)).otherwise(col("problem")),
            "reasons": filters.broken_rules(col("text"), corpus.filters),
            "key": deduplicate.text_key(col("text")),
            "n_bytes": functions.length_bytes(col("text")),
            "generator_bits": functions.when(is_restored, col("bits")).otherwise(lit(None)),
            "is_restored": is_restored,
            "is_wanted": col("expected") != lit(""),
        }
    ).exclude("is_html", "expected", "bits")


@dataclass(frozen=True)
class Survivors:
    """The documents that no rule drops, in the order of their indices: three arrays of the same length."""

    index: numpy.ndarray
    is_repeat: numpy.ndarray
    is_validation: numpy.ndarray


def find_survivors(judged: "DataFrame", corpus: CorpusSection) -> Survivors:
    """Mark repeats among the documents that broke no rule, and set some of them apart for validation.

    The key of the text decides the split, so a text is in the same split in every corpus that holds it, and
    copies of it never stand in both. Where no key is small enough, the smallest one makes the validation
    split.
    """
    daft = load_daft()
    col, functions = daft.col, daft.functions
    is_sound = functions.is_null(col("problem")) & (functions.list_count(col("reasons")) == daft.lit(0))
    columns = judged.select("index", "key", "for_validation", "problem", "reasons")
    frame = columns.where(is_sound).exclude("problem", "reasons")
    table = frame.to_arrow().sort_by("index")
    key = table["key"].to_numpy()
    is_repeat = deduplicate.find_repeats(key) if corpus.deduplicate == "exact" else numpy.zeros(len(key), bool)
    if corpus.validation_source:
        is_validation = table["for_validation"].to_numpy()
    else:
        is_validation = key < numpy.uint64(corpus.validation_fraction * 2**64)
        if len(key) and not is_validation.any():
            is_validation = key == key.min()
    return Survivors(table["index"].to_numpy(), is_repeat, is_validation)


def _in_order(staged: "DataFrame") -> Iterator[pyarrow.Table]:
    """The staged documents in the order of their indices, in tables of DOCUMENTS_PER_SHARD rows."""
    col = load_daft().col
    indices = numpy.sort(staged.select("index").to_arrow()["index"].to_numpy())
    for start in range(0, len(indices), DOCUMENTS_PER_SHARD):
        shard = indices[start : start + DOCUMENTS_PER_SHARD]
        inside = (col("index") >= int(shard[0])) & (col("index") <= int(shard[-1]))
        yield staged.where(inside).to_arrow().sort_by("index").combine_chunks()


def _part(documents: pyarrow.Table, survivors: Survivors) -> tuple[pyarrow.Table, pyarrow.Table]:
    """The documents to keep, with their split, and those to drop, with all their reasons and an excerpt."""
    index = documents["index"].to_numpy()
    if len(survivors.index):
        place = numpy.minimum(numpy.searchsorted(survivors.index, index), len(survivors.index) - 1)
        is_sound = survivors.index[place] == index
        is_repeat = is_sound & survivors.is_repeat[place]
        is_validation = is_sound & survivors.is_validation[place]
    else:
        is_sound = is_repeat = is_validation = numpy.zeros(len(index), dtype=bool)
    is_kept = is_sound & ~is_repeat
    split = pyarrow.array(numpy.where(is_validation, "validation", "train").tolist(), pyarrow.string())
    kept = documents.append_column("split", split).filter(pyarrow.array(is_kept))
    dropped = documents.filter(pyarrow.array(~is_kept))
    reasons = [
        [problem] if problem else rules or [deduplicate.DUPLICATE]
        for problem, rules in zip(dropped["problem"].to_pylist(), dropped["reasons"].to_pylist(), strict=True)
    ]
    excerpt = pyarrow.compute.utf8_slice_codeunits(dropped["text"], 0, EXCERPT_CHARACTERS)
    column = dropped.schema.get_field_index("reasons")
    dropped = dropped.set_column(column, "reasons", pyarrow.array(reasons, pyarrow.list_(pyarrow.string())))
    return kept, dropped.append_column("excerpt", excerpt)


def _write_shard(path: Path, table: pyarrow.Table) -> None:
    with atomic_writer(path) as file:
        pyarrow.parquet.write_table(table, file, compression="zstd")


def _check_something_is_left(report: dict[str, Any], corpus: CorpusSection) -> None:
    counts = report["documents"]
    if counts["train"] and counts["validation"]:
        return
    lost = {**report["set_aside"], **report["dropped"]}
    ranked = sorted(lost.items(), key=lambda item: -item[1]["documents"])[:3]
    why = "; ".join(f"{name}: {entry['documents']}" for name, entry in ranked) or "nothing was dropped"
    missing = "to train on" if not counts["train"] else "for validation"
    raise UserError(
        f"corpus: of {counts['read']} documents none is left {missing} ({why}). Give corpus.source more "
        "text, or loosen corpus.filters; dropped-*.parquet beside report.json has an excerpt of each."
    )
