"""Rows of people's files: each with its place, and what is no row told with it."""

from pathlib import Path

import pytest

from hornbook.errors import UserError
from hornbook.stages.rows import read_rows


def test_a_text_may_be_longer_than_pythons_own_limit_of_a_field(tmp_path: Path) -> None:
    (tmp_path / "long.csv").write_text("ham," + "word " * 40_000 + "\n")
    ((_, row),) = read_rows(f"files:{tmp_path}/long.csv", "classify.source")
    assert len(row[1]) == 200_000


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("a.jsonl", '{"text": "whole"}\n{"text": "hi \\ud83d"}\n', r"a.jsonl, line 2: holds half of a character"),
        ("a.jsonl", "[" * 100_000 + "\n", "a.jsonl, line 1: is nested too deeply"),
        ("a.jsonl", "{bad\n", "a.jsonl, line 1: is not valid JSON"),
        ("a.json", "{}", "a.json: holds no list of rows"),
    ],
)
def test_what_is_no_row_is_told_with_its_place(name: str, text: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=complaint):
        list(read_rows(f"files:{tmp_path}/{name}", "finetune.source"))
