"""Repairs made to every document: from what a crawler or an editor left behind to plain text.

Each step is a function from a string expression to a string expression, switched by the recipe, and they run
in the order of `STEPS`. What regular expressions can do runs inside the engine, in Rust; only extraction from
HTML, mojibake, Unicode's normal forms and personal data need Python, and for these a search in Rust first finds
the documents that need them at all.
"""

import unicodedata
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from hornbook.corpus.engine import load_daft
from hornbook.corpus.extraction import text_from_html
from hornbook.corpus.in_python import where_needed
from hornbook.corpus.personal_data import CANDIDATE, mask_personal_data
from hornbook.recipe_data import CleaningSection

if TYPE_CHECKING:
    from daft import Expression

# What each preset sets a field to that the recipe leaves open.
PRESETS: dict[str, dict[str, bool | str]] = {
    "none": {
        "repair_mojibake": False,
        "unicode_form": "off",
        "remove_control_characters": False,
        "standardize_punctuation": False,
        "replace_personal_data": False,
        "remove_special_characters": False,
        "collapse_whitespace": False,
        "lowercase": False,
    },
    "language_model": {
        "repair_mojibake": True,
        "unicode_form": "nfc",
        "remove_control_characters": True,
        "standardize_punctuation": False,
        "replace_personal_data": True,
        "remove_special_characters": False,
        "collapse_whitespace": True,
        "lowercase": False,
    },
    "classic": {
        "repair_mojibake": True,
        "unicode_form": "nfkc",
        "remove_control_characters": True,
        "standardize_punctuation": True,
        "replace_personal_data": True,
        "remove_special_characters": True,
        "collapse_whitespace": True,
        "lowercase": True,
    },
}

# UTF-8 read as Latin-1 or Windows-1252 shows a letter of this kind before one of that kind; no such pair, no
# mojibake.
_LIKELY_MOJIBAKE = r"[\x{c2}-\x{f4}][\x{80}-\x{bf}€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]"
# Where a character that a normal form may change can stand. Form C leaves alone all below U+0300 and the
# punctuation from U+2002 on, which most texts have.
_CHANGED_BY = {"nfc": r"[\x{300}-\x{2001}\x{20d0}-\x{10ffff}]", "nfkc": r"[^\x00-\x7f]"}
# Line ends of every kind: of Windows, the old Mac and mainframes, form feed, vertical tab, the separators of files,
# groups and records, and Unicode's of lines and paragraphs.
_LINE_ENDS = r"\r\n?|[\x0b\x0c\x1c-\x1e\x{85}\x{2028}\x{2029}]"
# C0 and C1 controls but tab and newline, soft hyphen, zero-width blank, marks and overrides of the direction
# of writing, invisible operators, annotations, byte-order mark, private use, noncharacters, and the tag
# characters in which text can hide. Tags stay after a black flag, where they spell the flags of England,
# Scotland and Wales. The joiners U+200C and U+200D stay: they carry meaning in Persian, in Indian scripts and
# in emoji. U+FFFD stays: it says that something is missing.
_CONTROL_CHARACTERS = (
    r"(\x{1f3f4}[\x{e0020}-\x{e007f}]+)"
    r"|[\x00-\x08\x0e-\x1f\x7f-\x9f\x{ad}\x{180e}\x{200b}\x{200e}\x{200f}\x{202a}-\x{202e}\x{2060}-\x{206f}"
    r"\x{feff}\x{fff0}-\x{fffc}\x{fffe}\x{ffff}\x{fdd0}-\x{fdef}\x{e000}-\x{f8ff}\x{e0000}-\x{e007f}"
    r"\x{f0000}-\x{10ffff}]"
)
# Symbols and the signs of mark-up and code; joiners, variants and tags only occur within symbols here.
_SPECIAL_CHARACTERS = r"[\p{S}#%&*/@\\_{}§¶†‡•\x{200d}\x{20e3}\x{fe0e}\x{fe0f}\x{fffd}\x{e0020}-\x{e007f}]+"
# Runs of blanks that are not one plain blank; spelled out, because \s takes longer.
_ODD_BLANK = r"\t\x0b\x0c\r\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{202f}\x{205f}\x{2028}\x{2029}\x{3000}"
_BLANKS = rf" ?[{_ODD_BLANK}][ {_ODD_BLANK}]*|  [ {_ODD_BLANK}]*"
_PLAIN_PUNCTUATION = (
    ("[“”„‟«»″＂]", '"'),
    ("[‘’‚‛‹›′＇`´]", "'"),
    ("[‐‑‒–−]", "-"),
    ("[—―]", "--"),
    ("…", "..."),
)


