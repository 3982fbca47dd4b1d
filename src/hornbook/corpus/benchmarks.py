"""Benchmarks: what a model will be asked, as texts that no document of its corpus may give away."""

import csv
import glob
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hornbook.corpus.files import expanded, places_of
from hornbook.errors import UserError


class Item(NamedTuple):
    """One item of a benchmark: its name within it, and the passages that no document may have."""

    id: str
    passages: tuple[str, ...]


class Benchmark(NamedTuple):
    """What a model will be asked, under a name that no other of a recipe has."""

    name: str
    items: Sequence[Item]


def read_benchmarks(patterns: Iterable[str]) -> list[Benchmark]:
    """The benchmarks in files: each row of a jsonl or csv file (also .gz) is an item, its texts are the passages.

    Raises UserError where a pattern stands for no such file, or where a file cannot be read as what it is called.
    """
    paths = list(dict.fromkeys(path for pattern in patterns for path in benchmark_files(pattern)))
    return [
        Benchmark(name, [Item(str(row), tuple(_texts(value))) for row, value in _rows(path)])
        for name, path in zip(places_of(paths), paths, strict=True)
    ]


def benchmark_files(pattern: str) -> list[Path]:
    """The files that one entry of corpus.decontaminate_against stands for, sorted."""
    place = pattern.removeprefix("files:")
    path = expanded(place)
    found = [path] if path.is_file() else [Path(name) for name in glob.glob(str(path), recursive=True)]
    files = sorted(file for file in found if file.is_file() and _suffix(file) in (".jsonl", ".csv"))
    if not pattern.startswith("files:") or not files:
        raise UserError(
            f"corpus.decontaminate_against: {pattern!r} names no benchmark. Use files:PATH_OR_GLOB with files that "
            "end in .jsonl or .csv, plain or with .gz."
        )
    return files


def _suffix(path: Path) -> str:
    return Path(path.stem).suffix if path.suffix == ".gz" else path.suffix


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Each row with its number, from 1."""
    number = 0
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig", newline="") as file:
            if _suffix(path) == ".csv":
                yield from enumerate(csv.DictReader(file), start=1)
            else:
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        yield number, json.loads(line)
    except (OSError, EOFError, zlib.error, ValueError, RecursionError, csv.Error) as problem:
        place = f"{path}:{number}" if number else str(path)
        raise UserError(
            f"corpus.decontaminate_against: {place} cannot be read ({problem}). Each line of a jsonl file must be JSON."
        ) from None


def _texts(value: Any) -> Iterator[str]:
    """All strings in a row, however deep. Half of a surrogate pair, which JSON can spell, is no character."""
    if isinstance(value, str):
        yield value.encode("utf-8", "replace").decode()
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)
