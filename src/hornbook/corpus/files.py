"""Documents out of the user's own files, whatever their kind, in bounded memory.

What cannot be read is never fatal and never lost: it comes as a document that has a problem instead of a
text, with the place where it stands. The one exception is a field that a whole file lacks, because then the
recipe is wrong.
"""

import glob
import gzip
import io
import itertools
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
import pyarrow.parquet

from hornbook.errors import UserError

KINDS = (".txt", ".jsonl", ".json", ".parquet", ".html", ".htm")
COMPRESSIONS = (".gz", ".zst")
# A plain text file with several documents parts them by a line that holds only this, as the published
# TinyStories do.
SEPARATOR = b"<|endoftext|>"
# A plain text file without separators is cut at empty lines into parts of about this size: a book as one
# document could be neither shuffled nor set apart for validation.
PART_BYTES = 16_384
# Longer lines, and pages, are set aside: they are dumps and accidents, and would have to fit in memory
# several times.
MAX_DOCUMENT_BYTES = 10_000_000
RECORDS_LOOKED_AT_FOR_FIELDS = 100
# What the readers raise where a file ends early, is no archive of its kind, or may not be read.
_DAMAGE = (OSError, EOFError, zlib.error, pyarrow.ArrowException)

_File = gzip.GzipFile | io.BufferedReader


class RawDocument(NamedTuple):
    """A document as it was found.

    Attributes:
        id: where it stands: the file and, where a file holds several, the line, record or part (from 1).
        text: the text or HTML; "" where there is a problem.
        is_html: whether `text` is HTML.
        problem: why the document was set aside, or None.
        expected: what a perfect cleaner returns ("": the document should be dropped); None where nobody
            knows.
        bits: -log2 of the probability of `expected` under its generator; None where there is none.
        labels: what is known to be wrong with the document.
    """

    id: str
    text: str
    is_html: bool = False
    problem: str | None = None
    expected: str | None = None
    bits: float | None = None
    labels: tuple[str, ...] = ()


def set_aside(place: str, problem: str) -> RawDocument:
    """A document that could not be read."""
    return RawDocument(place, "", problem=problem)


def find_files(pattern: str) -> list[Path]:
    """The readable files that a path, a folder or a glob stands for, sorted.

    Raises UserError where there is none.
    """
    path = Path(pattern).expanduser()
    if path.is_dir():
        found = [p for p in path.rglob("*") if not any(part.startswith(".") for part in p.relative_to(path).parts)]
    elif path.is_file():
        found = [path]
    else:
        found = [Path(name) for name in glob.glob(str(path), recursive=True)]
    readable = sorted(p for p in found if p.is_file() and _kind(p) in KINDS)
    if not readable:
        kinds = ", ".join(kind.removeprefix(".") for kind in KINDS)
        raise UserError(
            f"files:{pattern}: {'no file there can be read' if found else 'there is no such file'}. "
            f"Hornbook reads {kinds}, plain or with .gz or .zst; relative paths start at the current folder."
        )
    return readable


def place_of(path: Path, files: list[Path]) -> str:
    """The name of a file within the folder that all the files share."""
    return path.relative_to(os.path.commonpath([p.parent for p in files])).as_posix()


def check_text_field(path: Path, text_field: str) -> None:
    """Raise UserError where the first records of a file are sound but none of them has the text field."""
    seen: list[str] = []
    try:
        for fields in itertools.islice(_fields_of_records(path), RECORDS_LOOKED_AT_FOR_FIELDS):
            if text_field in fields:
                return
            seen.extend(field for field in fields if field not in seen)
    except _DAMAGE:
        return  # reading the file will set it aside
    if seen:
        raise UserError(
            f"{path}: has no field {text_field!r}; it has {', '.join(map(repr, seen))}. "
            "Name the field that holds the text with corpus.text_field."
        )


