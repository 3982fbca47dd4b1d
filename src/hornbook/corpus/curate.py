"""The corpus query: sources → clean → filter → decontaminate → deduplicate → split → shards and a report.

It runs in three steps, each in bounded memory. First the engine reads, cleans and judges all documents by one lazy
query, on all cores, and what comes out is gathered in staged files. Then repeats are found among the
survivors' keys and digests, without their texts. Last the shards are written range by range in the order of the
documents' indices. So the same recipe gives the same bytes, whatever order the engine works in and wherever it
was killed and run again.
"""

import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import pyarrow
import pyarrow.compute
import pyarrow.parquet

from hornbook.corpus import cleaning, deduplicate, filters, minhash, mixing
from hornbook.corpus.benchmarks import Benchmark
from hornbook.corpus.decontaminate import CONTAMINATED, Receipt, overlaps
from hornbook.corpus.engine import load_daft, use_engine
from hornbook.corpus.files import find_files
from hornbook.corpus.histogram_picture import draw_histograms
from hornbook.corpus.passages import Passages, index_passages
from hornbook.corpus.report import ReportWriter
from hornbook.corpus.sources import read_in_turn, read_sources
from hornbook.corpus.staging import SIGNATURE, Staging
from hornbook.corpus.survivors import Survivors, find_survivors
from hornbook.errors import UserError
from hornbook.recipe_data import CorpusSection, StoryworldSection
from hornbook.run_directory import atomic_writer, write_json

if TYPE_CHECKING:
    from daft import DataFrame

DOCUMENTS_PER_SHARD = 100_000
BYTES_PER_SHARD = 128 * 2**20
# Fewer than Daft's 131,072: a morsel has to fit in memory several times, and what is read in turn is for all cores.
DOCUMENTS_PER_MORSEL = 1024
EXCERPT_CHARACTERS = 200
EMPTY = "empty"

Progress = Callable[[int, int], None]


def curate(
    corpus: CorpusSection,
    world: StoryworldSection,
    folder: Path,
    benchmarks: Sequence[Benchmark] = (),
    progress: Progress = lambda documents, n_bytes: None,
) -> dict[str, Any]:
    """Write the curated corpus into `folder`, and return the report that is written beside it.

    The folder gets `documents-*.parquet` (id, source, split, text, n_bytes, generator_bits; as often as the weight of
    its source takes a document), `dropped-*.parquet` (id, source, reasons, excerpt, duplicate_of,
    duplicate_of_source), `report.json` and
    `histograms.svg`. `generator_bits` is -log2 of a text's exact probability where the storyworld wrote it and
    cleaning gave it back unchanged, else null; `duplicate_of` is the id of the
    document that a repeat repeats. Where there are benchmarks, `decontamination.json` says what was removed because
    of which item.

    Run again after a kill, it goes on with the documents it has staged, and ends with the same bytes.

    Args:
        corpus: the recipe's section.
        world: the storyworld, where it is a source.
        folder: where to write.
        benchmarks: what the corpus must not give away.
        progress: called now and then with the number of documents judged so far and of their raw bytes.

    Raises UserError where a source cannot be read, or where nothing is left to train on or to validate with.
    """
    started = time.perf_counter()
    use_engine(corpus.engine)
    for leftover in [*folder.glob("documents-*.parquet"), *folder.glob("dropped-*.parquet")]:
        leftover.unlink()
    staging = Staging(folder / ".staging", _inputs(corpus, world, benchmarks))
    passages = index_passages(benchmarks, corpus.cleaning)
    _stage(staging, corpus, world, passages, progress)
    if not staging.files:
        raise UserError("corpus.source: has no document at all. Give corpus.source some text.")
    survivors = find_survivors(staging, corpus)
    report, receipt = ReportWriter(corpus), Receipt(benchmarks, passages)
    for number, documents in enumerate(staging.in_order(*_shard_ranges(staging))):
        kept, dropped = _part(documents, survivors)
        _write_shard(folder / f"documents-{number:05}.parquet", _repeated(kept))
        _write_shard(folder / f"dropped-{number:05}.parquet", [dropped.select(_DROPPED_COLUMNS)])
        report.add(documents, kept, dropped)
        receipt.add(dropped)
    staging.remove()
    finished = report.finish(time.perf_counter() - started)
    if benchmarks:
        write_json(folder / "decontamination.json", receipt.finish())
    draw_histograms(finished["histograms"], folder / "histograms.svg")
    write_json(folder / "report.json", finished)
    _check_something_is_left(finished, corpus)
    return finished


