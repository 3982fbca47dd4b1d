"""What the book tells the reader to type exists."""

import re
from pathlib import Path

import pytest

from hornbook.book.build import TYPST_FILES
from hornbook.cli import VERBS

CHAPTERS = sorted((TYPST_FILES / "chapters").glob("*.typ"))
RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_its_commands_and_recipes_are_there(chapter: Path) -> None:
    text = chapter.read_text(encoding="utf-8")
    for verb in re.findall(r"(?:^|`|bin/)hornbook ([a-z]+)", text, flags=re.MULTILINE):
        assert verb in VERBS, f"{chapter.name}: hornbook {verb}"
    for recipe in re.findall(r"recipes/([\w-]+\.toml)", text):
        assert (RECIPES / recipe).is_file(), f"{chapter.name}: recipes/{recipe}"


def test_every_cited_work_and_every_chapter_with_exercises_is_complete() -> None:
    sources = (TYPST_FILES / "bibliography.bib").read_text(encoding="utf-8")
    keys = set(re.findall(r"^@\w+\{(\w+),", sources, flags=re.MULTILINE))
    cited = {
        key for chapter in CHAPTERS for key in re.findall(r"(?<=\s)@([a-z]+\d+|llama3|qwen3)\b", chapter.read_text())
    }
    assert cited - keys == set()
    assert keys - cited == set(), "in the bibliography, and cited nowhere"
    for chapter in CHAPTERS:
        number = int(chapter.stem[:2])
        if 1 <= number <= 26 and number != 25:
            assert chapter.read_text().count("#exercise[") >= 2, chapter.name
