"""Web pages: stories of the world wrapped in the mess that a crawler brings home, each labelled with what is
wrong.

Somebody who curates the web meets mark-up, navigation, advertisements, copies, spam, other languages and
broken encodings. Here the answer is known: every page says what a perfect cleaner returns, so that each
cleaning step and each filter can be measured. Some pages are meant to be hard (advertising in good sentences,
a copy with one word changed), because a measurement that everything passes says nothing.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from hornbook.recipe_data import StoryworldSection
from hornbook.storyworld.chance import Chance
from hornbook.storyworld.markup import render, words
from hornbook.storyworld.world import Document

# How many pages of each kind there are among a hundred. Real crawls hold far fewer clean ones.
PAGES_IN_A_HUNDRED = (
    (40.0, "clean"),
    (10.0, "spam"),
    (9.0, "other_language"),
    (8.0, "near_duplicate"),
    (7.0, "exact_duplicate"),
    (7.0, "mojibake"),
    (6.0, "personal_data"),
    (4.0, "control_characters"),
    (4.0, "too_short"),
    (3.0, "truncated"),
    (2.0, "empty"),
)
# Copies are made of recent pages, so that memory stays bounded however many pages are written.
RECENT_PAGES = 200
# Control characters and invisible ones, as they are pasted in by word processors and broken exports.
INVISIBLE = ("\x01", "\x08", "\x1f", "\x7f", "\u00ad", "\u200b", "\ufeff")


@dataclass(frozen=True)
class Page:
    """One web page.

    Attributes:
        id: unique within the corpus.
        html: the page as it is served.
        labels: what is wrong with it, or ("clean",) for a story that has only to be found in its mark-up.
        text: what a perfect cleaner of an English corpus returns; "" where the page should be dropped.
        bits: -log2 of the probability of `text` under the generator, where the text is a story as it was
            written.
    """

    id: str
    html: str
    labels: tuple[str, ...]
    text: str
    bits: float | None = None


def write_pages(section: StoryworldSection, documents: Iterable[Document]) -> Iterator[Page]:
    """Yield `section.web_pages` pages that wrap the given documents, the same for the same seed and
    documents.

    A page that holds a story takes the next document; the others take none. Fewer pages come where the
    documents run out.
    """
    stories = iter(documents)
    recent: list[str] = []
    for number in range(section.web_pages):
        chance = Chance(section.seed, "web page", number)
        label = chance.weigh(PAGES_IN_A_HUNDRED)
        if "duplicate" in label and not recent:
            label = "clean"
        name = f"web/{number}"
        if label in _PAGES_WITHOUT_STORY:
            yield Page(name, _PAGES_WITHOUT_STORY[label](chance), (label,), "")
        elif "duplicate" in label:
            original = chance.pick(recent)
            copy = original if label == "exact_duplicate" else _altered(chance, original)
            yield Page(name, render(chance, copy), (label,), "")
        else:
            story = next(stories, None)
            if story is None:
                return
            yield _story_page(chance, name, label, story)
            if label == "clean":
                recent = [*recent[-RECENT_PAGES + 1 :], story.text]


def _story_page(chance: Chance, name: str, label: str, story: Document) -> Page:
    """The page of a story that has what `label` says wrong with it."""
    if label == "mojibake":
        text = _typographic(story.text)
        return Page(name, render(chance, _misread(chance, text)), (label,), text)
    if label == "personal_data":
        given, wanted = _contact(chance)
        return Page(name, render(chance, f"{story.text}\n\n{given}"), (label,), f"{story.text}\n\n{wanted}")
    if label == "truncated":
        page = render(chance, story.text)
        start = page.index("<p>") + len("<p>")
        return Page(name, page[: start + len(story.text) // 2], (label,), "")
    text = _with_invisible(chance, story.text) if label == "control_characters" else story.text
    return Page(name, render(chance, text), (label,), story.text, story.bits)


def _altered(chance: Chance, text: str) -> str:
    """A near-duplicate: one sentence less, one word in capitals and a sentence more, or a line of thanks."""
    sentences = text.split(". ")
    way = chance.pick(("shorter", "louder", "longer"))
    if way == "shorter" and len(sentences) > 3:
        del sentences[1 + chance.pick(range(len(sentences) - 2))]
        return ". ".join(sentences)
    if way == "louder":
        spoken = text.split(" ")
        place = chance.pick(range(len(spoken)))
        return " ".join([*spoken[:place], spoken[place].upper(), *spoken[place + 1 :], "And that was that."])
    return f"{text}\n\nTold by {chance.pick(words()['readers'])}, and sent to us by a friend."


def _typographic(text: str) -> str:
    """The text with typographic quotes and dashes, so that there is something to misread."""
    pieces = text.split('"')
    text = "".join(piece + ("“" if i % 2 == 0 else "”") for i, piece in enumerate(pieces[:-1])) + pieces[-1]
    return text.replace("'", "’").replace("...", "…").replace(", ", " – ", 1) + "\n\n— The End —"


def _misread(chance: Chance, text: str) -> str:
    """The text as somebody sees it who takes its UTF-8 for Latin-1 or for Windows' code page 1252."""
    if chance.happens(0.5):
        return text.encode().decode("latin-1")
    # Five bytes mean nothing in the code page. Browsers, and so the crawled web, read them as Latin-1.
    return "".join(
        bytes([byte]).decode("latin-1" if byte in b"\x81\x8d\x8f\x90\x9d" else "cp1252") for byte in text.encode()
    )