_BYTES_AT_ONCE = 64 * 2**20
_KEPT_COLUMNS = ["id", "source", "split", "text", "n_bytes", "generator_bits"]
_DROPPED_COLUMNS = ["id", "source", "reasons", "excerpt", "duplicate_of", "duplicate_of_source"]


def _inputs(corpus: CorpusSection, world: StoryworldSection, benchmarks: Sequence[Benchmark]) -> str:
    """A hash of all that judged documents depend on."""
    files = [
        (str(path), path.stat().st_size, path.stat().st_mtime_ns)
        for source in (*corpus.validation_source, *corpus.source)
        if source.startswith("files:")
        for path in find_files(source.removeprefix("files:"))
    ]
    without_effect = {"engine", "validation_fraction"}
    recipe = [corpus.model_dump(mode="json", exclude=without_effect), world.model_dump(mode="json")]
    return hashlib.sha256(json.dumps([recipe, files, benchmarks]).encode()).hexdigest()


def _stage(
    staging: Staging, corpus: CorpusSection, world: StoryworldSection, passages: Passages, progress: Progress
) -> None:
    """Judge all documents that are not staged yet: on one machine a few at a time, on a cluster as one query."""
    frames = read_in_turn(corpus, world) if corpus.engine == "local" else iter([read_sources(corpus, world)])
    judged = (judge(staging.without_finished(frame), corpus, passages) for frame in _read_ahead(frames))
    batches = (batch for frame in judged for batch in frame.to_arrow_iter())
    cut = minhash.banding(corpus.deduplicate_threshold) if corpus.deduplicate == "minhash" else None
    n_documents = n_bytes = 0
    with load_daft().execution_config_ctx(default_morsel_size=DOCUMENTS_PER_MORSEL):
        for n_more, n_more_bytes in staging.write(batches, cut):
            n_documents, n_bytes = n_documents + n_more, n_bytes + n_more_bytes
            progress(n_documents, n_bytes)


