"""Addresses and numbers of people are found; what only looks like them is left alone."""

import pytest

from hornbook.corpus.cleaning import replace_personal_data
from hornbook.corpus.personal_data import mask_personal_data
from hornbook.recipe_data import StoryworldSection
from hornbook.storyworld.corpus import write_documents
from hornbook.storyworld.web import write_pages

FOUND = [
    ("mail a.b+c@mail.example.com!", "mail [EMAIL]!"),
    ("<jo@example.co.uk>, bob_1@example.org.", "<[EMAIL]>, [EMAIL]."),
    ("mailto:jo@example.com?subject=x", "mailto:[EMAIL]?subject=x"),
    ("from 192.0.2.17, not 300.1.2.3", "from [IP], not 300.1.2.3"),
    ("192.0.2.1 192.0.2.2\n192.0.2.3.", "[IP] [IP]\n[IP]."),
    ("http://192.0.2.7/x and (192.0.2.8:8080)", "http://[IP]/x and ([IP]:8080)"),
    ("from 2001:db8:85a3::8a2e:370:7334, port 80", "from [IP], port 80"),
    ("ring +44 20 7946 0958 or (212) 555-0142.", "ring [PHONE] or [PHONE]."),
    ("212.555.0142, 212-555-0142, (212)555-0142", "[PHONE], [PHONE], [PHONE]"),
    ("+1 (212) 555-0142 or 1-800-555-0199", "[PHONE] or [PHONE]"),
    ("+49 (0)30 1234567, +33 1 23 45 67 89", "[PHONE], [PHONE]"),
    ("+442079460958", "[PHONE]"),
    ("Tel: 020 7946 0958", "Tel: [PHONE]"),
    ("Telefon 030/1234567", "Telefon [PHONE]"),
    ("fax no. 01632 960983", "fax no. [PHONE]"),
    ("212\u00a0555\u20110142", "[PHONE]"),
]

LEFT_ALONE = [
    "version 1.2.3.4, v1.2.3.4, release 10.15.7.1, firmware 2.0.0.1",
    "1.2.3.4.5 and Section 1.2.3.4 and § 1.2.3.4",
    "Mozilla/5.0 Chrome/96.0.46.110 Safari/537.36",
    "127.0.0.1, 192.168.0.1, 10.0.0.1, 172.16.4.4",
    "ISBN 978-0-306-40615-7, ISBN 0-306-40615-2, ISSN 0378-5955",
    "on 2024-01-15 at 12:30:45 and 12:30:45:17, 15.01.2024, 01/15/2024",
    "std::end, a::b::c, C:: x, 00:1A:2B:3C:4D:5E",
    "for $1,200,000.00, $ 212 555 0142, 212 555 0142 €, +10 000 000",
    "1234567890, 100 200 3000, 12 345 6789, 3.14159265358979",
    "image@2x.png, @handle, me@, @example.com, 5 @ 3.50",
    "UTC+0200, +02:00, 1e+10, 2+12345678",
    "123-456-7890.5, 212-555-01421, pp. 212-555, the 555 1234 lot",
    "GTIN 4006381333931, order 123 456 7890",
    "phone 5 times, tel 12, call 2024-01-15, Mobile 4G 2023",
    "4111 1111 1111 1111, DE89 3704 0044 0532 0130 00",
    "Psalm 119:105, ratio 3:4:5:6, 10:15:20",
]


@pytest.mark.parametrize(("given", "wanted"), FOUND)
def test_personal_data_is_replaced(over, given, wanted):
    assert mask_personal_data(given) == wanted
    assert over(replace_personal_data, [given, wanted]) == [wanted, wanted]


@pytest.mark.parametrize("text", LEFT_ALONE)
def test_what_looks_like_personal_data_stays(text):
    assert mask_personal_data(text) == text


def test_a_long_line_of_digits_or_letters_takes_no_time_to_speak_of():
    """Patterns that look at a text again and again from each place would take minutes here."""
    for hostile in ("1" * 200_000, "a" * 200_000, "a." * 100_000 + "@", "1-" * 100_000, "+1 " * 60_000, ":" * 200_000):
        mask_personal_data(hostile)


def test_all_personal_data_of_the_worlds_pages_is_found_and_nothing_else():
    world = StoryworldSection(stories=2000, web_pages=3000)
    n_pages = found = placed_wrongly = 0
    for page in write_pages(world, write_documents(world)):
        if page.labels == ("personal_data",):
            n_pages += 1
            given = page.html
            found += mask_personal_data(given) != given
        elif page.labels == ("clean",):
            placed_wrongly += mask_personal_data(page.text) != page.text
    assert n_pages > 100
    assert found == n_pages
    assert placed_wrongly == 0
