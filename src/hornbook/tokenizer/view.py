"""Tokens made visible: where each ends, and which are learned from.

The marks say it all without colour, too: `│` parts two tokens, ⟦ and ⟧ enclose what is learned, ↵ is a newline, and
bytes that are no whole character stand as ‹f0›.
"""

from collections.abc import Sequence

from rich.text import Text

from hornbook.tokenizer.tokenizer import Tokenizer

LEGEND = "│ parts two tokens, ⟦ ⟧ enclose what is learned, ↵ is a newline, ‹f0› a byte of a character in parts"

_LEARNED, _TOLD, _SPECIAL, _MARK = "green", "default", "magenta", "bright_black"


def show_tokens(ids: Sequence[int], is_learned: Sequence[bool], tokenizer: Tokenizer) -> Text:
    """One line of marked tokens; it wraps where a token has a newline."""
    names = {id: name for name, id in tokenizer.special_ids.items()}
    shown = Text()
    was_learned = False
    for number, (id, learned) in enumerate(zip(ids, is_learned, strict=True)):
        if was_learned and not learned:
            shown.append("⟧", f"bold {_LEARNED}")
        elif number and learned == was_learned:
            shown.append("│", _MARK)
        if learned and not was_learned:
            shown.append("⟦", f"bold {_LEARNED}")
        colour = _LEARNED if learned else _TOLD
        shown.append(names.get(id) or _spelled(tokenizer.token_bytes(id)), _SPECIAL if id in names else colour)
        was_learned = learned
    if was_learned:
        shown.append("⟧", f"bold {_LEARNED}")
    return shown


def _spelled(token: bytes) -> str:
    """The text of a token, with marks for what would not be seen."""
    try:
        return token.decode().replace("\n", "↵\n")
    except UnicodeDecodeError:
        return "".join(f"‹{byte:02x}›" for byte in token)
