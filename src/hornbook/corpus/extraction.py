"""Text out of web pages: the main content, without what surrounds it on every page of a site."""

from typing import TYPE_CHECKING

from hornbook.corpus.in_python import where_needed

if TYPE_CHECKING:
    from daft import Expression

# What the extractor's own rules leave in: captions and boxes that lead elsewhere, which have such a word in
# their class, and the banner of the whole site (not the header of an article, which has its title). Longer
# lists were tried with benchmarks/corpus.py extraction, and lost as much good text as they removed furniture.
FURNITURE = ("caption", "related")
SITE_BANNER = "body > header"


def text_from_html(text: "Expression", is_html: "Expression") -> "Expression":
    """The main content of HTML pages, paragraphs parted by an empty line; other documents as they are."""
    return where_needed(text, is_html, main_content)


def main_content(page: str) -> str:
    """The main content of one page of HTML.

    Resiliparse (Bevendorff et al. 2018) finds the content by rules over elements and class names, at many times
    the speed of Trafilatura (Barbaresi 2021), which weighs several extractions and is more precise.
    """
    from resiliparse.extract.html2text import extract_plain_text

    return extract_plain_text(
        page,
        main_content=True,
        preserve_formatting=True,
        alt_texts=False,
        comments=False,
        skip_elements=[*(f'[class*="{word}"]' for word in FURNITURE), SITE_BANNER],
    )
