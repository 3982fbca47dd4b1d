"""Where raw documents come from: the storyworld, the user's own files, or a hub, all as one lazy dataframe.

Each source is cut into parts (a file, a world) that the engine reads while it works on what it has read, so
memory stays bounded. Every document gets an index that gives it one place in one order, whatever order the
engine works in: everything later, from "keep the first" to the bytes of the shards, depends on this order
alone.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow

from hornbook.corpus.engine import load_daft
from hornbook.corpus.files import URL_SCHEMES, Location, find_files, find_urls, places_of
from hornbook.corpus.raw import RawDocument
from hornbook.corpus.readers import check_text_field, read_documents
from hornbook.errors import UserError
from hornbook.recipe_data import CorpusSection, StoryworldSection

if TYPE_CHECKING:
    import daft
    from daft.io.source import DataSource

RAW_SCHEMA = pyarrow.schema(
    [
        ("index", pyarrow.int64()),
        ("for_validation", pyarrow.bool_()),
        ("source", pyarrow.string()),
        ("weight", pyarrow.float64()),
        ("id", pyarrow.string()),
        ("text", pyarrow.large_string()),
        ("is_html", pyarrow.bool_()),
        ("problem", pyarrow.string()),
        ("expected", pyarrow.large_string()),
        ("bits", pyarrow.float64()),
        ("labels", pyarrow.list_(pyarrow.string())),
    ]
)
HUB_PREFIX = "hf://datasets/"
DOCUMENTS_PER_BATCH = 512
# What one of the dataframes that are read in turn holds, about.
BYTES_IN_TURN = 32 * 2**20
# An index holds the part in its high bits and the row within the part in the low ones.
ROW_BITS = 36
# Parts that a frame which Daft cuts by itself may have.
PARTS_OF_A_HUB_FRAME = 1 << 16
# Files whose fields are looked at before the run begins: each one behind a URL takes a connection.
FILES_LOOKED_AT_FOR_FIELDS = 16

# Reads one part. It is pickled where other machines do the reading, so it holds names of files, not open ones.
Part = Callable[[], Iterator[RawDocument]]


def read_sources(corpus: CorpusSection, world: StoryworldSection) -> "daft.DataFrame":
    """All raw documents of the recipe, with the columns of RAW_SCHEMA.

    Those for validation alone come first: where a text stands in both, deduplication keeps the first.
    `weight` says how often documents of the source are wanted (see `mixing`); reading takes each once.
    Raises UserError where a source is not there or its files lack the text field.
    """
    frames = [
        _hub_frame(corpus.text_field, origin, first_part)
        if parts is None
        else _parts_source(parts, origin, first_part).read()
        for origin, first_part, parts in _origins(corpus, world)
    ]
    whole = frames[0]
    for frame in frames[1:]:
        whole = whole.concat(frame)
    return whole


def read_in_turn(corpus: CorpusSection, world: StoryworldSection) -> "Iterator[daft.DataFrame]":
    """The documents of `read_sources` as many small dataframes, one after another.

    Daft 0.7 reads a part to its end before it passes anything on, and several parts at once, so one query over
    large files would hold them in memory. Data sets of a hub, which Daft reads by itself, stay one dataframe.
    """
    daft = load_daft()
    for origin, first_part, parts in _origins(corpus, world):
        if parts is None:
            yield _hub_frame(corpus.text_field, origin, first_part)
            continue
        waiting: list[pyarrow.Table] = []
        n_bytes = 0
        for number, part in enumerate(parts, start=first_part):
            documents, index = part(), number << ROW_BITS
            while batch := list(islice(documents, DOCUMENTS_PER_BATCH)):
                waiting.append(_as_table(batch, index, origin))
                index += len(batch)
                n_bytes += waiting[-1].nbytes
                if n_bytes >= BYTES_IN_TURN:
                    yield daft.from_arrow(pyarrow.concat_tables(waiting))
                    waiting, n_bytes = [], 0
        if waiting:
            yield daft.from_arrow(pyarrow.concat_tables(waiting))


def _origins(
    corpus: CorpusSection, world: StoryworldSection
) -> Iterator[tuple[dict[str, Any], int, list[Part] | None]]:
    """For each source: what its documents have in common, the number of its first part, and its parts.

    A whole data set of a hub has no parts of its own.
    """
    weights = corpus.weights or (1.0,) * len(corpus.source)
    named = [(source, True, 1.0) for source in corpus.validation_source]
    named += [(source, False, weight) for source, weight in zip(corpus.source, weights, strict=True)]
    first_part = 0
    for source, for_validation, weight in named:
        origin = {"for_validation": for_validation, "source": source, "weight": float(weight)}
        is_whole_hub = source.startswith(HUB_PREFIX) and source.removeprefix(HUB_PREFIX).strip("/").count("/") == 1
        parts = None if is_whole_hub else _parts_of(source, corpus.text_field, world)
        yield origin, first_part, parts
        first_part += PARTS_OF_A_HUB_FRAME if parts is None else len(parts)


def _parts_of(source: str, text_field: str, world: StoryworldSection) -> list[Part]:
    files: Sequence[Location]
    if source == "storyworld":
        return [partial(_world_documents, world), partial(_world_pages, world)]
    if source.startswith("files:"):
        files = find_files(source.removeprefix("files:"))
    elif source.startswith(URL_SCHEMES):
        files = find_urls(source)
    else:
        raise UserError(
            f"corpus.source: {source!r} is not a source. Use storyworld, files:PATH_OR_GLOB, "
            f"a URL ({', '.join(URL_SCHEMES)}) or {HUB_PREFIX}OWNER/NAME."
        )
    for file in files[:FILES_LOOKED_AT_FOR_FIELDS]:
        check_text_field(file, text_field)
    # A path is made absolute: who reads it may work in another folder.
    wherever = [file.absolute() if isinstance(file, Path) else file for file in files]
    return [
        partial(read_documents, file, place, text_field) for file, place in zip(wherever, places_of(files), strict=True)
    ]


def _world_documents(world: StoryworldSection) -> Iterator[RawDocument]:
    from hornbook.storyworld.corpus import write_documents

    for document in write_documents(world):
        yield RawDocument(document.id, document.text, expected=document.text, bits=document.bits)


def _world_pages(world: StoryworldSection) -> Iterator[RawDocument]:
    from hornbook.storyworld.corpus import write_stories_for_pages
    from hornbook.storyworld.web import write_pages

    for page in write_pages(world, write_stories_for_pages(world)):
        yield RawDocument(page.id, page.html, True, None, page.text, page.bits, page.labels)


def _parts_source(parts: Sequence[Part], origin: dict[str, Any], first_part: int) -> "DataSource":
    """What Daft reads part by part when the query runs. Sources and their tasks go to other machines pickled."""
    load_daft()
    from daft.io.source import DataSource, DataSourceTask
    from daft.recordbatch import RecordBatch
    from daft.schema import Schema

    schema = Schema.from_pyarrow_schema(RAW_SCHEMA)

    # The classes stand here because Daft is not imported before it is needed.
    class PartTask(DataSourceTask):
        def __init__(self, number: int, part: Part) -> None:
            self.first_index = number << ROW_BITS
            self.part = part

        @property
        def schema(self) -> Schema:
            return schema

        async def read(self) -> AsyncIterator[RecordBatch]:
            documents, index = self.part(), self.first_index
            # All tasks share one event loop: read in it, and one part would wait for the other.
            while batch := await asyncio.to_thread(lambda: list(islice(documents, DOCUMENTS_PER_BATCH))):
                yield RecordBatch.from_arrow_table(_as_table(batch, index, origin))
                index += len(batch)

    class PartsSource(DataSource):
        name = origin["source"]

        @property
        def schema(self) -> Schema:
            return schema

        async def get_tasks(self, pushdowns: Any) -> AsyncIterator[DataSourceTask]:
            for number, part in enumerate(parts, start=first_part):
                yield PartTask(number, part)

    return PartsSource()


def _as_table(documents: list[RawDocument], first_index: int, origin: dict[str, Any]) -> pyarrow.Table:
    columns = dict(zip(RawDocument._fields, zip(*documents, strict=True), strict=True))
    columns["index"] = tuple(range(first_index, first_index + len(documents)))
    for name, value in origin.items():
        columns[name] = (value,) * len(documents)
    return pyarrow.table(columns, RAW_SCHEMA)


def _hub_frame(text_field: str, origin: dict[str, Any], first_part: int) -> "daft.DataFrame":
    """A whole data set of a hub, streamed by Daft. (Where files of it are named, they are read as files.)"""
    source = origin["source"]
    try:
        frame = load_daft().read_huggingface(source.removeprefix(HUB_PREFIX).strip("/"))
        fields = frame.column_names
    except Exception as problem:  # what Daft raises depends on where the connection failed
        raise UserError(
            f"corpus.source: {source} cannot be read ({str(problem).splitlines()[0]}). Check its name "
            "and the network, or point corpus.source at files on this machine: files:PATH."
        ) from None
    if text_field not in fields:
        raise UserError(
            f"corpus.source: {source} has no field {text_field!r}; it has {', '.join(map(repr, fields))}. "
            "Name the field that holds the text with corpus.text_field."
        )
    return _with_raw_schema(frame, text_field, origin, first_part)


def _with_raw_schema(
    frame: "daft.DataFrame", text_field: str, origin: dict[str, Any], first_part: int
) -> "daft.DataFrame":
    """The columns of RAW_SCHEMA for a frame that Daft reads by itself. Null texts are set aside."""
    daft = load_daft()
    col, lit, functions = daft.col, daft.lit, daft.functions
    row = functions.monotonically_increasing_id().cast(daft.DataType.int64())
    text = col(text_field).cast(daft.DataType.string())
    columns = {
        "index": row + lit(first_part << ROW_BITS),
        **{name: lit(value) for name, value in origin.items()},
        "id": row.cast(daft.DataType.string()),
        "text": functions.fill_null(text, lit("")),
        "is_html": lit(False),
        "problem": functions.when(functions.is_null(text), lit("text_is_not_a_string")).otherwise(lit(None)),
        "expected": lit(None),
        "bits": lit(None),
        "labels": lit(None),
    }
    types = {field.name: daft.DataType.from_arrow_type(field.type) for field in RAW_SCHEMA}
    return frame.select(*(value.cast(types[name]).alias(name) for name, value in columns.items()))
