"""Conversations are read from the files that people have, and a row that is none is named with its place."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hornbook.corpus.benchmarks import Benchmark, Item
from hornbook.errors import UserError
from hornbook.recipe_data import StoryworldSection
from hornbook.stages.conversations import decontaminate, read_conversations
from hornbook.storyworld.conversations import conversations
from hornbook.tokenizer.chat import check_messages

NO_WORLD = StoryworldSection(conversations=0)
SUMMARY = {"instruction": "Sum it up.", "input": "A long tale.", "output": "A tale."}
GREETING = {"instruction": "Say hello.", "input": "", "output": "Hello."}
TALK = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who are you?"},
        {"role": "assistant", "content": "A model."},
        {"role": "user", "content": "Whose?"},
        {"role": "assistant", "content": "Yours."},
    ]
}

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a list as JSON, or rows as JSON lines, gzipped where the name says so; a text is written as it is."""

    def write_file(name: str, content: Any) -> Path:
        if isinstance(content, list):
            content = "\n".join(json.dumps(row) for row in content) if ".jsonl" in name else json.dumps(content)
        data = content if isinstance(content, bytes) else content.encode()
        path = tmp_path / name
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return write_file


def read(*paths: Path) -> list[list[dict[str, str]]]:
    return [list(map(dict, talk)) for talk in read_conversations([f"files:{path}" for path in paths], NO_WORLD)]


def asked_and_answered(request: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": request}, {"role": "assistant", "content": answer}]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.json.gz", "a.jsonl.gz"])
def test_instructions_and_messages_are_read_from_every_kind_of_file(write: Write, name: str) -> None:
    assert read(write(name, [SUMMARY, GREETING, TALK])) == [
        asked_and_answered("Sum it up.\n\nA long tale.", "A tale."),
        asked_and_answered("Say hello.", "Hello."),
        TALK["messages"],
    ]


def test_an_answer_may_be_called_response_and_the_input_may_be_missing(write: Write) -> None:
    rows = [{"instruction": "Say hello.", "response": "Hello."}]
    assert read(write("a.json", rows)) == [asked_and_answered("Say hello.", "Hello.")]


def test_sharegpt_rows_are_read_with_their_system_message(write: Write) -> None:
    row = {
        "system": "Be brief.",
        "conversations": [{"from": "human", "value": "Who are you?"}, {"from": "gpt", "value": "A model."}],
    }
    expected = [{"role": "system", "content": "Be brief."}, *asked_and_answered("Who are you?", "A model.")]
    assert read(write("a.jsonl", [row])) == [expected]


def test_empty_lines_are_no_rows(write: Write) -> None:
    assert len(read(write("a.jsonl", f"{json.dumps(GREETING)}\n\n{json.dumps(TALK)}\n"))) == 2


def test_a_line_ends_at_a_line_feed_alone(write: Write) -> None:
    row = {"instruction": "Say two\u2028lines.", "output": "One.\x85Two."}
    path = write("a.jsonl", json.dumps(row, ensure_ascii=False) + "\r\n" + json.dumps(GREETING) + "\r\n")
    assert read(path)[0] == asked_and_answered("Say two\u2028lines.", "One.\x85Two.")
    assert len(read(path)) == 2


def test_a_byte_order_mark_is_no_part_of_the_text(write: Write) -> None:
    assert read(write("a.json", "\ufeff" + json.dumps([TALK]))) == [TALK["messages"]]


