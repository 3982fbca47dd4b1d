"""Everything the world writes, as files for people to look at and for other programs to use."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hornbook.recipe_data import StoryworldSection
from hornbook.run_directory import atomic_write
from hornbook.storyworld.conversations import checkable_prompts, conversations, preferences
from hornbook.storyworld.corpus import write_documents, write_stories_for_pages
from hornbook.storyworld.questions import held_out_questions
from hornbook.storyworld.web import write_pages

N_EXAMPLES = 1000  # of what the recipe sets no number for


def write_world(section: StoryworldSection, directory: Path) -> dict[str, int]:
    """Write one jsonl file for each kind of text into `directory`; returns {file name: number of rows}."""
    files: dict[str, Iterable[Any]] = {
        "documents.jsonl": map(asdict, write_documents(section)),
        "pages.jsonl": map(asdict, write_pages(section, write_stories_for_pages(section))),
        "conversations.jsonl": ({"messages": turns} for turns in conversations(section)),
        "preferences.jsonl": map(asdict, preferences(section, N_EXAMPLES)),
        "checkable.jsonl": map(asdict, checkable_prompts(section, N_EXAMPLES)),
    }
    for suite in ("comprehension", "reasoning", "facts"):
        files[f"questions-{suite}.jsonl"] = map(asdict, held_out_questions(suite, N_EXAMPLES, section))
    counts = {}
    directory.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        atomic_write(directory / name, "".join(f"{line}\n" for line in lines))
        counts[name] = len(lines)
    return counts
