"""Rows of the user's files and of data sets on a hub, each with its place, so that an error can name the line.

Training data is not guessed at: whoever reads a row either knows its form or stops the run with its place.
"""

import csv
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hornbook.corpus.engine import load_daft
from hornbook.corpus.files import TABLE_KINDS, find_files, kind_of, open_file
from hornbook.corpus.sources import HUB_PREFIX
from hornbook.errors import UserError

ROW_KINDS = (".jsonl", ".json", *TABLE_KINDS)

PlacedRow = tuple[str, Any]
"""Where a row stands, such as "talks.jsonl, line 3", and what it holds."""


def read_rows(source: str, field: str) -> Iterator[PlacedRow]:
    """Every row of `files:PATH` (json, jsonl, csv, tsv; also .gz and .zst) or of `hf://datasets/OWNER/NAME`.

    A row is whatever JSON holds; a row of a table is a list of texts. `field` is the recipe's field that named the
    source. Raises UserError where the source is of no known form or cannot be read.
    """
    if source.startswith("files:"):
        for path in find_row_files(source):
            yield from _rows_of_file(path)
    elif source.startswith(HUB_PREFIX):
        yield from _rows_of_hub(source, field)
    else:
        raise UserError(f"{field}: {source!r} is neither storyworld nor files:PATH nor {HUB_PREFIX}OWNER/NAME")


def find_row_files(source: str) -> list[Path]:
    """The files that `files:PATH` stands for, sorted. Raises UserError where there is none."""
    return find_files(source.removeprefix("files:"), ROW_KINDS)


def fields_of(row: Any) -> str:
    """What a row has, to tell whoever wrote it: the names of its fields, or its type."""
    return ", ".join(map(str, row)) if isinstance(row, dict) else type(row).__name__


def _rows_of_file(path: Path) -> Iterator[PlacedRow]:
    text = _text(path)
    if kind_of(path) in TABLE_KINDS:
        lines = io.StringIO(text, newline="")
        csv.field_size_limit(2**31 - 1)  # texts may be long; Python's own limit is 131,072 characters
        # Quotes of a tsv are text: messages are full of them, and what is in them has no tab.
        if kind_of(path) == ".tsv":
            table = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        else:
            table = csv.reader(lines)
        try:
            yield from ((f"{path}, line {table.line_num}", row) for row in table if row)
        except csv.Error as problem:
            raise UserError(
                f"{path}, line {table.line_num}: cannot be read ({problem}). Perhaps a quote before it is never closed."
            ) from None
    elif kind_of(path) == ".jsonl":
        # Not splitlines: JSON may hold line ends of other kinds, such as U+2028, as they are.
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                place = f"{path}, line {number}"
                yield place, _from_json(line, place)
    else:
        rows = _from_json(text, str(path))
        if not isinstance(rows, list):
            raise UserError(f"{path}: holds no list of rows")
        yield from ((f"{path}, row {number}", row) for number, row in enumerate(rows, start=1))


def _rows_of_hub(source: str, field: str) -> Iterator[PlacedRow]:
    try:
        frame = load_daft().read_huggingface(source.removeprefix(HUB_PREFIX).strip("/"))
        rows = iter(frame.iter_rows())
    except Exception as problem:  # what Daft raises depends on where the connection failed
        raise UserError(
            f"{field}: {source} cannot be read ({str(problem).splitlines()[0]}). Check its name and the network, "
            f"or point {field} at files on this machine: files:PATH."
        ) from None
    yield from ((f"{source}, row {number}", row) for number, row in enumerate(rows, start=1))


def _text(path: Path) -> str:
    try:
        with open_file(path) as stream:
            return stream.read().decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as problem:
        raise UserError(f"{path}: cannot be read as UTF-8 text, plain or compressed ({problem})") from None


def _from_json(text: str, place: str) -> Any:
    try:
        return _sound(json.loads(text), place)
    except json.JSONDecodeError as problem:
        raise UserError(f"{place}: is not valid JSON ({problem})") from None
    except RecursionError:
        raise UserError(f"{place}: is nested too deeply to be a row") from None


def _sound(row: Any, place: str) -> Any:
    """The row, if its texts are texts. JSON can spell half of a character, as cut-off emoji leave it."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as problem:
        half = problem.object[problem.start]
        raise UserError(f"{place}: holds half of a character (U+{ord(half):04X}), which is no text") from None
    return row
