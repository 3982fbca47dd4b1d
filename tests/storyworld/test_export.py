"""The world as files: complete, countable, and readable by other programs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hornbook.recipe_data import StoryworldSection
from hornbook.storyworld import export
from hornbook.storyworld.corpus import write_documents, write_stories_for_pages
from hornbook.storyworld.export import write_world
from hornbook.storyworld.questions import grade, held_out_questions
from hornbook.tokenizer.chat import check_messages

SECTION = StoryworldSection(
    stories=40,
    echoes=10,
    inventories=10,
    still_lives=10,
    puzzles=5,
    sums=5,
    encyclopedia_passages=10,
    web_pages=15,
    conversations=30,
)
N_EXAMPLES = 25
SUITES = ("comprehension", "reasoning", "facts")


@pytest.fixture
def world(tmp_path, monkeypatch) -> tuple[dict[str, int], Path]:
    monkeypatch.setattr(export, "N_EXAMPLES", N_EXAMPLES)
    return write_world(SECTION, tmp_path / "new" / "world"), tmp_path / "new" / "world"


@pytest.fixture
def rows(world) -> Callable[[str], list[dict[str, Any]]]:
    return lambda name: [json.loads(line) for line in (world[1] / name).read_text("utf-8").splitlines()]


def test_every_kind_of_text_has_its_file_and_nothing_unfinished_is_left(world):
    counts, folder = world
    kinds = {"documents", "pages", "conversations", "preferences", "checkable", *(f"questions-{s}" for s in SUITES)}
    assert set(counts) == {f"{kind}.jsonl" for kind in kinds}
    assert {path.name for path in folder.rglob("*")} == set(counts)


def test_the_counts_are_those_of_the_lines_and_of_the_recipe(world, rows):
    counts, _ = world
    for name, count in counts.items():
        assert len(rows(name)) == count
    assert counts["documents.jsonl"] == 90
    assert counts["pages.jsonl"] == 15
    assert counts["conversations.jsonl"] == 30
    assert {counts[f"questions-{suite}.jsonl"] for suite in SUITES} == {N_EXAMPLES}


def test_the_rows_say_what_the_world_says(rows):
    documents = list(write_documents(SECTION))
    assert [(row["id"], row["text"], row["bits"]) for row in rows("documents.jsonl")] == [
        (document.id, document.text, document.bits) for document in documents
    ]
    for row in rows("conversations.jsonl"):
        check_messages(row["messages"], before_answer=False)
    for suite in SUITES:
        questions = held_out_questions(suite, N_EXAMPLES, SECTION)
        for row, question in zip(rows(f"questions-{suite}.jsonl"), questions, strict=True):
            assert (row["context"], row["question"], row["answer"]) == (
                question.context,
                question.question,
                question.answer,
            )
            assert grade(question, row["choices"][row["gold"]])
    for row in rows("preferences.jsonl"):
        assert row["chosen"] != row["rejected"]


def test_written_again_the_files_are_the_same(world):
    _, folder = world
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    write_world(SECTION, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_pages_tell_stories_that_the_corpus_does_not_have(rows):
    told = {page["text"] for page in rows("pages.jsonl") if page["bits"] is not None}
    stories = {document.text for document in write_stories_for_pages(SECTION) if document.kind == "story"}
    assert len(told) >= 3
    assert told <= stories
    assert not stories & {row["text"] for row in rows("documents.jsonl")}
