import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hornbook.errors import UserError
from hornbook.evaluation import core
from hornbook.evaluation.core import CORE_TASKS, core_scores, read_core
from hornbook.inference.engine import Engine
from hornbook.model.transformer import Transformer
from hornbook.tokenizer.tokenizer import Tokenizer


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


@pytest.fixture
def engine(make_model: Callable[..., Transformer], tokenizer: Tokenizer) -> Engine:
    return Engine(make_model(), tokenizer)


def test_there_are_twenty_two_tasks():
    assert len(CORE_TASKS) == 22


def test_examples_end_in_their_answers_and_are_never_the_item_itself(tmp_path: Path):
    write(
        tmp_path, "piqa", [{"query": f"Question: {n}?\n", "choices": [f"a{n}", f"b{n}"], "gold": 0} for n in range(20)]
    )
    for number, item in enumerate(read_core("piqa", tmp_path)):
        *shown, asked = item.contexts[0].split("\n\n")
        assert len(shown) == 10
        assert all(one.startswith("Question: ") and "?\nAnswer: a" in one for one in shown)
        assert asked == f"Question: {number}?\nAnswer:"
        assert not any(one.startswith(f"Question: {number}?") for one in shown)


def test_core_is_the_mean_of_centered_accuracies_and_only_of_all_tasks(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
):
    few = {name: CORE_TASKS[name] for name in ("boolq", "winograd", "lambada_openai")}
    monkeypatch.setattr(core, "CORE_TASKS", few)
    write(tmp_path, "boolq", [{"query": f"Is it {n}?", "choices": ["no", "yes"], "gold": n % 2} for n in range(12)])
    options = [{"context_options": ["An ox", "A cat"], "continuation": f"is {n}.", "gold": 1} for n in range(8)]
    write(tmp_path, "winograd_wsc", options)
    some = core_scores(engine, tmp_path)
    assert some["core"] is None
    assert some["missing"] == ["lambada_openai"]
    write(tmp_path, "lambada_openai", [{"context": "I saw the", "continuation": "cat"}])
    all_there = core_scores(engine, tmp_path)
    tasks = all_there["tasks"]
    assert all_there["missing"] == []
    assert all_there["core"] == pytest.approx(sum(one["centered"] for one in tasks.values()) / 3)
    assert [tasks[name]["guessing"] for name in few] == [0.62, 0.5, 0.0]
    for one in tasks.values():
        assert one["centered"] == pytest.approx((one["accuracy"] - one["guessing"]) / (1 - one["guessing"]))


def test_a_model_that_finds_everything_as_likely_scores_nothing(
    tmp_path: Path, make_model: Callable[..., Transformer], tokenizer: Tokenizer
):
    write(tmp_path, "copa", [{"query": "It rained so", "choices": ["he ran", "he ran"], "gold": 0}] * 3)
    scores = core_scores(Engine(make_model(std=0.0), tokenizer), tmp_path)["tasks"]["copa"]
    assert (scores["accuracy"], scores["centered"]) == (0.0, -1.0)


def test_without_any_file_the_folder_is_named(tmp_path: Path, engine: Engine):
    with pytest.raises(UserError, match="no task of CORE"):
        core_scores(engine, tmp_path)


def test_the_tasks_whose_real_files_are_there_are_read(real_data: Path):
    items = read_core("bigbench_operators", real_data / "benchmarks", 5)
    assert len(items) == 5
    assert all(len(item.choices) == 1 for item in items)