def read_documents(path: Path, name: str, text_field: str) -> Iterator[RawDocument]:
    """The documents of one file, those that cannot be read among them.

    Args:
        path: the file.
        name: what the documents' ids begin with.
        text_field: the field of a json record, or the column of a parquet file, that holds the text.
    """
    kind = _kind(path)
    try:
        if kind == ".txt":
            yield from _text_documents(path, name)
        elif kind == ".parquet":
            yield from _parquet_documents(path, name, text_field)
        elif kind in (".html", ".htm"):
            yield _html_document(path, name)
        else:
            for place, record in _json_records(path, name):
                yield _record_document(place, record, text_field)
    except _DAMAGE:
        yield set_aside(name, "damaged_file")


def _kind(path: Path) -> str:
    """The suffix that says what is in the file, without that of its compression."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _open(path: Path) -> _File:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rb")
    if path.suffix.lower() == ".zst":
        return io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd"))
    return open(path, "rb")


def _lines(file: _File) -> Iterator[tuple[int, bytes | None]]:
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


def _text_documents(path: Path, name: str) -> Iterator[RawDocument]:
    with _open(path) as file:
        for number, part in enumerate(_parts(file), start=1):
            place = f"{name}:{number}"
            if part is None:
                yield set_aside(place, "too_large")
                continue
            try:
                yield RawDocument(place, part.decode("utf-8-sig"))
            except UnicodeDecodeError:
                yield set_aside(place, "not_utf8")


def _parts(file: _File) -> Iterator[bytes | None]:
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


def _html_document(path: Path, name: str) -> RawDocument:
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    with _open(path) as file:
        page = file.read(MAX_DOCUMENT_BYTES + 1)
    if len(page) > MAX_DOCUMENT_BYTES:
        return set_aside(name, "too_large")
    return RawDocument(name, bytes_to_str(page, detect_encoding(page) or "utf-8"), is_html=True)


def _parquet_documents(path: Path, name: str, text_field: str) -> Iterator[RawDocument]:
    number = 0
    for batch in pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=1024, columns=[text_field]):
        for text in batch.column(0).to_pylist():
            number += 1
            yield _record_document(f"{name}:{number}", {text_field: text}, text_field)


def _json_records(path: Path, name: str) -> Iterator[tuple[str, Any]]:
    """Each record of a json or jsonl file with its place, or with its problem as a RawDocument."""
    with _open(path) as file:
        if _kind(path) == ".json":
            records = _parse_json(file.read(), name)
            for number, record in enumerate(records if isinstance(records, list) else [records], start=1):
                yield f"{name}:{number}", record
        else:
            for number, line in _lines(file):
                place = f"{name}:{number}"
                if line is None:
                    yield place, set_aside(place, "too_large")
                elif line.strip():
                    yield place, _parse_json(line, place)


def _parse_json(data: bytes, place: str) -> Any:
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return set_aside(place, "not_utf8")
    except (ValueError, RecursionError):
        return set_aside(place, "not_json")


def _record_document(place: str, record: Any, text_field: str) -> RawDocument:
    if isinstance(record, RawDocument):
        return record
    if not isinstance(record, dict) or text_field not in record:
        return set_aside(place, "no_text_field")
    text = record[text_field]
    if not isinstance(text, str):
        return set_aside(place, "text_is_not_a_string")
    if len(text) > MAX_DOCUMENT_BYTES:
        return set_aside(place, "too_large")
    # JSON can spell half of a surrogate pair, which is no character and cannot be written as UTF-8.
    return RawDocument(place, text if text.isascii() else text.encode("utf-8", "replace").decode())


def _fields_of_records(path: Path) -> Iterator[list[str]]:
    if _kind(path) == ".parquet":
        yield pyarrow.parquet.ParquetFile(path).schema_arrow.names
    elif _kind(path) in (".jsonl", ".json"):
        for _, record in _json_records(path, ""):
            if isinstance(record, dict):
                yield list(record)
