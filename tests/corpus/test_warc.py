"""Web archives give their pages and texts; what holds none is set aside, and damage is never silent."""

import gzip
from collections import Counter
from pathlib import Path

import pytest

from hornbook.corpus import warc
from hornbook.corpus.readers import read_documents

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"


def record(
    body: bytes, kind: str = "response", uri: str = "http://host/page", http: bytes = OK, **fields: str
) -> bytes:
    block = http + b"\r\n" + body if kind == "response" else body
    headers = {
        "WARC-Type": kind,
        "WARC-Record-ID": "<urn:uuid:1>",
        "Content-Type": "application/http; msgtype=response" if kind == "response" else "text/plain",
        "Content-Length": str(len(block)),
    } | fields  # fmt: skip
    if uri:
        headers["WARC-Target-URI"] = uri
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return b"WARC/1.0\r\n" + head.encode() + b"\r\n" + block + b"\r\n\r\n"


@pytest.fixture
def fates(tmp_path):
    """Reads an archive, and gives each document's id and its problem or text."""

    def read(data: bytes, name: str = "a.warc"):
        (tmp_path / name).write_bytes(data)
        return [(d.id, d.problem or d.text) for d in read_documents(tmp_path / name, name, "text")]

    return read


PAGE, TEXT = record(b"<p>Once</p>"), record("Zoë".encode(), "conversion", "http://host/text")
WANTED = [("http://host/page", "<p>Once</p>"), ("http://host/text", "Zoë")]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.warc", PAGE + TEXT),
        ("a.warc.gz", gzip.compress(PAGE) + gzip.compress(TEXT)),
        ("a.warc.gz", gzip.compress(PAGE + TEXT)),
        ("a.warc.wet.gz", gzip.compress(PAGE) + gzip.compress(TEXT)),
        ("a.wet", PAGE + TEXT),
    ],
)
def test_pages_and_texts_come_out_of_archives_however_compressed(fates, name, data):
    assert fates(data, name) == WANTED


def test_pages_are_html_and_converted_texts_are_not(tmp_path):
    (tmp_path / "a.warc").write_bytes(PAGE + TEXT)
    assert [d.is_html for d in read_documents(tmp_path / "a.warc", "a", "text")] == [True, False]


def test_what_keeps_the_crawlers_books_is_no_document(fates):
    books = [record(b"x: y", kind) for kind in ("warcinfo", "request", "metadata", "revisit")]
    assert fates(b"".join([*books, PAGE])) == WANTED[:1]
    assert fates(b"".join(books)) == [("a.warc", "no_documents")]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (record(b"\x89PNG", http=b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n"), "not_html"),
        (record(b"\x00\x01\x02" * 50, http=b"HTTP/1.1 200 OK\r\n"), "not_html"),
        (record(b"<p>Gone", http=b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\n"), "http_error"),
        (record(b"<p>Once", http=b"no http at all\r\n"), "http_error"),
        (record(b"<p>Once", http=OK + b"Content-Encoding: gzip\r\n"), "damaged_record"),
        (record(b"<p>Once", http=OK + b"Transfer-Encoding: chunked\r\n"), "damaged_record"),
        (record("Der Bär saß auf der Brücke über dem Fluß. ".encode("latin-1"), "conversion"), "not_utf8:cp1252"),
    ],
)
def test_a_record_without_a_readable_page_is_set_aside_and_the_next_one_read(fates, data, problem):
    assert fates(data + TEXT) == [("http://host/page", problem), WANTED[1]]


def test_compressed_and_chunked_answers_are_unpacked(fates):
    packed = gzip.compress(b"<p>Once</p>")
    chunked = b"%x\r\n" % len(packed) + packed + b"\r\n0\r\n\r\n"
    head = OK + b"Content-Encoding: gzip\r\n"
    assert fates(record(packed, http=head)) == WANTED[:1]
    assert fates(record(chunked, http=head + b"Transfer-Encoding: chunked\r\n")) == WANTED[:1]


def test_a_page_is_read_in_the_charset_that_the_server_declared(fates):
    polish = "<p>Zażółć gęślą jaźń</p>"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=ISO-8859-2\r\n"
    assert fates(record(polish.encode("iso-8859-2"), http=head)) == [("http://host/page", polish)]


def test_a_record_without_an_address_goes_by_its_own_name(fates):
    assert fates(record(b"Once", "conversion", uri="")) == [("<urn:uuid:1>", "Once")]


def test_a_monstrous_record_and_a_small_one_that_unpacks_to_it_are_set_aside(fates, monkeypatch):
    monkeypatch.setattr(warc, "MAX_DOCUMENT_BYTES", 10_000)
    bomb = record(gzip.compress(b"x" * 10_000_000)[:9_000], http=OK + b"Content-Encoding: gzip\r\n")
    assert fates(record(b"x" * 20_000) + bomb + TEXT) == [*[("http://host/page", "too_large")] * 2, WANTED[1]]


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.9, 0.98])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_an_archive_that_ends_early_says_so(fates, share, pack):
    pages = [pack(record(b"<p>%d</p>" % n * 500, uri=f"http://host/{n}")) for n in range(2)]
    cut = len(pages[0]) + int(share * len(pages[1]))
    name = "a.warc.gz" if pack is gzip.compress else "a.warc"
    documents = fates(b"".join(pages)[:cut], name)
    assert documents[0][0] == "http://host/0"
    assert documents[-1] == (name, "damaged_file")


def test_what_is_no_archive_is_set_aside(fates):
    for data in (b"no such thing\n" * 50, gzip.compress(b"no such thing\n" * 50)):
        assert fates(data, "a.warc.gz") == [("a.warc.gz", "damaged_file")]


def test_real_archives_give_their_pages(real_data):
    found = {}
    for path in sorted((real_data / "web/warc").glob("*.gz")):
        if ".wat" not in path.name:
            documents = list(read_documents(path, path.name, "text"))
            assert all(document.id.startswith("http") for document in documents)
            assert not any("\ufffd" in document.text for document in documents)
            found[path.name] = Counter((document.problem, document.is_html) for document in documents)
    assert found == {
        "resiliparse_sample.warc.gz": {(None, True): 16},
        "whirlwind.warc.gz": {(None, True): 1},
        "whirlwind.warc.wet.gz": {(None, False): 1},
    }


def test_the_text_that_common_crawl_took_from_a_page_is_in_ours(real_data):
    """The same page as HTML and as Common Crawl's own text: what we take for content is in theirs."""
    from hornbook.corpus.extraction import main_content

    (page,) = read_documents(Path(real_data / "web/warc/whirlwind.warc.gz"), "a", "text")
    (theirs,) = read_documents(Path(real_data / "web/warc/whirlwind.warc.wet.gz"), "b", "text")
    ours = set(main_content(page.text).split())
    assert len(ours & set(theirs.text.split())) / len(ours) > 0.95