def _contact(chance: Chance) -> tuple[str, str]:
    """A sentence with personal data, and the same with placeholders.

    The addresses and numbers are those set apart for fiction and documentation: example.com, 555-01xx,
    192.0.2.x.
    """
    reader = "".join(c for c in chance.pick(words()["readers"]).lower() if c.isalnum())
    pattern, secret, placeholder = chance.pick(
        (
            ("Write to us at {}, we answer every letter.", f"{reader}@example.com", "[EMAIL]"),
            (
                "Call us at {} and ask for the story of the day.",
                f"(212) 555-01{chance.pick(range(10, 100))}",
                "[PHONE]",
            ),
            (
                "You can also ring {} in the evening.",
                f"+1 212 555 01{chance.pick(range(10, 100))}",
                "[PHONE]",
            ),
            (
                "This page was last edited from {} by a guest.",
                f"192.0.2.{chance.pick(range(1, 255))}",
                "[IP]",
            ),
        )
    )
    return pattern.format(secret), pattern.format(placeholder)


def _with_invisible(chance: Chance, text: str) -> str:
    """The text with invisible characters scattered over it."""
    for _ in range(chance.pick(range(3, 12))):
        place = chance.pick(range(1, len(text)))
        text = text[:place] + chance.pick(INVISIBLE) + text[place:]
    return text


def _spam(chance: Chance) -> str:
    kind = chance.pick(("keywords", "slogan", "pitch"))
    if kind == "keywords":
        text = " ".join(chance.pick(words()["keywords"]) for _ in range(chance.pick(range(60, 160))))
    elif kind == "slogan":
        text = "\n".join([chance.pick(words()["slogans"])] * chance.pick(range(8, 30)))
    else:
        text = " ".join(chance.pick(words()["pitches"]) for _ in range(chance.pick(range(5, 9))))
    return render(chance, text)


def _other_language(chance: Chance) -> str:
    groups = words()["languages"][chance.pick(sorted(words()["languages"]))]
    sentences = [" ".join(chance.pick(group) for group in groups) for _ in range(chance.pick(range(6, 14)))]
    return render(chance, " ".join(sentences))


def _too_short(chance: Chance) -> str:
    return render(chance, chance.pick(words()["fragments"]))


def _empty(chance: Chance) -> str:
    return chance.pick(("", "<html><head><title></title></head><body></body></html>", "<html>\n</html>\n"))


_PAGES_WITHOUT_STORY = {
    "spam": _spam,
    "other_language": _other_language,
    "too_short": _too_short,
    "empty": _empty,
}
