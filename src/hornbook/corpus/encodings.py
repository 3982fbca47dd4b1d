"""Bytes to text: strictly UTF-8 for text files, whatever encoding it takes for web pages."""

import codecs

# A longer mark first: that of UTF-32 begins as that of UTF-16 does.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# The reason for setting bytes aside that are not UTF-8; a colon and an encoding may follow.
NOT_UTF8 = "not_utf8"
# As much as is looked at to guess an encoding, and the fewest bytes beyond ASCII that are worth a guess.
GUESSED_FROM_BYTES = 65_536
_FEWEST_BYTES_FOR_A_GUESS = 4
# In text a zero byte is an accident. UTF-16 of a European language has one in every second place.
_LARGEST_ZERO_SHARE = 0.1


def marked_encoding(head: bytes) -> str | None:
    """The encoding whose byte-order mark the bytes begin with, or None."""
    return next((encoding for mark, encoding in _BYTE_ORDER_MARKS if head.startswith(mark)), None)


def decode_text(data: bytes) -> tuple[str, str | None]:
    """The text of UTF-8 bytes, and None; or an empty text, and why there is none.

    Other encodings are not guessed silently, because a wrong guess puts wrong letters into the corpus. The
    reason says which encoding it probably is: "not_utf8:cp1252".
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        return "", not_utf8(data[max(0, problem.start - GUESSED_FROM_BYTES // 2) :])
    if "\0" in text and text.count("\0") > _LARGEST_ZERO_SHARE * len(text):
        return "", "not_text"
    return text, None


def not_utf8(data: bytes) -> str:
    """The reason for setting bytes aside that are not UTF-8, with the encoding that they probably have."""
    from resiliparse.parse.encoding import detect_encoding

    data = data[:GUESSED_FROM_BYTES]
    encoding = marked_encoding(data)
    if encoding is None and sum(byte > 0x7F for byte in data) >= _FEWEST_BYTES_FOR_A_GUESS:
        encoding = detect_encoding(data)
    return f"{NOT_UTF8}:{encoding}" if encoding and encoding != "utf-8" else NOT_UTF8


def decode_page(page: bytes, declared: str | None = None) -> str:
    """The HTML of a page, in the encoding that it most probably has.

    A byte-order mark decides, as in browsers. What is nearly always right comes next: a page that is UTF-8 is
    read as such, also where it declares something else, and also where some bytes are damaged. Then what the
    server declared, what the page declares in a <meta>, and what the statistics of its bytes suggest.

    Args:
        page: the bytes of a whole page.
        declared: the charset in the header Content-Type, if there was one.
    """
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding, map_encoding_to_html5

    marked = marked_encoding(page)
    if marked:
        return page.decode(marked, "replace")
    text = page.decode("utf-8", "replace")
    n_damaged = text.count("\ufffd")
    n_beyond_ascii = (len(page) - len(text)) // 2  # at least: each such character takes two bytes or more
    if n_damaged <= n_beyond_ascii // 10:
        return text
    encoding = map_encoding_to_html5(declared, fallback_utf8=False) if declared else None
    encoding = encoding or detect_encoding(page, from_html_meta=True) or "cp1252"
    return bytes_to_str(page, encoding, errors="replace")
