import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hornbook.errors import UserError
from hornbook.evaluation.free_answers import Asked, free_scores, read_free, write_answers


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "answers", "text", "is_right"),
    [
        ("triviaqa", ("The Lamp", "lamp"), " the lamp. It is", True),
        ("triviaqa", ("lamp",), " a lamp", False),
        ("triviaqa", ("...",), " !", False),
        ("gsm8k", ("So 1,200.\n#### 1,200",), " It is\n#### 1200.\nQuestion: #### 3", True),
        ("gsm8k", ("#### 12",), " It is 12", False),
        ("gsm8k", ("no number",), " none", False),
    ],
)
def test_what_is_written_is_graded_as_the_harness_does(
    name: str, answers: tuple[str, ...], text: str, is_right: bool, scripted_engine: Callable[..., Any]
):
    (written,) = write_answers(scripted_engine([], [text]), name, [Asked("Question: What?\nAnswer:", answers)])
    assert written.is_right == is_right
    assert free_scores([written])["accuracy"] == float(is_right)


def test_gsm8k_shows_the_first_worked_examples_of_its_training_file(tmp_path: Path):
    write(tmp_path, "gsm8k_test", [{"question": "Q?", "answer": "1\n#### 1"}])
    write(tmp_path, "gsm8k_train", [{"question": f"E{number}?", "answer": f"#### {number}"} for number in range(9)])
    (asked,) = read_free("gsm8k", tmp_path)
    assert asked.prompt.startswith("Question: E0?\nAnswer: #### 0\n\nQuestion: E1?")
    assert asked.prompt.endswith("Question: E4?\nAnswer: #### 4\n\nQuestion: Q?\nAnswer:")
    assert "E5" not in asked.prompt


def test_triviaqa_is_read_in_both_forms(tmp_path: Path):
    rows = [
        {"context": "Question: Who?\nAnswer:", "answer": "Mira", "aliases": ["Mira", "M"]},
        {"question": "Who", "answer": {"value": "Mira", "aliases": ["Mira", "M"]}},
    ]
    write(tmp_path, "triviaqa", rows)
    first, second = read_free("triviaqa", tmp_path)
    assert first == second == Asked("Question: Who?\nAnswer:", ("Mira", "M"))
    assert len(read_free("triviaqa", tmp_path, limit=1)) == 1


def test_examples_without_a_file_of_them_are_the_users_mistake(tmp_path: Path):
    write(tmp_path, "triviaqa", [{"context": "Q", "answer": "a", "aliases": ["a"]}])
    with pytest.raises(UserError, match="has no triviaqa_train"):
        read_free("triviaqa", tmp_path, shots=3)