def _read_ahead(frames: "Iterator[DataFrame]") -> "Iterator[DataFrame]":
    """The same dataframes, the next one read while the last one is worked on."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        coming = thread.submit(next, frames, None)
        while (frame := coming.result()) is not None:
            coming = thread.submit(next, frames, None)
            yield frame


def judge(documents: "DataFrame", corpus: CorpusSection, passages: Passages) -> "DataFrame":
    """Clean raw documents and find what is wrong with each, lazily.

    Adds `text` (cleaned), `problem` ("empty" where cleaning leaves nothing), `reasons` (rules broken), `overlaps`
    (passages of benchmarks it gives away), `key`, `n_raw_bytes`, `n_bytes`, `generator_bits`, for pages whose
    answer is known `is_restored` and `is_wanted`, and where near-duplicates are wanted `signature`.
    """
    daft = load_daft()
    col, lit, functions = daft.col, daft.lit, daft.functions
    documents = documents.with_column("n_raw_bytes", functions.length_bytes(col("text")))
    documents = documents.with_column("text", cleaning.clean(col("text"), col("is_html"), corpus.cleaning))
    documents = documents.with_column("text", filters.edit_lines(col("text"), corpus.filters))
    is_empty = functions.is_null(col("problem")) & (col("text") == lit(""))
    is_restored = col("text") == col("expected")
    documents = documents.with_column("plain", deduplicate.plain(col("text")))
    columns = {
        "problem": functions.when(is_empty, lit(EMPTY)).otherwise(col("problem")),
        "reasons": filters.broken_rules(col("text"), corpus.filters),
        "overlaps": overlaps(col("plain"), passages),
        "key": deduplicate.text_key(col("plain")),
        "n_bytes": functions.length_bytes(col("text")),
        "generator_bits": functions.when(is_restored, col("bits")).otherwise(lit(None)),
        "is_restored": is_restored,
        "is_wanted": col("expected") != lit(""),
    }
    if corpus.deduplicate == "minhash":
        columns[SIGNATURE] = minhash.signature(col("plain"))
    return documents.with_columns(columns).exclude("is_html", "expected", "bits", "plain")


def _shard_ranges(staging: Staging) -> tuple[list[int], list[int]]:
    """The first and the last index of each shard: so many documents, or so many bytes, whichever are fewer."""
    index, n_bytes = staging.column("index").to_numpy(), staging.column("n_bytes").to_numpy()
    order = numpy.argsort(index)
    index, ends = index[order], numpy.cumsum(n_bytes[order])
    firsts, lasts, start = [], [], 0
    while start < len(index):
        before = ends[start - 1] if start else 0
        stop = int(numpy.searchsorted(ends, before + BYTES_PER_SHARD, side="right"))
        stop = max(start + 1, min(stop, start + DOCUMENTS_PER_SHARD))
        firsts.append(int(index[start]))
        lasts.append(int(index[stop - 1]))
        start = stop
    return firsts, lasts


def _part(documents: pyarrow.Table, survivors: Survivors) -> tuple[pyarrow.Table, pyarrow.Table]:
    """The documents to keep, with their split and how many times they are taken, and those to drop, with why."""
    index = documents["index"].to_numpy()
    number = numpy.full(len(index), -1, dtype=numpy.int64)
    first, last = numpy.searchsorted(survivors.index, [index[0], index[-1] + 1])
    number[numpy.searchsorted(index, survivors.index[first:last])] = numpy.arange(first, last)
    is_sound = number >= 0
    is_first, is_validation = is_sound.copy(), is_sound.copy()
    is_first[is_sound] = survivors.repeats[number[is_sound]] < 0
    is_validation[is_sound] = survivors.is_validation[number[is_sound]]
    times = mixing.repetitions(documents["key"].to_numpy(), documents["weight"].to_numpy())
    times = numpy.where(is_first, numpy.where(is_validation, 1, times), 0)
    is_kept = times > 0
    split = pyarrow.array(numpy.where(is_validation[is_kept], "validation", "train").tolist(), pyarrow.string())
    kept = documents.filter(pyarrow.array(is_kept)).append_column("split", split)
    kept = kept.append_column("times", pyarrow.array(times[is_kept]))
    dropped = documents.filter(pyarrow.array(~is_kept))
    reasons: list[list[str]] = []
    duplicate_of: list[tuple[str, str] | tuple[None, None]] = []
    for row, n in zip(
        dropped.select(["problem", "reasons", "overlaps"]).to_pylist(), number[~is_kept].tolist(), strict=True
    ):
        if n >= 0 and survivors.repeats[n] < 0:
            reasons.append([mixing.NOT_TAKEN])
        elif n >= 0:
            reasons.append([deduplicate.NEAR_DUPLICATE if survivors.is_near[n] else deduplicate.DUPLICATE])
        else:
            broken = row["reasons"] + ([CONTAMINATED] if row["overlaps"] else [])
            reasons.append([row["problem"]] if row["problem"] else broken)
        is_repeat = n >= 0 and survivors.repeats[n] >= 0
        duplicate_of.append(survivors.repeated[int(survivors.repeats[n])] if is_repeat else (None, None))
    excerpt = pyarrow.compute.utf8_slice_codeunits(dropped["text"], 0, EXCERPT_CHARACTERS)
    column = dropped.schema.get_field_index("reasons")
    dropped = dropped.set_column(column, "reasons", pyarrow.array(reasons, pyarrow.list_(pyarrow.string())))
    for place, name in enumerate(("duplicate_of", "duplicate_of_source")):
        dropped = dropped.append_column(name, pyarrow.array([of[place] for of in duplicate_of], pyarrow.string()))
    return kept, dropped.append_column("excerpt", excerpt)


def _repeated(kept: pyarrow.Table) -> Iterator[pyarrow.Table]:
    """Each document as often as it is wanted, in pieces that memory holds whatever the weights are."""
    times, sizes = kept["times"].to_numpy(), kept["n_bytes"].to_numpy()
    piece_of = numpy.cumsum(times * sizes) // _BYTES_AT_ONCE
    documents = kept.select(_KEPT_COLUMNS)
    for piece in numpy.split(numpy.arange(len(kept)), numpy.flatnonzero(numpy.diff(piece_of)) + 1):
        if len(piece) == 1 and times[piece[0]] > 1:
            yield from itertools.repeat(documents.take(pyarrow.array(piece)), int(times[piece[0]]))
        else:
            yield documents.take(pyarrow.array(numpy.repeat(piece, times[piece])))


def _write_shard(path: Path, tables: Iterable[pyarrow.Table]) -> None:
    tables = iter(tables)
    first = next(tables)
    with (
        atomic_writer(path) as file,
        pyarrow.parquet.ParquetWriter(file, first.schema, compression="zstd") as writer,
    ):
        for table in itertools.chain([first], tables):
            writer.write_table(table)


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
