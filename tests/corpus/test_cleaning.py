"""Each cleaning step repairs what it names, leaves sound text alone, and changes nothing the second time."""

import gzip
import json
import tarfile
from pathlib import Path

import pytest

from hornbook.corpus import cleaning
from hornbook.corpus.engine import load_daft
from hornbook.recipe import CleaningSection

REPAIRS = [
    (cleaning.repair_mojibake, "The cafÃ© is â€œopenâ€\x9d.", "The café is “open”."),
    (cleaning.normalize_unicode, "cafe\u0301", "café"),
    (cleaning.remove_control_characters, "a\x00b\x07c\u200bd\ufeff\te\r\nf\rg", "abcd\te\nf\ng"),
    (cleaning.collapse_whitespace, "  a \t b\u00a0c  \n d\n\n\n\n e \n", "a b c\nd\n\ne"),
    (cleaning.replace_personal_data, "mail a.b+c@mail.example.com!", "mail [EMAIL]!"),
    (cleaning.replace_personal_data, "from 192.0.2.17, not 300.1.2.3", "from [IP], not 300.1.2.3"),
    (cleaning.replace_personal_data, "ring +44 20 7946 0958 or (212) 555-0142.", "ring [PHONE] or [PHONE]."),
    (cleaning.replace_personal_data, "212.555.0142, 212-555-0142", "[PHONE], [PHONE]"),
]


@pytest.mark.parametrize(("step", "given", "wanted"), REPAIRS)
def test_a_step_repairs_what_it_is_for_and_is_idempotent(over, step, given, wanted):
    assert over(step, [given, wanted]) == [wanted, wanted]


@pytest.mark.parametrize("step", sorted({repair[0] for repair in REPAIRS}, key=lambda step: step.__name__))
def test_a_step_leaves_sound_text_alone(over, sound_text, step):
    sound = [
        sound_text(3),
        "Ångström — “naïve” façade… 年 👩‍👩‍👧",
        "In 1914-1918, at 3.14159 or 1.2.3, page 100-2000, 12 34 56.",
    ]
    assert over(step, sound) == sound


def test_joiners_inside_emoji_and_persian_words_stay(over):
    texts = ["👩\u200d👧", "می\u200cخواهم"]
    assert over(cleaning.remove_control_characters, texts) == texts


@pytest.mark.parametrize("switch", list(CleaningSection.model_fields))
def test_each_switch_of_the_recipe_changes_what_comes_out(switch):
    mess = "Cafe\u0301 Ã© \x07 a  b c@example.com"
    default = CleaningSection()
    turned = default.model_copy(update={switch: not getattr(default, switch)})
    assert _cleaned([mess], [False], default) != _cleaned([mess], [False], turned)


def test_a_page_gives_its_paragraphs_and_none_of_its_furniture():
    page = (
        "<html><head><title>Site</title><script>var x = 1;</script></head><body>"
        '<header><h1>Site</h1></header><nav><a href="/">Home</a></nav>'
        '<div class="cookie-banner">We use cookies.</div><article>'
        "<p>Mara found a kite &amp; a box.<br>It was red.</p><p>She took it home.</p></article>"
        '<section class="comments"><div>First!</div></section><footer>Imprint</footer></body></html>'
    )
    plain = "a < b and <p> stays where the text is not HTML"
    assert _cleaned([page, plain], [True, False], CleaningSection()) == [
        "Mara found a kite & a box.\nIt was red.\n\nShe took it home.",
        plain,
    ]


@pytest.mark.parametrize("page", ["", "<", "<html", "<p>a<p", "\x00<div>", "&#xD800;", "<table><td>" * 200])
def test_broken_pages_do_not_stop_the_cleaning(page):
    assert len(_cleaned([page], [True], CleaningSection())) == 1


def test_cleaning_again_changes_nothing(sound_text):
    mess = ["a  b\r\n\r\n\r\nc \u200b cafÃ©\x07 x@example.com +1 212 555 0142", sound_text(5)]
    once = _cleaned(mess, [False, False], CleaningSection())
    assert _cleaned(once, [False, False], CleaningSection()) == once != mess


def _cleaned(texts: list[str], are_html: list[bool], section: CleaningSection) -> list[str]:
    daft = load_daft()
    frame = daft.from_pydict({"text": texts, "is_html": are_html})
    cleaned = cleaning.clean(daft.col("text"), daft.col("is_html"), section)
    return frame.select(cleaned.alias("text")).to_pydict()["text"]


def test_the_content_of_real_pages_is_found(real_data):
    """Trafilatura's evaluation: strings that a good extraction of a page has, and others that it has not."""
    with gzip.open(real_data / "web/trafilatura_gold.jsonl.gz", "rt", encoding="utf-8") as file:
        gold = [json.loads(line) for line in file]
    with tarfile.open(real_data / "web/trafilatura_pages.tar.gz") as archive:
        pages = {Path(member.name).name: archive.extractfile(member).read() for member in archive if member.isfile()}
    gold = [entry for entry in gold if Path(entry["file"]).name in pages]
    assert len(gold) > 300
    html = [pages[Path(entry["file"]).name].decode("utf-8", "replace") for entry in gold]
    found = found_wrongly = wanted = 0
    for entry, text in zip(gold, _cleaned(html, [True] * len(html), CleaningSection()), strict=True):
        plain = " ".join(text.split())
        wanted += len(entry["with"])
        found += sum(" ".join(piece.split()) in plain for piece in entry["with"])
        found_wrongly += sum(" ".join(piece.split()) in plain for piece in entry["without"])
    assert found / wanted > 0.92
    assert found / (found + found_wrongly) > 0.78
