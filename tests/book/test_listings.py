"""Listings are the code as it is, and a name that is gone is noticed."""

from pathlib import Path

import pytest

from hornbook.book.build import TYPST_FILES
from hornbook.book.listings import take, take_all
from hornbook.errors import UserError

SOURCE = '''"""A module."""

# How large.
# In metres.
SIZE: int = 3


class Box:
    """A box."""

    @property
    def area(self) -> int:
        return SIZE * SIZE


def grow(box: Box) -> int:
    return box.area + 1
'''


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "pack"
    (folder / "room").mkdir(parents=True)
    (folder / "room" / "box.py").write_text(SOURCE, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("name", "first_line", "begins", "ends"),
    [
        ("room.box.SIZE", 3, "# How large.", "SIZE: int = 3"),
        ("room.box.Box.area", 11, "@property", "    return SIZE * SIZE"),
        ("room.box.grow", 16, "def grow", "    return box.area + 1"),
    ],
)
def test_a_definition_is_taken_whole_with_comments_and_decorators(source, name, first_line, begins, ends):
    listing = take(name, source)
    assert (listing.file, listing.first_line) == ("pack/room/box.py", first_line)
    assert listing.code.startswith(begins)
    assert listing.code.endswith(ends)


def test_a_changed_body_is_a_changed_listing(source):
    before = take("room.box.grow", source).code
    path = source / "room" / "box.py"
    path.write_text(SOURCE.replace("+ 1", "+ 2"), encoding="utf-8")
    assert take("room.box.grow", source).code == before.replace("+ 1", "+ 2")


def test_all_names_that_are_gone_are_reported_with_chapter_and_line(source, tmp_path):
    chapter = tmp_path / "07-boxes.typ"
    chapter.write_text('#listing("room.box.grow")[x]\n\n#listing("room.box.shrink")[y]\n#src("room.lid.close")\n')
    with pytest.raises(UserError) as problem:
        take_all([chapter], source)
    first, second = str(problem.value).splitlines()
    assert first.startswith("07-boxes.typ, line 3: ")
    assert "shrink" in first
    assert second.startswith("07-boxes.typ, line 4: ")


def test_every_listing_of_the_book_is_there():
    taken = take_all(sorted((TYPST_FILES / "chapters").glob("*.typ")))
    assert len(taken) > 40
    assert taken["model.attention.reference_attention"].code.startswith("def reference_attention(")