def clean(text: "Expression", is_html: "Expression", section: CleaningSection) -> "Expression":
    """The cleaned text of each document, with the steps that the recipe switches on.

    Args:
        text: string column, HTML where `is_html` holds.
        is_html: boolean column.
        section: the recipe's switches.
    """
    text = text_from_html(text, is_html)
    for name, step in STEPS.items():
        if switch(section, name) is True:
            text = step(text)
        elif name == "unicode_form" and switch(section, name) != "off":
            text = normalize_unicode(text, str(switch(section, name)))
    return text


def switch(section: CleaningSection, name: str) -> bool | str:
    """What the recipe says about a step, or the preset where the recipe says nothing."""
    value = getattr(section, name)
    return PRESETS[section.preset][name] if value is None else value


def repair_mojibake(text: "Expression") -> "Expression":
    """Undo the reading of UTF-8 as another encoding ("cafÃ©" → "café") with ftfy (Speer 2019).

    Only ftfy's repair of encodings is used: the rest of what it can do would change quotes and entities.
    """
    import ftfy

    return where_needed(text, load_daft().functions.regexp(text, _LIKELY_MOJIBAKE), ftfy.fix_encoding)


def normalize_unicode(text: "Expression", form: str = "nfc") -> "Expression":
    """One of Unicode's normal forms (UAX 15).

    C: a letter with its accent is one character, however it was typed. KC replaces also what only looks
    different, such as ligatures, full-width letters and raised digits ("x²" becomes "x2").
    """
    normalize = partial(unicodedata.normalize, form.upper())  # type: ignore[arg-type]
    return where_needed(text, load_daft().functions.regexp(text, _CHANGED_BY[form]), normalize)


def remove_control_characters(text: "Expression") -> "Expression":
    """Drop invisible characters that carry no meaning, and private ones; line ends of every kind become
    newlines.

    They come from word processors, broken exports and attempts to hide text. Emoji stay.
    """
    replace = load_daft().functions.regexp_replace
    return replace(replace(text, _LINE_ENDS, "\n"), _CONTROL_CHARACTERS, "$1")


def standardize_punctuation(text: "Expression") -> "Expression":
    """Quotes, dashes and ellipses in ASCII: " ' - -- and three dots.

    A small vocabulary then spends one token where it would spend several, and texts of different editors
    read alike.
    """
    for characters, plain in _PLAIN_PUNCTUATION:
        text = load_daft().functions.regexp_replace(text, characters, plain)
    return text


def replace_personal_data(text: "Expression") -> "Expression":
    """Put placeholders for e-mail addresses, IP addresses and phone numbers (see `personal_data`)."""
    return where_needed(text, load_daft().functions.regexp(text, CANDIDATE), mask_personal_data)


def remove_special_characters(text: "Expression") -> "Expression":
    """A blank for symbols, emoji and the signs of mark-up and code: what stays is letters, digits and ordinary
    punctuation of any script.

    A step of the classic recipe for small models of plain prose; a model of code or mathematics needs these
    characters.
    """
    return load_daft().functions.regexp_replace(text, _SPECIAL_CHARACTERS, " ")


def collapse_whitespace(text: "Expression") -> "Expression":
    """One blank for a run of blanks of any kind, at most one empty line, and none of either at the ends."""
    functions = load_daft().functions
    text = functions.regexp_replace(text, _BLANKS, " ")
    text = functions.regexp_replace(text, r" \n ?|\n ", "\n")
    text = functions.regexp_replace(text, r"\n{3,}", "\n\n")
    return functions.strip(text)


def lowercase(text: "Expression") -> "Expression":
    """Small letters only: half the forms of each word for a small model to learn, and no names told apart."""
    return load_daft().functions.lower(text)


# In the order in which they run. Encodings first, because everything else looks at characters; personal data
# before the characters go that it is known by; blanks after everything that leaves some.
STEPS: dict[str, Callable[["Expression"], "Expression"]] = {
    "repair_mojibake": repair_mojibake,
    "unicode_form": normalize_unicode,
    "remove_control_characters": remove_control_characters,
    "standardize_punctuation": standardize_punctuation,
    "replace_personal_data": replace_personal_data,
    "remove_special_characters": remove_special_characters,
    "collapse_whitespace": collapse_whitespace,
    "lowercase": lowercase,
}
