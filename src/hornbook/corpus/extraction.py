"""Text out of web pages: the main content, without what surrounds it on every page of a site."""

import re
from typing import TYPE_CHECKING

from hornbook.corpus.in_python import where_needed

if TYPE_CHECKING:
    from daft import Expression

# What the extractor's own rules leave in: captions and boxes that lead elsewhere, which have such a word in
# their class, and the banner of the whole site (not the header of an article, which has its title). Longer
# lists were tried with benchmarks/corpus.py extraction, and lost as much good text as they removed furniture.
FURNITURE = ("caption", "related")
SITE_BANNER = "body > header"


_DEEPEST = 5000  # browsers stop at 512, but end tags that are missing count here, too
_TAG = re.compile(r"<(?P<end>/?)(?P<name>[a-zA-Z][a-zA-Z0-9]*)\b")
# Elements without content, and those whose end may be left out.
_CLOSED_BY_THEMSELVES = frozenset(
    [
        *(
            "area",
            "base",
            "br",
            "col",
            "embed",
            "hr",
            "img",
            "input",
            "link",
            "meta",
            "source",
            "track",
            "wbr",
            "param",
        ),
        *("p", "li", "dt", "dd", "tr", "td", "th", "thead", "tbody", "tfoot", "option", "optgroup", "colgroup"),
        *("html", "head", "body", "rt", "rp"),
    ]
)


def text_from_html(text: "Expression", is_html: "Expression") -> "Expression":
    """The main content of HTML pages, paragraphs parted by an empty line; other documents as they are."""
    return where_needed(text, is_html, main_content)


def main_content(page: str) -> str:
    """The main content of one page of HTML; none of a page that is nested more deeply than any browser would show it.

    Resiliparse (Bevendorff et al. 2018) finds the content by rules over elements and class names, at many times
    the speed of Trafilatura (Barbaresi 2021), which weighs several extractions and is more precise.
    """
    if _is_nested_too_deeply(page):
        return ""
    from resiliparse.extract.html2text import extract_plain_text

    return extract_plain_text(
        page,
        main_content=True,
        preserve_formatting=True,
        alt_texts=False,
        comments=False,
        skip_elements=[*(f'[class*="{word}"]' for word in FURNITURE), SITE_BANNER],
    )


def _is_nested_too_deeply(page: str) -> bool:
    """Whether elements stand within each other beyond `_DEEPEST`: the time to find content grows with its square."""
    if page.count("<") <= 2 * _DEEPEST:
        return False
    depth = 0
    for tag in _TAG.finditer(page):
        if tag["name"].lower() not in _CLOSED_BY_THEMSELVES:
            depth = max(0, depth - 1) if tag["end"] else depth + 1
            if depth > _DEEPEST:
                return True
    return False
