"""A document as it was found: what every reader gives, whatever it reads."""

from typing import NamedTuple

# Longer lines, records and pages are set aside: they are dumps and accidents, and would have to fit in memory
# several times.
MAX_DOCUMENT_BYTES = 10_000_000


class RawDocument(NamedTuple):
    """A document as it was found.

    Attributes:
        id: where it stands: the file and, where a file holds several, the line, record or part (from 1); the
            address of a page out of a web archive.
        text: the text or HTML; "" where there is a problem.
        is_html: whether `text` is HTML.
        problem: why the document was set aside, or None.
        expected: what a perfect cleaner returns ("": the document should be dropped); None where nobody
            knows.
        bits: -log2 of the probability of `expected` under its generator; None where there is none.
        labels: what is known to be wrong with the document.
    """

    id: str
    text: str
    is_html: bool = False
    problem: str | None = None
    expected: str | None = None
    bits: float | None = None
    labels: tuple[str, ...] = ()


def set_aside(place: str, problem: str) -> RawDocument:
    """A document that could not be read."""
    return RawDocument(place, "", problem=problem)
