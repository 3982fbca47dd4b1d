"""Where raw documents come from: the storyworld, the user's own files, or a hub, all as one lazy dataframe.

Each source is cut into parts (a file, a world) that the engine reads while it works on what it has read, so
memory stays bounded. Every document gets an index that gives it one place in one order, whatever order the
engine works in: everything later, from "keep the first" to the bytes of the shards, depends on this order
alone.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import pyarrow

from hornbook.corpus.engine import load_daft
from hornbook.corpus.files import RawDocument, check_text_field, find_files, place_of, read_documents
from hornbook.errors import UserError
from hornbook.recipe import CorpusSection, StoryworldSection
from hornbook.runtime import derive_seed

if TYPE_CHECKING:
    import daft

RAW_SCHEMA = pyarrow.schema(
    [
        ("index", pyarrow.int64()),
        ("for_validation", pyarrow.bool_()),
        ("source", pyarrow.string()),
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

Part = Callable[[], Iterator[RawDocument]]


def read_sources(corpus: CorpusSection, world: StoryworldSection) -> "daft.DataFrame":
    """All raw documents of the recipe, with the columns of RAW_SCHEMA.

    Those for validation alone come first: where a text stands in both, deduplication keeps the first.
    Raises UserError where a source is not there or its files lack the text field.
    """
    named = [(source, True) for source in corpus.validation_source]
    named += [(source, False) for source in corpus.source]
    frames = []
    for number, (source, for_validation) in enumerate(named):
        first_part = number << 16
        if source.startswith(HUB_PREFIX):
            frames.append(_hub_frame(source, corpus.text_field, for_validation, first_part))
        else:
            parts = _parts_of(source, corpus.text_field, world)
            frames.append(_frame(source, parts, for_validation, first_part))
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
    named = [(source, True) for source in corpus.validation_source]
    named += [(source, False) for source in corpus.source]
    for number, (source, for_validation) in enumerate(named):
        first_part = number << 16
        if source.startswith(HUB_PREFIX):
            yield _hub_frame(source, corpus.text_field, for_validation, first_part)
            continue
        for number_of_part, part in enumerate(_parts_of(source, corpus.text_field, world), start=first_part):
            documents, index = part(), number_of_part << ROW_BITS
            waiting: list[pyarrow.Table] = []
            while batch := list(islice(documents, DOCUMENTS_PER_BATCH)):
                waiting.append(_as_table(batch, index, for_validation, source))
                index += len(batch)
                if sum(table.nbytes for table in waiting) >= BYTES_IN_TURN:
                    yield daft.from_arrow(pyarrow.concat_tables(waiting))
                    waiting = []
            if waiting:
                yield daft.from_arrow(pyarrow.concat_tables(waiting))


def _parts_of(source: str, text_field: str, world: StoryworldSection) -> list[Part]:
    if source == "storyworld":
        return [lambda: _world_documents(world), lambda: _world_pages(world)]
    if not source.startswith("files:"):
        raise UserError(
            f"corpus.source: {source!r} is not a source. Use storyworld, files:PATH_OR_GLOB or {HUB_PREFIX}OWNER/NAME."
        )
    files = find_files(source.removeprefix("files:"))
    for file in files:
        check_text_field(file, text_field)
    return [lambda f=file: read_documents(f, place_of(f, files), text_field) for file in files]  # type: ignore[misc]


def _world_documents(world: StoryworldSection) -> Iterator[RawDocument]:
    from hornbook.storyworld.corpus import write_documents

    for document in write_documents(world):
        yield RawDocument(document.id, document.text, expected=document.text, bits=document.bits)


def _world_pages(world: StoryworldSection) -> Iterator[RawDocument]:
    """Web pages around stories of their own: wrapped around those of the corpus, all would be duplicates."""
    from hornbook.storyworld.corpus import write_documents
    from hornbook.storyworld.web import write_pages

    seed = derive_seed(world.seed, "stories on web pages")
    told_on_pages = world.model_copy(update={"seed": seed, "stories": world.web_pages})
    for page in write_pages(world, write_documents(told_on_pages)):
        yield RawDocument(page.id, page.html, True, None, page.text, page.bits, page.labels)


def _frame(source: str, parts: Sequence[Part], for_validation: bool, first_part: int) -> "daft.DataFrame":
    """A lazy dataframe whose rows are read part by part when the query runs."""
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
            while batch := list(islice(documents, DOCUMENTS_PER_BATCH)):
                yield RecordBatch.from_arrow_table(_as_table(batch, index, for_validation, source))
                index += len(batch)

    class PartsSource(DataSource):
        name = source

        @property
        def schema(self) -> Schema:
            return schema

        async def get_tasks(self, pushdowns: Any) -> AsyncIterator[DataSourceTask]:
            for number, part in enumerate(parts, start=first_part):
                yield PartTask(number, part)

    return PartsSource().read()


def _as_table(documents: list[RawDocument], first_index: int, for_validation: bool, source: str) -> pyarrow.Table:
    columns = dict(zip(RawDocument._fields, zip(*documents, strict=True), strict=True))
    columns["index"] = tuple(range(first_index, first_index + len(documents)))
    columns["for_validation"] = (for_validation,) * len(documents)
    columns["source"] = (source,) * len(documents)
    return pyarrow.table(columns, RAW_SCHEMA)


def _hub_frame(source: str, text_field: str, for_validation: bool, first_part: int) -> "daft.DataFrame":
    """A data set of a hub, streamed by Daft. A glob of parquet or jsonl files may follow its name."""
    daft = load_daft()
    rest = source.removeprefix(HUB_PREFIX)
    try:
        if rest.endswith((".jsonl", ".jsonl.gz", ".jsonl.zst", ".json")):
            frame = daft.read_json(source)
        elif rest.count("/") > 1:
            frame = daft.read_parquet(source)
        else:
            frame = daft.read_huggingface(rest)
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
    return _with_raw_schema(frame, source, text_field, for_validation, first_part)


def _with_raw_schema(
    frame: "daft.DataFrame", source: str, text_field: str, for_validation: bool, first_part: int
) -> "daft.DataFrame":
    """The columns of RAW_SCHEMA for a frame that Daft reads by itself. Null texts are set aside."""
    daft = load_daft()
    col, lit, functions = daft.col, daft.lit, daft.functions
    row = functions.monotonically_increasing_id().cast(daft.DataType.int64())
    text = col(text_field).cast(daft.DataType.string())
    columns = {
        "index": row + lit(first_part << ROW_BITS),
        "for_validation": lit(for_validation),
        "source": lit(source),
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
