"""Each cleaning step repairs what it names, leaves sound text alone, and changes nothing the second time."""

import gzip
import json
import tarfile
import unicodedata
from pathlib import Path

import pytest

from hornbook.corpus import cleaning
from hornbook.corpus.engine import load_daft
from hornbook.corpus.extraction import main_content
from hornbook.recipe_data import CleaningSection

REPAIRS = [
    (cleaning.repair_mojibake, "The cafÃ© is â€œopenâ€\x9d.", "The café is “open”."),
    (cleaning.normalize_unicode, "cafe\u0301", "café"),
    (cleaning.normalize_unicode, "\u212b", "Å"),
    (cleaning.remove_control_characters, "a\x00b\x07c\u200bd\ufeff\te\r\nf\rg", "abcd\te\nf\ng"),
    (cleaning.remove_control_characters, "a\u2028b\x0cc\u2029d", "a\nb\nc\nd"),
    (cleaning.remove_control_characters, "\u202eab\u202c \ue000\U0010fffdc\u200e \U000e0041\U000e0042d", "ab c d"),
    (cleaning.standardize_punctuation, "“No,” she said – ‘it’s’ — well…", "\"No,\" she said - 'it's' -- well..."),
    (cleaning.collapse_whitespace, "  a \t b\u00a0c  \n d\n\n\n\n e \n", "a b c\nd\n\ne"),
    (cleaning.collapse_whitespace, "\u3000a\u2003\u2003b \u00a0 c\n \n \n\t\nd\x85", "a b c\n\nd"),
    (cleaning.replace_personal_data, "mail a.b+c@mail.example.com!", "mail [EMAIL]!"),
    (cleaning.remove_special_characters, "50% of #1 & *2* is <3>", "50  of  1    2  is  3 "),
    (cleaning.remove_special_characters, "ok 👩\u200d👧 ™“¿Qué?” 年。", "ok    “¿Qué?” 年。"),
    (cleaning.remove_special_characters, "go \U0001f3f4\U000e0067\U000e0062\U000e007f!", "go  !"),
    (cleaning.lowercase, "Ann ÉCOLE", "ann école"),
]


@pytest.mark.parametrize(("step", "given", "wanted"), REPAIRS)
def test_a_step_repairs_what_it_is_for_and_is_idempotent(over, step, given, wanted):
    assert over(step, [given, wanted]) == [wanted, wanted]


@pytest.mark.parametrize("step", sorted({repair[0] for repair in REPAIRS}, key=lambda step: step.__name__))
def test_a_step_leaves_sound_text_alone(over, sound_text, step):
    if step is cleaning.lowercase:
        return
    if step in (cleaning.standardize_punctuation, cleaning.remove_special_characters):
        sound = ['In 1914-1918, at 3.14159 (page 100), she said: "It\'s -- well... naïve!"', "年。 Ångström?"]
        assert over(step, sound) == sound
        return
    sound = [
        sound_text(3),
        "Ångström — “naïve” façade… 年 👩‍👩‍👧",
        "In 1914-1918, at 3.14159 or 1.2.3, page 100-2000, 12 34 56.",
    ]
    assert over(step, sound) == sound


def test_joiners_inside_emoji_and_persian_words_stay(over):
    texts = ["👩\u200d👧", "می\u200cخواهم"]
    assert over(cleaning.remove_control_characters, texts) == texts


def test_the_flags_of_countries_stay_while_hidden_text_goes(over):
    scotland = "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f"
    assert over(cleaning.remove_control_characters, [f"a {scotland} b\U000e0067"]) == [f"a {scotland} b"]


def test_the_compatibility_form_replaces_what_only_looks_different(over):
    assert over(lambda text: cleaning.normalize_unicode(text, "nfkc"), ["ﬁve ｆｕｌｌ x²\u00a0"]) == ["five full x2 "]


@pytest.mark.parametrize("form", ["nfc", "nfkc"])
def test_a_normal_form_is_unicodes_own_for_every_character(over, form):
    """The search that finds the texts in need of it must find them all."""
    characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    changed = [c for c in characters if unicodedata.normalize(form.upper(), c) != c or unicodedata.combining(c)]
    texts = [f"e{c}\u0301" for c in changed] + changed + ["plain", "“typographic” – text…"]
    wanted = [unicodedata.normalize(form.upper(), text) for text in texts]
    assert over(lambda text: cleaning.normalize_unicode(text, form), texts) == wanted


@pytest.mark.parametrize("preset", list(cleaning.PRESETS))
@pytest.mark.parametrize("name", list(cleaning.STEPS))
def test_each_switch_of_the_recipe_changes_what_comes_out(preset, name):
    mess = "Cafe\u0301 Ã© \x07 a  b c@example.com “ok” ½ % 👍"
    default = CleaningSection(preset=preset)
    value = cleaning.switch(default, name)
    other = ("nfc" if value == "off" else "off") if name == "unicode_form" else not value
    turned = default.model_copy(update={name: other})
    assert _cleaned([mess], [False], default) != _cleaned([mess], [False], turned)


def test_the_presets_name_every_step_and_the_steps_every_field():
    fields = set(CleaningSection.model_fields) - {"preset"}
    assert fields == set(cleaning.STEPS)
    assert all(set(preset) == fields for preset in cleaning.PRESETS.values())


def test_the_classic_recipe_is_one_line():
    mess = "“The CAFÉ,” she said – for 5 € & more… 👍\nWrite to Ann@example.com!"
    assert _cleaned([mess], [False], CleaningSection(preset="classic")) == [
        '"the café," she said - for 5 more...\nwrite to [email]!'
    ]
    assert _cleaned([mess], [False], CleaningSection(preset="none")) == [mess]
    keeps_case = CleaningSection(preset="classic", lowercase=False)
    assert _cleaned(["It is A"], [False], keeps_case) == ["It is A"]


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
    assert found / wanted > 0.94
    assert found / (found + found_wrongly) > 0.8


@pytest.mark.parametrize("end", ["\r\n", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"])
def test_words_are_not_joined_where_a_line_ends(over, end):
    assert over(cleaning.remove_control_characters, [f"one{end}two"]) == ["one\ntwo"]


def test_a_page_nested_more_deeply_than_browsers_show_is_no_page_and_takes_no_time():
    nested = "<div>" * 100_000 + "text" + "</div>" * 100_000
    assert main_content(nested) == ""
    flat = "<html><body>" + "<p>The cat sat on the mat.<br>" * 3000
    assert "The cat sat on the mat." in main_content(flat)
