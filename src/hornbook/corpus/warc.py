"""Pages and texts out of web archives: WARC (ISO 28500), and the WET files that Common Crawl makes of them.

FastWARC (Bevendorff et al. 2021) reads the records, whether they are compressed one by one, as a whole or not
at all. Only one record at a time is in memory.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hornbook.corpus.encodings import decode_page, decode_text
from hornbook.corpus.files import ByteStream
from hornbook.corpus.raw import MAX_DOCUMENT_BYTES, RawDocument, set_aside

if TYPE_CHECKING:
    from fastwarc.warc import WarcRecord

HTML_TYPES = ("text/html", "application/xhtml+xml")
PLAIN_TEXT_TYPE = "text/plain"


def archived_documents(file: ByteStream, name: str) -> Iterator[RawDocument]:
    """The documents of an archive: what servers answered (response, resource), and converted text (conversion).

    A document's id is the address that it came from, or else the record's own. Answers other than HTML or
    plain text are set aside as "not_html", answers that say that something failed as "http_error". Records
    that keep the crawler's books (warcinfo, request, metadata, revisit) hold no document and are passed over.

    Raises OSError where the archive ends early or is none.
    """
    from fastwarc.warc import ArchiveIterator, conversion, resource, response

    # HTTP is parsed record by record below: the iterator would give up at the first answer that is none.
    for record in ArchiveIterator(file, record_types=response | resource | conversion, parse_http=False):
        place = record.headers.get("WARC-Target-URI") or record.record_id or name
        if record.content_length > MAX_DOCUMENT_BYTES:
            yield set_aside(place, "too_large")
            continue
        wanted_bytes = record.content_length
        record.freeze()
        if record.content_length < wanted_bytes:
            raise EOFError(f"{name} ends within the record of {place}")
        try:
            yield _document(record, place)
        except (OSError, ValueError):
            yield set_aside(place, "damaged_record")


def _document(record: "WarcRecord", place: str) -> RawDocument:
    from resiliparse.parse.encoding import detect_mime

    content_type = record.headers.get("Content-Type") or ""
    charset = None
    if record.is_http:
        record.parse_http(auto_decode="all")
        content_type, charset = record.http_content_type or "", record.http_charset
        status = record.http_headers.status_code
        if status is None or not 200 <= status < 300:
            return set_aside(place, "http_error")
    body = record.reader.read(MAX_DOCUMENT_BYTES + 1)
    if len(body) > MAX_DOCUMENT_BYTES:
        return set_aside(place, "too_large")
    content_type = content_type.partition(";")[0].strip().lower() or detect_mime(body)
    if content_type == PLAIN_TEXT_TYPE:
        text, problem = decode_text(body)
        return RawDocument(place, text, problem=problem)
    if content_type in HTML_TYPES:
        return RawDocument(place, decode_page(body, charset), is_html=True)
    return set_aside(place, "not_html")
