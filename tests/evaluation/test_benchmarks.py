import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from hornbook.errors import UserError
from hornbook.evaluation.benchmarks import BENCHMARKS, Item, read_benchmark

ROWS: dict[str, list[tuple[dict[str, Any], list[str], int]]] = {
    "lambada_openai": [
        ({"context": "I saw the", "continuation": "cat"}, ["I saw the cat"], 0),
        ({"text": "I saw the cat"}, ["I saw the cat"], 0),
    ],
    "hellaswag": [
        (
            {"query": "Tango: They", "choices": ["dance.", "sit."], "gold": 1},
            ["Tango: They dance.", "Tango: They sit."],
            1,
        ),
        (
            {
                "activity_label": "Tango",
                "ctx_a": "A [x]",
                "ctx_b": "they",
                "endings": ["[step] go [title] on"],
                "label": "0",
            },
            ["Tango: A They  go. on"],
            0,
        ),
    ],
    "blimp": [({"sentence_good": "A b.", "sentence_bad": "B a.", "UID": "x"}, [" A b.", " B a."], 0)],
    "arc_easy": [
        ({"query": "Question: Why?", "choices": ["a"], "gold": 0}, ["Question: Why?\nAnswer: a"], 0),
        (
            {"question": "Why?", "choices": {"text": ["a", "b"], "label": ["1", "2"]}, "answerKey": "2"},
            ["Question: Why?\nAnswer: a", "Question: Why?\nAnswer: b"],
            1,
        ),
    ],
    "piqa": [
        ({"query": "Question: How?\n", "choices": ["a"], "gold": 0}, ["Question: How?\nAnswer: a"], 0),
        (
            {"goal": "How?", "sol1": "a", "sol2": "b", "label": 1},
            ["Question: How?\nAnswer: a", "Question: How?\nAnswer: b"],
            1,
        ),
    ],
    "winogrande": [
        (
            {"sentence": "An _ is red.", "option1": "ox", "option2": "egg", "answer": "2"},
            ["An ox is red.", "An egg is red."],
            1,
        )
    ],
}


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    (folder / f"{name}.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))


@pytest.mark.parametrize("name", ROWS)
def test_a_row_becomes_the_texts_of_the_harness(name: str, tmp_path: Path):
    write(tmp_path, BENCHMARKS[name].files[0], [row for row, _, _ in ROWS[name]])
    items = read_benchmark(name, tmp_path, shots=0)
    for item, (_, texts, gold) in zip(items, ROWS[name], strict=True):
        assert [f"{context} {choice}" for context, choice in zip(item.contexts, item.choices, strict=True)] == texts
        assert item.gold == gold


def test_mmlu_shows_the_first_examples_of_its_subject(tmp_path: Path):
    def row(subject: str, number: int) -> dict[str, Any]:
        return {
            "question": f"{subject} {number}?",
            "subject": subject,
            "choices": ["w", "x", "y", "z"],
            "answer": number % 4,
        }

    write(tmp_path, "mmlu_test", [row("high_art", 9)])
    write(tmp_path, "mmlu_dev", [row(subject, number) for number in range(7) for subject in ("high_art", "law")])
    (item,) = read_benchmark("mmlu", tmp_path)
    assert item.contexts[0].startswith(
        "The following are multiple choice questions (with answers) about high art.\n\n"
        "high_art 0?\nA. w\nB. x\nC. y\nD. z\nAnswer: A\n\nhigh_art 1?"
    )
    assert item.contexts[0].count("Answer:") == 6
    assert item.contexts[0].endswith("Answer: A\n\nhigh_art 9?\nA. w\nB. x\nC. y\nD. z\nAnswer:")
    assert "law" not in item.contexts[0]


def test_examples_are_other_items_and_the_limit_takes_items_evenly(tmp_path: Path):
    rows = [{"query": f"Question: {number}?", "choices": ["a", "b"], "gold": 0} for number in range(10)]
    write(tmp_path, "arc_easy", rows)
    items = read_benchmark("arc_easy", tmp_path, limit=5, shots=9)
    assert [item.contexts[0].rsplit("Question: ")[-1][0] for item in items] == ["0", "2", "4", "6", "8"]
    for item in items:
        assert item.contexts[0].count("Question") == 10
        assert len(set(item.contexts[0].split("\n\n"))) == 10
    assert items == read_benchmark("arc_easy", tmp_path, limit=5, shots=9)


def test_truthfulqa_is_read_from_its_csv(tmp_path: Path):
    table = 'Question,Best Answer,Incorrect Answers\nWhy?,Because,"No; Never; "\n'
    (tmp_path / "TruthfulQA.csv").write_text("\ufeff" + table, encoding="utf-8")
    (item,) = read_benchmark("truthfulqa_mc1", tmp_path)
    assert item.choices == ("Because", "No", "Never")
    assert item.contexts[0].endswith("Barcelona, Spain.\n\nQ: Why?\nA:")


@pytest.mark.parametrize(("name", "complaint"), [("piqa", "has no piqa.jsonl"), ("blimp", "a row is not as")])
def test_what_is_not_there_is_the_users_mistake(name: str, complaint: str, tmp_path: Path):
    write(tmp_path, "blimp", [{"other": 1}])
    with pytest.raises(UserError, match=complaint):
        read_benchmark(name, tmp_path)


def test_the_real_files_are_read_whole(real_data: Path):
    counts = {"lambada_openai": 5153, "hellaswag": 1000, "blimp": 67000, "arc_easy": 2376, "piqa": 1838, "mmlu": 14042}
    for name, count in counts.items():
        assert len(read_benchmark(name, real_data / "benchmarks")) == count


def test_a_folder_in_the_hubs_layout_is_read_by_its_split(tmp_path: Path):
    from pyarrow import Table, parquet

    rows = [{"goal": f"How {n}?", "sol1": "a", "sol2": "b", "label": 1} for n in range(3)]
    folder = tmp_path / "piqa" / "plain_text"
    folder.mkdir(parents=True)
    parquet.write_table(Table.from_pylist(rows[:2]), folder / "validation-00000-of-00002.parquet")
    parquet.write_table(Table.from_pylist(rows[2:]), folder / "validation-00001-of-00002.parquet")
    parquet.write_table(Table.from_pylist([{"goal": "no label"}]), folder / "test-00000-of-00001.parquet")
    items = read_benchmark("piqa", tmp_path)
    assert [item.contexts[0] for item in items] == [f"Question: How {n}?\nAnswer:" for n in range(3)]
    assert {item.gold for item in items} == {1}


def test_mmlus_examples_come_from_the_hubs_folder_too(tmp_path: Path):
    row = {"question": "Why?", "subject": "law", "choices": ["w", "x", "y", "z"], "answer": 1}
    folder = tmp_path / "mmlu" / "all"
    folder.mkdir(parents=True)
    for split, n in (("test", 2), ("dev", 5)):
        (folder / f"{split}.jsonl").write_text("\n".join([json.dumps(row)] * n), encoding="utf-8")
    items = read_benchmark("mmlu", tmp_path)
    assert len(items) == 2
    assert items[0].contexts[0].count("Answer: B") == 5


def test_a_file_that_breaks_off_and_an_impossible_row_are_the_users_mistake(tmp_path: Path):
    whole = gzip.compress(b'{"query": "a", "choices": ["b", "c"], "gold": 0}\n' * 500)
    (tmp_path / "hellaswag.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cannot be read to its end"):
        read_benchmark("hellaswag", tmp_path)
    with pytest.raises(ValueError, match="choice 7 is right, but there are 2"):
        Item(("a", "a"), ("b", "c"), 7)
    with pytest.raises(ValueError, match="a choice is empty"):
        Item(("a", "a"), ("b", ""), 0)
