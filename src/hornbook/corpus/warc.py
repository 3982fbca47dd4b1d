"""Pages and texts out of web archives: WARC (ISO 28500), and the WET files that Common Crawl makes of them.

The frames of the records are read here, strictly, so that an archive that ends early or is damaged says so: the
libraries at hand pass a half-read record off as a short one. FastWARC (Bevendorff et al. 2021) undoes what HTTP
did to each answer. One record at a time is in memory.
"""

from collections.abc import Iterator
from typing import NamedTuple

from hornbook.corpus.encodings import decode_page, decode_text
from hornbook.corpus.files import ByteStream
from hornbook.corpus.raw import MAX_DOCUMENT_BYTES, RawDocument, set_aside

HTML_TYPES = ("text/html", "application/xhtml+xml")
PLAIN_TEXT_TYPE = "text/plain"
# The kinds of records that hold a document. The others (warcinfo, request, metadata, revisit) keep the crawler's
# books.
DOCUMENT_TYPES = ("response", "resource", "conversion")
MAX_HEADER_BYTES = 1 << 16
_SKIPPED_BYTES_AT_ONCE = 1 << 20


class _Record(NamedTuple):
    """One record: its head as it stands, its fields with names in small letters, and its block.

    The block is None where it is too long to be a document, or the record holds none by its kind.
    """

    head: bytes
    fields: dict[str, str]
    block: bytes | None


def archived_documents(file: ByteStream, name: str) -> Iterator[RawDocument]:
    """The documents of an archive: what servers answered (response, resource), and converted text (conversion).

    A document's id is the address that it came from, or else the record's own. Answers other than HTML or
    plain text are set aside as "not_html", answers that say that something failed as "http_error".

    Raises OSError or EOFError where the archive is damaged, is none, or ends early.
    """
    for record in _records(file):
        if record.fields.get("warc-type") not in DOCUMENT_TYPES:
            continue
        place = record.fields.get("warc-target-uri") or record.fields.get("warc-record-id") or name
        if record.block is None:
            yield set_aside(place, "too_large")
            continue
        try:
            yield _document(record, record.block, place)
        except (OSError, ValueError):
            yield set_aside(place, "damaged_record")


def _records(file: ByteStream) -> Iterator[_Record]:
    while head := _head(file):
        fields = {}
        for line in head.decode("utf-8", "replace").splitlines()[1:]:
            field, _, value = line.partition(":")
            fields[field.strip().lower()] = value.strip()
        length = fields.get("content-length", "")
        if not (length.isascii() and length.isdigit()):
            raise OSError("a record does not say how long it is")
        if fields.get("warc-type") in DOCUMENT_TYPES and int(length) <= MAX_DOCUMENT_BYTES:
            block = file.read(int(length))
            if len(block) < int(length):
                raise EOFError("the archive ends within a record")
            yield _Record(head, fields, block)
        else:
            _skip(file, int(length))
            yield _Record(head, fields, None)


def _head(file: ByteStream) -> bytes:
    """The next record's head, with the empty line that ends it; b"" at the end of the archive."""
    line = b"\r\n"
    while line in (b"\r\n", b"\n"):  # two empty lines end a record
        line = file.readline(MAX_HEADER_BYTES)
    if not line:
        return b""
    if not line.startswith(b"WARC/"):
        raise OSError("a record does not begin as one")
    head = bytearray(line)
    while line not in (b"\r\n", b"\n"):
        line = file.readline(MAX_HEADER_BYTES)
        head += line
        if not line or len(head) > MAX_HEADER_BYTES:
            raise EOFError("the archive ends within the head of a record")
    return bytes(head)


def _skip(file: ByteStream, length: int) -> None:
    while length:
        passed = len(file.read(min(length, _SKIPPED_BYTES_AT_ONCE)))
        if not passed:
            raise EOFError("the archive ends within a record")
        length -= passed


def _document(record: _Record, block: bytes, place: str) -> RawDocument:
    from resiliparse.parse.encoding import detect_mime

    content_type, charset, body = record.fields.get("content-type", ""), None, block
    if content_type.lower().startswith("application/http"):
        answer = _http_answer(record.head + block)
        if answer is None:
            return set_aside(place, "http_error")
        content_type, charset, body = answer
    if len(body) > MAX_DOCUMENT_BYTES:
        return set_aside(place, "too_large")
    content_type = content_type.partition(";")[0].strip().lower() or detect_mime(body)
    if content_type == PLAIN_TEXT_TYPE:
        text, problem = decode_text(body)
        return RawDocument(place, text, problem=problem)
    if content_type in HTML_TYPES:
        return RawDocument(place, decode_page(body, charset), is_html=True)
    return set_aside(place, "not_html")


def _http_answer(record: bytes) -> tuple[str, str | None, bytes] | None:
    """Content type, charset and body of an HTTP answer, unpacked; None unless it says that all went well.

    Of a body that is too large, one byte too many is given, however much it would unpack to.
    """
    from fastwarc.warc import WarcRecord

    answer = WarcRecord.from_bytes(record)
    answer.parse_http(auto_decode="all")
    status = answer.http_headers.status_code
    if status is None or not 200 <= status < 300:
        return None
    return answer.http_content_type or "", answer.http_charset, answer.reader.read(MAX_DOCUMENT_BYTES + 1)
