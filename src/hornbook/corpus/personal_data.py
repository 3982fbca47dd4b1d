"""Personal data in texts: e-mail addresses, IP addresses and phone numbers, found by their form.

Patterns, not understanding: a name stays a name, and a street a street. What looks alike is told apart by what
stands around it (a version, a section number) and by the rules that the numbers themselves obey.
"""

import ipaddress
import re

EMAIL, IP_ADDRESS, PHONE = "[EMAIL]", "[IP]", "[PHONE]"

# What a text must contain for the patterns below to find anything in it, in Rust's dialect of regular
# expressions: one quick search spares most texts the five slow ones.
CANDIDATE = (
    r"@[A-Za-z0-9-]+\."
    r"|[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]"
    r"|[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]{0,4}:"
    r"|\+ ?[1-9][0-9()\s.\x{2010}\x{2011}-]{6}"
    r"|[2-9][0-9]{2}\)?[\s.\x{2010}\x{2011}-]{0,3}[2-9][0-9]{2}[\s.\x{2010}\x{2011}-]{1,3}[0-9]{4}"
    r"|(?i:tel|fon|phone|fax|mobil|cell|whatsapp|sms|hotline)[^0-9\n]{0,20}[0-9][0-9()/\s.\x{2010}\x{2011}-]{4}"
)

# The local part is bounded (RFC 5321 gives it 64 characters), which also keeps the search linear.
_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9_%+-][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.)+([A-Za-z]{2,24})(?![A-Za-z])"
)
# image@2x.png is a picture for sharp screens.
_FILE_SUFFIXES = frozenset(("png", "jpg", "jpeg", "gif", "webp", "svg", "css", "js"))

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
# Not after a letter, a digit or a hyphen, nor after a word and a slash (Chrome/96.0.4.1); a URL has two slashes.
_IPV4 = re.compile(rf"(?<![\w.-])(?<![\w]/)(?:{_OCTET}\.){{3}}{_OCTET}(?![\w-]|\.[0-9])")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:]|\.[0-9])")
# Four numbers after such a word count versions or sections.
_COUNTED = re.compile(
    r"(?i)(?:\b(?:v|ver|version|release|build|firmware|driver|update|kernel|sections?|sect|sec|chapter|clauses?|"
    r"articles?|paragraphs?|figures?|fig|tables?|rules?|items?|steps?|part|no|nr)\b[\s.:#]{0,3}|§\s?)$"
)

# Digits and what parts them: every IPv4 address and phone number has such a stretch.
_NUMBERS = re.compile(r"[0-9][0-9()/ \t\u00a0.\u2010\u2011-]{4,}[0-9]")
_GAP = r"[ \t\u00a0.\u2010\u2011-]{0,3}"
_REAL_GAP = r"[ \t\u00a0.\u2010\u2011-]{1,3}"
_NOT_WITHIN = r"(?<![\w+.,/$€£-])(?<![$€£] )"
_NOT_BEFORE = r"(?![\w]| ?[%€£$]|[.,/-][0-9])"
# + and a country code, then groups of digits: at least 8 digits in all and at most 15 (ITU-T E.164).
_INTERNATIONAL = re.compile(
    rf"(?<![\w+.])(?:\+ ?[1-9][0-9]{{0,2}}){_GAP}(?:\(0?[0-9]{{0,4}}\){_GAP})?(?:[0-9]{{1,4}}{_GAP}){{2,6}}[0-9]{{1,4}}"
    rf"{_NOT_BEFORE}"
    rf"|(?<![\w+.])\+[1-9][0-9]{{7,14}}{_NOT_BEFORE}"
)
# North America: area code and exchange begin with 2 to 9 (North American Numbering Plan).
_NORTH_AMERICAN = re.compile(
    rf"{_NOT_WITHIN}(?:1{_REAL_GAP})?(?:\([2-9][0-9]{{2}}\){_GAP}|[2-9][0-9]{{2}}{_REAL_GAP})"
    rf"[2-9][0-9]{{2}}{_REAL_GAP}[0-9]{{4}}{_NOT_BEFORE}"
)
# Any other number of 6 to 15 digits, where a word says that it is one.
_ANNOUNCED = re.compile(
    r"(?i)(\b(?:tel|telephone|telefon|téléphone|tél|phone|fon|fax|telefax|mobile|mobil|cell|whatsapp|sms|hotline)"
    r"\.?(?: (?:no|nr|number)\.?)?(?: is)?[ \u00a0]?:?[ \u00a0]?)"
    r"(\(?\+?[0-9][0-9()/ \t\u00a0.\u2010\u2011-]{4,22}[0-9])(?![\w%€£])"
)


def mask_personal_data(text: str) -> str:
    """The text with "[EMAIL]", "[IP]" and "[PHONE]" in the place of such data.

    Addresses of private networks and of the machine itself (192.168.…, 127.0.0.1; RFC 1918) stay: they are
    nobody's.
    """
    return "\n".join(map(_mask_line, text.split("\n")))


def _mask_line(line: str) -> str:
    """A line with placeholders. The slow patterns run where a quick one says that they may find something."""
    if "@" in line:
        line = _EMAIL.sub(lambda found: found[0] if found[1].lower() in _FILE_SUFFIXES else EMAIL, line)
    if line.count(":") > 2:
        line = _IPV6.sub(_ipv6_placeholder, line)
    if _NUMBERS.search(line):
        line = _IPV4.sub(_ipv4_placeholder, line)
        line = _INTERNATIONAL.sub(_international_placeholder, line)
        line = _NORTH_AMERICAN.sub(PHONE, line)
        line = _ANNOUNCED.sub(_announced_placeholder, line)
    return line


def _ipv4_placeholder(found: re.Match[str]) -> str:
    if _COUNTED.search(found.string, max(0, found.start() - 16), found.start()):
        return found[0]
    octets = [int(octet) for octet in found[0].split(".")]
    is_private = octets[0] in (0, 10, 127) or octets[:2] == [192, 168] or (octets[0] == 172 and 16 <= octets[1] < 32)
    return found[0] if is_private else IP_ADDRESS


def _ipv6_placeholder(found: re.Match[str]) -> str:
    """Times and names such as std::end have colons too: an address has three groups or more, some with digits."""
    groups = [group for group in found[0].split(":") if group]
    if len(groups) < 3 or not any(c.isdigit() for c in found[0]) or max(map(len, groups)) < 3:
        return found[0]
    try:
        address = ipaddress.IPv6Address(found[0])
    except ValueError:
        return found[0]
    return found[0] if address.is_link_local or address.is_loopback else IP_ADDRESS


def _international_placeholder(found: re.Match[str]) -> str:
    digits = sum(c.isdigit() for c in found[0])
    groups = re.findall(r"[0-9]+", found[0])
    # +10 000 000 is an amount.
    is_amount = len(groups) > 2 and all(group == "000" for group in groups[1:])
    return PHONE if 8 <= digits <= 15 and not is_amount else found[0]


def _announced_placeholder(found: re.Match[str]) -> str:
    digits = sum(c.isdigit() for c in found[2])
    return found[1] + PHONE if 6 <= digits <= 15 else found[0]
