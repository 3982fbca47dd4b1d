"""Text out of web pages: the main content, without what surrounds it on every page of a site."""

from typing import TYPE_CHECKING

from hornbook.corpus.in_python import where_needed

if TYPE_CHECKING:
    from daft import Expression

# Parts of a page that are not its content, where the extractor's own rules leave them in: elements with such
# a word in their class or id, and the banner of the whole site (not the header of an article, which has its
# title).
FURNITURE = ("comments", "share", "cookie", "related", "newsletter", "breadcrumb", "byline", "advert")
SITE_BANNER = "body > header"


def text_from_html(text: "Expression", is_html: "Expression") -> "Expression":
    """The main content of HTML pages, paragraphs parted by an empty line; other documents as they are."""
    return where_needed(text, is_html, main_content)


def main_content(page: str) -> str:
    """The main content of one page of HTML.

    Resiliparse (Bevendorff et al. 2018) finds the content by rules over elements and class names.
    """
    from resiliparse.extract.html2text import extract_plain_text

    skipped = [f'[{attribute}*="{word}"]' for attribute in ("class", "id") for word in FURNITURE]
    skipped.append(SITE_BANNER)
    return extract_plain_text(page, main_content=True, preserve_formatting=True, alt_texts=False, skip_elements=skipped)
