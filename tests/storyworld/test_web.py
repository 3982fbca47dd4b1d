"""The world's web pages: the same on every machine, of every kind, honest about what is wrong with them."""

import hashlib
from collections import Counter
from html.parser import HTMLParser

import pytest

from hornbook.recipe_data import StoryworldSection
from hornbook.storyworld.web import PAGES_IN_A_HUNDRED, Page, write_pages
from hornbook.storyworld.world import Document

SECTION = StoryworldSection(web_pages=600, seed=7)


def documents() -> list[Document]:
    """Stand-ins for the world's stories, all different."""
    return [
        Document(
            f"story-{n}",
            "story",
            f'Day {n} was sunny. Mara had a red kite. "Look," she said, "it flies." Tom saw the kite.\n\n'
            f"Then Mara's kite number {n} fell in the river. Tom ran to the bridge. He had it back by noon.",
            50.0 + n,
        )
        for n in range(600)
    ]


@pytest.fixture(scope="module")
def pages() -> list[Page]:
    return list(write_pages(SECTION, documents()))


class _Text(HTMLParser):
    """All text of a page, scripts among it: enough to see whether something stands on it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.pieces: list[str] = []
        self.feed(page)
        self.close()

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)

    def __str__(self) -> str:
        return " ".join("".join(self.pieces).split())


def plain(page: Page) -> str:
    return str(_Text(page.html))


def labelled(pages: list[Page], label: str) -> list[Page]:
    found = [page for page in pages if page.labels == (label,)]
    assert len(found) >= 5
    return found


def test_the_same_seed_writes_the_same_bytes_on_every_machine(pages):
    digest = hashlib.sha256("".join(f"{page}" for page in pages).encode()).hexdigest()
    assert digest == "2508451669c4962ce17134acf444c4a4bc2da686cb0435e5a3e43d63bbd3d29b"


def test_another_seed_writes_other_pages(pages):
    others = write_pages(SECTION.model_copy(update={"seed": 8}), documents())
    assert sum(a.html == b.html for a, b in zip(pages, others, strict=True)) < 0.1 * len(pages)


def test_every_kind_of_mess_comes_about_as_often_as_it_should(pages):
    counts = Counter(page.labels for page in pages)
    assert sum(share for share, _ in PAGES_IN_A_HUNDRED) == 100
    for share, label in PAGES_IN_A_HUNDRED:
        assert 0.4 * share <= 100 * counts[(label,)] / len(pages) <= 2 * share, label


def test_pages_have_ids_of_their_own(pages):
    assert len({page.id for page in pages}) == len(pages) == SECTION.web_pages


def test_a_clean_page_holds_a_whole_story_and_its_bits(pages):
    stories = {document.text: document.bits for document in documents()}
    for page in labelled(pages, "clean"):
        assert page.bits == stories[page.text]
        assert " ".join(page.text.split()) in plain(page)


def test_each_story_is_told_once_but_for_the_copies(pages):
    texts = [page.text for page in pages if page.text]
    assert len(set(texts)) == len(texts)


def test_exact_duplicates_repeat_an_earlier_page_and_near_duplicates_almost(pages):
    earlier: list[str] = []
    n_exact = n_near = 0
    for page in pages:
        if page.labels == ("clean",):
            earlier.append(" ".join(page.text.split()))
        elif "duplicate" in page.labels[0]:
            shown = plain(page)
            is_copy = any(text in shown for text in earlier)
            n_exact += is_copy and page.labels == ("exact_duplicate",)
            n_near += not is_copy and page.labels == ("near_duplicate",)
            assert page.text == ""
    assert n_exact == len(labelled(pages, "exact_duplicate"))
    # A near-duplicate may be the whole story with a line added, which holds the story too.
    assert n_near >= 0.4 * len(labelled(pages, "near_duplicate"))


def test_mojibake_is_what_misreading_the_wanted_text_gives(pages):
    for page in labelled(pages, "mojibake"):
        assert not page.text.isascii()
        assert page.text.split("\n\n")[0] not in plain(page)
        assert any(mark in page.html for mark in ("Ã", "â"))
        assert page.bits is None


def test_personal_data_is_invented_and_wanted_as_placeholders(pages):
    seen = Counter()
    for page in labelled(pages, "personal_data"):
        placeholder = next(p for p in ("[EMAIL]", "[PHONE]", "[IP]") if p in page.text)
        secret = {"[EMAIL]": "@example.com", "[PHONE]": "555", "[IP]": "192.0.2."}[placeholder]
        assert secret in plain(page)
        assert secret not in page.text
        seen[placeholder] += 1
    assert len(seen) == 3


def test_pages_without_a_story_want_to_be_dropped(pages):
    for label in ("spam", "other_language", "too_short", "empty", "truncated"):
        assert {page.text for page in labelled(pages, label)} == {""}


def test_truncated_pages_end_in_the_middle(pages):
    for page in labelled(pages, "truncated"):
        assert "</html>" not in page.html
        assert "Day" in page.html


def test_no_more_pages_come_than_there_are_stories_for():
    pages = list(write_pages(SECTION, documents()[:3]))
    assert sum(bool(page.text) for page in pages) <= 3
    assert len(pages) < SECTION.web_pages