def test_sources_follow_each_other_and_a_folder_gives_its_files_in_order(write: Write, tmp_path: Path) -> None:
    write("b.jsonl", [GREETING])
    write("a.json", [TALK])
    world = StoryworldSection(conversations=3)
    found = list(read_conversations(["storyworld", f"files:{tmp_path}"], world))
    assert found[:3] == list(conversations(world))
    assert found[3:] == [TALK["messages"], asked_and_answered("Say hello.", "Hello.")]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"prompt": "Say hello.", "completion": "Hello."}, "is no conversation; .* but has: prompt, completion"),
        ({"instruction": "Say hello."}, "is no conversation; .* but has: instruction"),
        ({"instruction": "Say hello.", "output": 3}, "is no conversation"),
        ("Hello.", "is no conversation; .* but has: str"),
        ({"messages": []}, "has no messages"),
        ({"messages": ["Hello."]}, "is no conversation"),
        ({"conversations": [{"from": "tool", "value": "Hello."}]}, "has the role 'tool'"),
        ({"conversations": [{"from": "human"}]}, "has no text as its content"),
        ({"messages": [{"role": "teacher", "content": "Hello."}]}, "has the role 'teacher'"),
        ({"messages": [{"role": "assistant", "content": "Hello."}]}, "is from assistant where one from user belongs"),
        ({"messages": [{"role": "user", "content": None}]}, "has no text as its content"),
        ({"instruction": "", "output": "Hello."}, "has no text as its content"),
        ({"instruction": "Say hello.", "output": " "}, "answer of the assistant is empty"),
        ({"messages": [{"role": "user", "content": "Hello?"}]}, "no answer from the assistant"),
    ],
)
@pytest.mark.parametrize(("name", "place"), [("a.jsonl", "line 2"), ("a.json", "row 2")])
def test_a_row_that_is_no_conversation_is_named_with_file_and_line(
    write: Write, name: str, place: str, row: Any, complaint: str
) -> None:
    path = write(name, [GREETING, row, GREETING])
    with pytest.raises(UserError, match=complaint) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}, {place}: ")


def test_a_line_that_is_not_json_is_named_with_file_and_line(write: Write) -> None:
    path = write("a.jsonl", json.dumps(GREETING) + '\n{"instruction": \n')
    with pytest.raises(UserError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}, line 2: is not valid JSON")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cut.json", "[{"),
        ("object.json", json.dumps(GREETING)),
        ("latin.jsonl", '{"instruction": "Gr\u00fc\u00dfe", "output": "Hallo."}'.encode("latin-1")),
    ],
)
def test_a_file_that_cannot_be_read_is_named(write: Write, name: str, content: str | bytes) -> None:
    path = write(name, content)
    with pytest.raises(UserError) as caught:
        read(path)
    assert str(caught.value).startswith(str(path))


def test_a_damaged_archive_is_named(write: Write) -> None:
    path = write("a.json.gz", [GREETING])
    path.write_bytes(path.read_bytes()[:-6])
    with pytest.raises(UserError) as caught:
        read(path)
    assert str(caught.value).startswith(str(path))


def test_another_kind_of_source_is_refused() -> None:
    with pytest.raises(UserError, match=r"'talks\.json' is neither storyworld nor files:PATH nor hf://"):
        list(read_conversations(["talks.json"], NO_WORLD))


@pytest.mark.parametrize(
    ("name", "n_conversations"),
    [("alpaca_en_demo.json", 999), ("gpteacher_roleplay.json.gz", 1923)],
)
def test_real_instructions_are_all_conversations(real_data: Path, name: str, n_conversations: int) -> None:
    found = read(real_data / "instruct" / name)
    assert len(found) == n_conversations
    for talk in found:
        check_messages(talk, before_answer=False)
    assert sum(len(talk[1]["content"]) > 20 for talk in found) > 0.9 * len(found)
    assert any("\n\n" in talk[0]["content"] for talk in found)


def test_what_gives_a_question_away_is_left_out_with_a_receipt_and_the_others_keep_their_numbers() -> None:
    question = "Why did the old ferryman count his seven silver coins before he untied the rope?"
    benchmark = Benchmark("quiz", [Item("7", (question,))])
    talks = [
        asked_and_answered("Say hello.", "Hello."),
        asked_and_answered(question.replace("old", "tired"), "To be sure."),
        asked_and_answered("What did he do?", f"You asked: {question.upper()}"),
        asked_and_answered("Why did the old ferryman count?", "To be sure."),
    ]
    kept, receipt = decontaminate(talks, [benchmark])
    assert kept == [0, 3]
    assert receipt["documents_removed"] == 2
    assert [(entry["document"], entry["benchmark"], entry["item"]) for entry in receipt["removed"]] == [
        ("1", "quiz", "7"),
        ("2", "quiz", "7"),
    ]
    assert receipt["removed"][0]["overlap"].startswith("why did the tired ferryman count")


def test_without_benchmarks_every_conversation_stays() -> None:
    talks = [asked_and_answered("Say hello.", "Hello.")]
    kept, receipt = decontaminate(talks, [])
    assert kept == [0]
    assert receipt["documents_removed"] == 0
    assert decontaminate([], [])[0] == []
