"""Documents out of files, whatever their kind, in bounded memory.

What cannot be read is never fatal and never lost: it comes as a document that has a problem instead of a
text, with the place where it stands. The exceptions are a field that a whole file lacks, because then the
recipe is wrong, and a connection that breaks, because then the next run gets what this one would miss.
"""

import gzip
import io
import itertools
import json
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow
import pyarrow.parquet

from hornbook.corpus import encodings
from hornbook.corpus.encodings import decode_page, decode_text
from hornbook.corpus.files import ByteStream, Location, kind_of, open_file
from hornbook.corpus.raw import MAX_DOCUMENT_BYTES, RawDocument, set_aside
from hornbook.corpus.warc import archived_documents
from hornbook.errors import UserError

# A plain text file with several documents parts them by a line that holds only this, as the published
# TinyStories do.
SEPARATOR = b"<|endoftext|>"
# A plain text file without separators is cut at empty lines into parts of about this size: a book as one
# document could be neither shuffled nor set apart for validation.
PART_BYTES = 16_384
# A json file that is one list has to be read whole, and takes several times its size; jsonl has no limit.
MAX_JSON_FILE_BYTES = 256 * 2**20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
PARQUET_ROWS_AT_ONCE = 256
RECORDS_LOOKED_AT_FOR_FIELDS = 100
# What the readers raise where a file ends early, is no archive of its kind, or may not be read; the last where a name
# in a parquet file is not UTF-8.
_DAMAGE = (OSError, EOFError, zlib.error, pyarrow.ArrowException, UnicodeDecodeError)


def check_text_field(location: Location, text_field: str) -> None:
    """Raise UserError where the first records of a file are sound but none of them has the text field."""
    seen: list[str] = []
    try:
        for fields in itertools.islice(_fields_of_records(location), RECORDS_LOOKED_AT_FOR_FIELDS):
            if text_field in fields:
                return
            seen.extend(field for field in fields if field not in seen)
    except _DAMAGE:
        return  # reading the file will set it aside
    if seen:
        raise UserError(
            f"{location}: has no field {text_field!r}; it has {', '.join(map(repr, seen))}. "
            "Name the field that holds the text with corpus.text_field."
        )


def read_documents(location: Location, name: str, text_field: str) -> Iterator[RawDocument]:
    """The documents of one file, those that cannot be read among them.

    A file that holds none at all comes as one document that is set aside, so that every file leaves a trace.

    Args:
        location: the file.
        name: what the documents' ids begin with.
        text_field: the field of a json record, or the column of a parquet file, that holds the text.
    """
    n_documents = 0
    try:
        for document in _documents(location, name, text_field):
            n_documents += 1
            yield document
    except _DAMAGE:
        yield set_aside(name, "damaged_file")
    else:
        if n_documents == 0:
            yield set_aside(name, "no_documents")


def _documents(location: Location, name: str, text_field: str) -> Iterator[RawDocument]:
    kind = kind_of(location)
    with open_file(location) as file:
        if kind == ".txt":
            yield from _text_documents(file, location, name)
        elif kind == ".parquet":
            yield from _parquet_documents(file, name, text_field)
        elif kind in (".html", ".htm"):
            yield _html_document(file, name)
        elif kind in (".warc", ".wet"):
            yield from archived_documents(file, name)
        else:
            for place, record in _json_records(file, name, kind):
                yield _record_document(place, record, text_field)


