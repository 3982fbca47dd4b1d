"""Pairs of answers are read from the files that people have, and a row that is none is named with its place."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from hornbook.errors import UserError
from hornbook.recipe_data import StoryworldSection
from hornbook.stages.preference_pairs import PreferencePair, read_preference_pairs

WORLD = StoryworldSection()
ASKED = [{"role": "user", "content": "Who?"}]
PAIR = PreferencePair(ASKED, "Mira.", "Guess.")
TALK = [{"from": "human", "value": "Who?"}]


def read(path: Path) -> list[PreferencePair]:
    return list(read_preference_pairs([f"files:{path}"], WORLD, 0))


def write(folder: Path, rows: list[Any], name: str = "pairs.jsonl") -> Path:
    path = folder / name
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Who?", "chosen": "Mira.", "rejected": "Guess."},
        {"prompt": ASKED, "chosen": "Mira.", "rejected": "Guess."},
        {"instruction": "Who?", "input": "", "output": "Mira.", "chosen": "Mira.", "rejected": "Guess."},
        {"messages": ASKED, "chosen": "Mira.", "rejected": "Guess."},
        {
            "conversations": TALK,
            "chosen": {"from": "gpt", "value": "Mira."},
            "rejected": {"from": "gpt", "value": "Guess."},
        },
        {
            "chosen": [*ASKED, {"role": "assistant", "content": "Mira."}],
            "rejected": [*ASKED, {"role": "assistant", "content": "Guess."}],
        },
        {"chosen": "\n\nHuman: Who?\n\nAssistant: Mira.", "rejected": "\n\nHuman: Who?\n\nAssistant: Guess."},
    ],
    ids=["prompt", "prompt messages", "alpaca", "messages", "sharegpt", "whole dialogues", "hh"],
)
def test_each_common_form_gives_the_same_pair(row: dict[str, Any], tmp_path: Path) -> None:
    assert read(write(tmp_path, [row])) == [PAIR]


def test_an_answer_may_be_empty(tmp_path: Path) -> None:
    row = {"prompt": "Who?", "chosen": "Mira.", "rejected": ""}
    assert read(write(tmp_path, [row])) == [PreferencePair(ASKED, "Mira.", "")]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"prompt": "Who?", "chosen": "Mira."}, "is no pair of answers; .* but has: prompt, chosen"),
        ({"prompt": "Who?", "chosen": "Mira.", "rejected": 3}, "is no pair of answers"),
        ({"chosen": "Mira.", "rejected": "Guess."}, "is no pair of answers"),
        ("Mira.", "is no pair of answers; .* but has: str"),
        ({"prompt": " ", "chosen": "Mira.", "rejected": "Guess."}, "has no text as its content"),
        ({"messages": [], "chosen": "Mira.", "rejected": "Guess."}, "has no messages"),
        (
            {"chosen": [{"role": "assistant", "content": "A."}], "rejected": [{"role": "assistant", "content": "B."}]},
            "has no messages",
        ),
    ],
)
def test_a_row_that_is_no_pair_is_named_with_file_and_line(row: Any, complaint: str, tmp_path: Path) -> None:
    path = write(tmp_path, [{"prompt": "Who?", "chosen": "Mira.", "rejected": "Guess."}, row])
    with pytest.raises(UserError, match=complaint) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}, line 2: ")


def test_the_storyworld_gives_as_many_pairs_as_are_asked_for() -> None:
    pairs = list(read_preference_pairs(["storyworld"], WORLD, 5))
    assert len(pairs) == 5
    assert all(pair.chosen != pair.rejected and pair.prompt[-1]["role"] == "user" for pair in pairs)


@pytest.mark.parametrize(
    ("name", "n_pairs"),
    [("rasbt_instruction_data_with_preference.json", 1100), ("dpo_en_demo.json.gz", 300)],
)
def test_real_files_are_read_whole(name: str, n_pairs: int, real_data: Path) -> None:
    assert len(read(real_data / "preference" / name)) == n_pairs


def test_anthropics_dialogues_are_read_up_to_the_first_that_is_none(real_data: Path, tmp_path: Path) -> None:
    text = gzip.decompress((real_data / "preference" / "hh_rlhf_harmless_base_test.jsonl.gz").read_bytes())
    path = write(tmp_path, [json.loads(line) for line in text.splitlines()[:20]])
    assert len(read(path)) == 20
