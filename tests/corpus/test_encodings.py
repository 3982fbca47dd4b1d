"""Pages are read in the encoding that they have, which is not always the one that they declare."""

import tarfile

import pytest

from hornbook.corpus.encodings import decode_page, decode_text

GERMAN = "Der Bär saß auf der Brücke, und die Möwen schrien über dem Fluß."
POLISH = "Zażółć gęślą jaźń, powiedział żółw."


@pytest.mark.parametrize(
    ("page", "declared", "text"),
    [
        (GERMAN.encode(), None, GERMAN),
        (GERMAN.encode(), "iso-8859-1", GERMAN),
        (f'<meta charset="iso-8859-1">{GERMAN}'.encode("latin-1"), None, f'<meta charset="iso-8859-1">{GERMAN}'),
        (f'<meta charset="utf-8">{GERMAN}'.encode("latin-1"), None, f'<meta charset="utf-8">{GERMAN}'),
        (POLISH.encode("iso-8859-2"), "ISO-8859-2", POLISH),
        (GERMAN.encode("latin-1"), "no such encoding", GERMAN),
        (GERMAN.encode("utf-16"), "utf-8", GERMAN),
        (GERMAN.encode("utf-8-sig"), "cp1252", GERMAN),
        (GERMAN.encode("utf-32"), None, GERMAN),
        ((GERMAN * 20).encode() + b"\xff", "utf-8", GERMAN * 20 + "\ufffd"),
        (b"", None, ""),
    ],
)
def test_a_page_is_read_in_the_encoding_it_has(page, declared, text):
    assert decode_page(page, declared) == text


def test_text_is_utf8_or_has_a_problem():
    assert decode_text("Zoë".encode()) == ("Zoë", None)
    assert decode_text(GERMAN.encode("latin-1")) == ("", "not_utf8:cp1252")
    assert decode_text(b"\xff") == ("", "not_utf8")
    assert decode_text(b"a\0b in a long line of text") == ("a\0b in a long line of text", None)


def test_real_pages_that_are_not_utf8_lose_no_letter(real_data):
    n_not_utf8 = n_damaged = 0
    with tarfile.open(real_data / "web/trafilatura_pages.tar.gz") as archive:
        for member in archive:
            page = archive.extractfile(member).read() if member.isfile() else b""
            try:
                page.decode()
            except UnicodeDecodeError:
                n_not_utf8 += 1
                n_damaged += "\ufffd" in decode_page(page)
    # One page is UTF-8 with four damaged bytes.
    assert (n_not_utf8, n_damaged) == (18, 1)