def _lines(file: ByteStream) -> Iterator[tuple[int, bytes | None]]:
    """Each line with its number, from 1; None instead of a line that is too long to be a document."""
    number = 0
    while line := file.readline(MAX_DOCUMENT_BYTES):
        number += 1
        if len(line) == MAX_DOCUMENT_BYTES and not line.endswith(b"\n"):
            while (rest := file.readline(MAX_DOCUMENT_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield number, None
        else:
            yield number, line


def _text_documents(file: ByteStream, location: Location, name: str) -> Iterator[RawDocument]:
    encoding = encodings.marked_encoding(file.peek(4)[:4])
    if encoding not in (None, "utf-8-sig"):
        yield set_aside(name, f"not_utf8:{encoding}")
        return
    file_problem = None
    for number, part in enumerate(_parts(file), start=1):
        place = f"{name}:{number}"
        if part is None:
            yield set_aside(place, "too_large")
            continue
        text, problem = decode_text(part)
        if problem and problem.startswith(encodings.NOT_UTF8):
            # A part alone may have too few letters to tell; all parts of a file have one encoding.
            problem = file_problem = file_problem or encodings.not_utf8(_undecodable(location))
        yield RawDocument(place, text, problem=problem)


def _undecodable(location: Location) -> bytes:
    """The first lines of a file that are not UTF-8."""
    found = bytearray()
    with open_file(location) as file:
        for _, line in _lines(file):
            if line is not None and decode_text(line)[1]:
                found += line
                if len(found) > encodings.GUESSED_FROM_BYTES:
                    break
    return bytes(found)


def _parts(file: ByteStream) -> Iterator[bytes | None]:
    """A text file cut at separators, and at empty lines where a part is long; None for a monstrous line."""
    part = bytearray()
    for _, line in _lines(file):
        is_cut = line is None or line.strip() == SEPARATOR
        is_long = len(part) >= PART_BYTES
        if is_cut or (is_long and not (line or b"").strip()) or len(part) >= 8 * PART_BYTES:
            if part.strip():
                yield bytes(part)
            part.clear()
        if line is None:
            yield None
        elif not is_cut:
            part += line
    if part.strip():
        yield bytes(part)


def _html_document(file: ByteStream, name: str) -> RawDocument:
    page = file.read(MAX_DOCUMENT_BYTES + 1)
    if len(page) > MAX_DOCUMENT_BYTES:
        return set_aside(name, "too_large")
    return RawDocument(name, decode_page(page), is_html=True)


def _parquet_documents(file: ByteStream, name: str, text_field: str) -> Iterator[RawDocument]:
    number = 0
    with _parquet_file(file) as opened:
        for batch in opened.iter_batches(PARQUET_ROWS_AT_ONCE, columns=[text_field]):
            if batch.num_columns == 0:
                yield set_aside(name, "no_text_field")
                return
            for value in _values(batch.column(0)):
                number += 1
                yield _record_document(f"{name}:{number}", {text_field: value}, text_field)


@contextmanager
def _parquet_file(file: ByteStream) -> Iterator[pyarrow.parquet.ParquetFile]:
    """Parquet is read from its end on. Where it was compressed as a whole it is unpacked on the disk first: one kind
    cannot go back at all, the other begins anew each time."""
    if isinstance(file, gzip.GzipFile) or not file.seekable():
        with tempfile.TemporaryFile() as unpacked:
            shutil.copyfileobj(file, unpacked)
            yield pyarrow.parquet.ParquetFile(unpacked)
    else:
        yield pyarrow.parquet.ParquetFile(file)


def _values(column: pyarrow.Array) -> list[Any]:
    try:
        return column.to_pylist()
    except UnicodeDecodeError:  # a writer that did not check what it wrote
        return column.cast(pyarrow.large_binary()).to_pylist()


def _json_records(file: ByteStream, name: str, kind: str) -> Iterator[tuple[str, Any]]:
    """Each record of a json or jsonl file with its place, or with its problem as a RawDocument.

    A json file that is neither a list nor, as a whole, one record is jsonl under another name, as C4 is published.
    """
    beginning = b""
    if kind == ".json":
        while (byte := file.read(1)).isspace() or byte in _BYTE_ORDER_MARK:
            if not byte:
                return
            beginning += byte
        beginning += byte
        if byte == b"[":
            yield from _json_list(beginning + file.read(MAX_JSON_FILE_BYTES), name)
            return
        beginning += file.readline(MAX_DOCUMENT_BYTES)
        if not isinstance(_parse_json(beginning, name), dict):
            # Perhaps a record over several lines; else lines, of which the first is none.
            beginning += file.read(MAX_JSON_FILE_BYTES)
            if isinstance(record := _parse_json(beginning, name), dict):
                yield f"{name}:1", record
                return
            beginning += file.readline(MAX_DOCUMENT_BYTES)
    head = list(_lines(io.BufferedReader(io.BytesIO(beginning))))
    for number, line in itertools.chain(head, ((n + len(head), line) for n, line in _lines(file))):
        place = f"{name}:{number}"
        if line is None:
            yield place, set_aside(place, "too_large")
        elif line.strip():
            yield place, _parse_json(line, place)


def _json_list(data: bytes, name: str) -> Iterator[tuple[str, Any]]:
    """The records of a json file that is one list."""
    if len(data) > MAX_JSON_FILE_BYTES:
        yield name, set_aside(name, "too_large")
        return
    records = _parse_json(data, name)
    for number, record in enumerate(records if isinstance(records, list) else [records], start=1):
        yield f"{name}:{number}", record


def _parse_json(data: bytes, place: str) -> Any:
    text, problem = decode_text(data)
    if problem:
        return set_aside(place, problem)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return set_aside(place, "not_json")


def _record_document(place: str, record: Any, text_field: str) -> RawDocument:
    if isinstance(record, RawDocument):
        return record
    if not isinstance(record, dict) or text_field not in record:
        return set_aside(place, "no_text_field")
    text = record[text_field]
    if isinstance(text, bytes):
        text, problem = decode_text(text)
        if problem:
            return set_aside(place, problem)
    if not isinstance(text, str):
        return set_aside(place, "text_is_not_a_string")
    if len(text) > MAX_DOCUMENT_BYTES:
        return set_aside(place, "too_large")
    # JSON can spell half of a surrogate pair, which is no character and cannot be written as UTF-8.
    return RawDocument(place, text if text.isascii() else text.encode("utf-8", "replace").decode())


def _fields_of_records(location: Location) -> Iterator[list[str]]:
    kind = kind_of(location)
    if kind not in (".parquet", ".jsonl", ".json"):
        return
    with open_file(location) as file:
        if kind == ".parquet":
            with _parquet_file(file) as opened:
                yield opened.schema_arrow.names
        else:
            for _, record in _json_records(file, "", kind):
                if isinstance(record, dict):
                    yield list(record)
