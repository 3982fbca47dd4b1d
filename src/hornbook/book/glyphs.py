"""Texts of a run as the book's fonts can set them: a model may write anything, and PDF/UA takes no missing glyph."""

import re
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

_LONGEST_WITHOUT_BREAK = 24  # about what the narrowest column of a table takes
_BREAK_EVERY = 12
_ZERO_WIDTH_SPACE = "\u200b"


def settable(tree: Any) -> Any:
    """The same tree with all its strings as the book can set them.

    A character that the fonts lack, or that nobody would see, is spelled by its number: \\u{1b}. A long run without
    blanks gets places where a line may end; names of facts do not, for they are looked up.
    """
    if isinstance(tree, dict):
        return {_spelled(name): settable(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [settable(value) for value in tree]
    return _breakable(_spelled(tree)) if isinstance(tree, str) else tree


def _spelled(text: str) -> str:
    return "".join(letter if _can_be_set(letter) else f"\\u{{{ord(letter):x}}}" for letter in text)


def _can_be_set(letter: str) -> bool:
    return letter in "\n\t" or (unicodedata.category(letter)[0] != "C" and ord(letter) in font_characters())


@cache
def font_characters() -> frozenset[int]:
    """The characters of DejaVu Sans Mono, as numbers: Typst has the font built in, and matplotlib brings it as a file.

    It is the book's second font (layout.typ), for what the first has no glyph for, so all of these can be set.
    """
    from matplotlib import get_data_path
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSansMono.ttf")).get_charmap())


def _breakable(text: str) -> str:
    def broken(run: re.Match[str]) -> str:
        return re.sub(rf"(.{{{_BREAK_EVERY}}})(?=.)", rf"\1{_ZERO_WIDTH_SPACE}", run[0])

    return re.sub(rf"\S{{{_LONGEST_WITHOUT_BREAK + 1},}}", broken, text)
