"""Repairs made to every document: from what a crawler or an editor left behind to plain text.

Each step is a function from a string expression to a string expression, switched by the recipe, and they run
in the order of `clean`. What regular expressions can do runs inside the engine; only extraction from HTML,
mojibake and Unicode's normal form need Python, and they skip the documents that cannot need them.
"""

import re
import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING

from hornbook.corpus.engine import load_daft
from hornbook.recipe import CleaningSection

if TYPE_CHECKING:
    from daft import Expression

# Parts of a page that are not its content, where the extractor's own rules leave them in: elements with such
# a word in their class or id, and the banner of the whole site (not the header of an article, which has its
# title).
FURNITURE = ("comments", "share", "cookie", "related", "newsletter", "breadcrumb", "byline", "advert")
SITE_BANNER = "body > header"
EMAIL, IP_ADDRESS, PHONE = "[EMAIL]", "[IP]", "[PHONE]"

# UTF-8 read as Latin-1 or Windows-1252 shows a letter of this kind before one of that kind; no such pair, no
# mojibake.
_LIKELY_MOJIBAKE = re.compile("[\u00c2-\u00f4][\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]")
# C0 and C1 controls but tab and newline, soft hyphen, zero-width blank, word joiner and byte-order mark. The
# joiners U+200C and U+200D stay: they carry meaning in Persian, in Indian scripts and in emoji.
_CONTROL_CHARACTERS = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\x{ad}\x{200b}\x{2060}\x{feff}]"
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])"
_EMAIL = r"[A-Za-z0-9._%+-]+@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,}"
_IP_ADDRESS = rf"\b(?:{_OCTET}\.){{3}}{_OCTET}\b"
# International numbers (+44 20 7946 0958) and North American ones ((212) 555-0142, 212.555.0142).
_PHONE = (
    r"\+[0-9]{1,3}[ .-]?(?:\([0-9]{1,4}\)[ .-]?)?(?:[0-9]{2,4}[ .-]?){2,4}[0-9]\b"
    r"|(?:\([0-9]{3}\) ?|\b[0-9]{3}[ .-])[0-9]{3}[ .-][0-9]{4}\b"
)


def clean(text: "Expression", is_html: "Expression", section: CleaningSection) -> "Expression":
    """The cleaned text of each document, with the steps that the recipe switches on.

    Args:
        text: string column, HTML where `is_html` holds.
        is_html: boolean column.
        section: the recipe's switches.
    """
    text = text_from_html(text, is_html)
    if section.repair_mojibake:
        text = repair_mojibake(text)
    if section.normalize_unicode:
        text = normalize_unicode(text)
    if section.remove_control_characters:
        text = remove_control_characters(text)
    if section.collapse_whitespace:
        text = collapse_whitespace(text)
    if section.replace_personal_data:
        text = replace_personal_data(text)
    if section.lowercase:
        text = load_daft().functions.lower(text)
    return text


def text_from_html(text: "Expression", is_html: "Expression") -> "Expression":
    """The main content of HTML pages, paragraphs parted by an empty line; other documents as they are.

    Resiliparse (Bevendorff et al. 2018) finds the content by rules over elements and class names, at about 70
    MB/s.
    """
    from resiliparse.extract.html2text import extract_plain_text

    skipped = [f'[{attribute}*="{word}"]' for attribute in ("class", "id") for word in FURNITURE]
    skipped.append(SITE_BANNER)

    def extract(page: str) -> str:
        return extract_plain_text(
            page, main_content=True, preserve_formatting=True, alt_texts=False, skip_elements=skipped
        )

    daft = load_daft()

    @daft.func.batch(return_dtype=daft.DataType.string())
    def extract_batch(texts, are_html):  # type: ignore[no-untyped-def]
        return [
            extract(text) if html and text else text
            for text, html in zip(texts.to_pylist(), are_html.to_pylist(), strict=True)
        ]

    return extract_batch(text, is_html)


def repair_mojibake(text: "Expression") -> "Expression":
    """Undo the reading of UTF-8 as another encoding ("cafÃ©" → "café") with ftfy (Speer 2019).

    Only ftfy's repair of encodings is used: the rest of what it can do would change quotes and entities.
    """
    import ftfy

    return _with_python(text, lambda s: ftfy.fix_encoding(s) if _LIKELY_MOJIBAKE.search(s) else s)


def normalize_unicode(text: "Expression") -> "Expression":
    """Unicode's normal form C: a letter with its accent is one character, however it was typed."""
    return _with_python(text, lambda s: unicodedata.normalize("NFC", s))


def remove_control_characters(text: "Expression") -> "Expression":
    """Drop invisible characters that carry no meaning; carriage returns become newlines."""
    replace = load_daft().functions.regexp_replace
    return replace(replace(text, r"\r\n?", "\n"), _CONTROL_CHARACTERS, "")


def collapse_whitespace(text: "Expression") -> "Expression":
    """One blank for a run of blanks of any kind, at most one empty line, and none of either at the ends."""
    functions = load_daft().functions
    text = functions.regexp_replace(text, r"[^\S\n]{2,}|[^\S\n ]", " ")
    text = functions.regexp_replace(text, r" ?\n ?", "\n")
    text = functions.regexp_replace(text, r"\n{3,}", "\n\n")
    return functions.regexp_replace(text, r"^\s+|\s+$", "")


def replace_personal_data(text: "Expression") -> "Expression":
    """Put placeholders for e-mail addresses, IPv4 addresses and phone numbers.

    Patterns, not understanding: a version number of four parts passes for an address, and a name stays a
    name.
    """
    replace = load_daft().functions.regexp_replace
    for pattern, placeholder in ((_EMAIL, EMAIL), (_IP_ADDRESS, IP_ADDRESS), (_PHONE, PHONE)):
        text = replace(text, pattern, placeholder)
    return text


def _with_python(text: "Expression", repair: Callable[[str], str]) -> "Expression":
    """A repair made in Python. It concerns characters beyond ASCII, so it skips texts without any."""
    daft = load_daft()

    @daft.func.batch(return_dtype=daft.DataType.string())
    def repair_batch(texts):  # type: ignore[no-untyped-def]
        return [text if text is None or text.isascii() else repair(text) for text in texts.to_pylist()]

    return repair_batch(text)
