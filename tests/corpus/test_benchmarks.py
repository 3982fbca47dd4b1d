"""Benchmarks are read from files, every text of a row as a passage."""

import csv
import gzip
import json
from pathlib import Path

import pytest

from hornbook.corpus.benchmarks import Item, read_benchmarks
from hornbook.errors import UserError


def test_benchmarks_are_read_from_jsonl_and_csv_compressed_or_not(tmp_path: Path):
    rows = [
        {"question": "Why is that so?", "choices": ["this", {"deep": "that"}], "gold": 1},
        {"question": "line\u2028break"},
    ]
    with gzip.open(tmp_path / "a.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with open(tmp_path / "b.csv", "w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([["Question", "Answer"], ["Two\nlines?", "Yes"]])
    first, second = read_benchmarks([f"files:{tmp_path}/*"])
    assert (first.name, second.name) == ("a.jsonl.gz", "b.csv")
    assert first.items == [Item("1", ("Why is that so?", "this", "that")), Item("2", ("line\u2028break",))]
    assert second.items == [Item("1", ("Two\nlines?", "Yes"))]


def test_half_a_surrogate_pair_is_no_character_of_a_benchmark(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text('{"question": "\\ud800 why?"}')
    ((item,),) = (benchmark.items for benchmark in read_benchmarks([f"files:{tmp_path}/a.jsonl"]))
    assert item.passages == ("? why?",)


@pytest.mark.parametrize(
    ("pattern", "what"),
    [
        ("nowhere.jsonl", "names no benchmark"),
        ("files:nowhere.jsonl", "names no benchmark"),
        ("files:bad.jsonl", "bad.jsonl:3 cannot be read"),
        ("files:deep.jsonl", "deep.jsonl:1 cannot be read"),
    ],
)
def test_a_benchmark_that_cannot_be_read_is_named(tmp_path, monkeypatch, pattern, what):
    monkeypatch.chdir(tmp_path)
    Path("bad.jsonl").write_text("{}\n\nno json")
    Path("deep.jsonl").write_text("[" * 100_000)
    with pytest.raises(UserError, match=f"corpus.decontaminate_against: .*{what}"):
        read_benchmarks([pattern])
