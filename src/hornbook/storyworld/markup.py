"""The mark-up around a story: whole HTML pages in the layouts that the web is made of, with their furniture.

Navigation, cookie notices, advertisements, comments and links surround the text, as they do on real pages, in
elements and classes of the kinds that real templates use.
"""

import html
import tomllib
from functools import lru_cache
from importlib.resources import files
from typing import Any

from hornbook.storyworld.chance import Chance


@lru_cache(maxsize=1)
def words() -> dict[str, Any]:
    """The words and sentences that pages are furnished with, from `web.toml`."""
    return tomllib.loads(files("hornbook.storyworld").joinpath("web.toml").read_text(encoding="utf-8"))


def render(chance: Chance, text: str) -> str:
    """A whole page around the text, in one of several kinds of mark-up."""
    body = _paragraphs(chance, text)
    site = html.escape(chance.pick(words()["sites"]))
    layout = chance.weigh(_LAYOUTS)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{site}</title>\n'
        "<style>body { margin: 0; } .ad { color: red; }</style>\n"
        "<script>var tracking = true; function load() { return 1; }</script></head>\n"
        f"<body>\n{layout(chance, site, body)}\n</body>\n</html>\n"
    )


def _paragraphs(chance: Chance, text: str) -> str:
    """The text as paragraphs: an empty line parts two, a line break within one becomes <br>."""
    paragraphs = []
    for paragraph in text.split("\n\n"):
        escaped = html.escape(paragraph, quote=chance.happens(0.5)).replace("\n", "<br>\n")
        if chance.happens(0.3):  # editors write two blanks as one that does not break
            escaped = escaped.replace(". ", ".&nbsp; ", 1)
        paragraphs.append(f"<p>{escaped}</p>")
    return "\n".join(paragraphs)


def _semantic_layout(chance: Chance, site: str, body: str) -> str:
    return (
        f"<header><h1>{site}</h1>{_navigation(chance, 'nav')}</header>\n{_cookies(chance)}"
        f"<main><article>\n{body}\n</article>{_share(chance)}</main>\n{_comments(chance)}"
        f"<aside>{_related(chance)}</aside>\n<footer>{chance.pick(words()['footers'])}</footer>"
    )


def _div_layout(chance: Chance, site: str, body: str) -> str:
    return (
        f'<div id="header" class="header">{site}</div>{_navigation(chance, "div")}\n{_advertisement(chance)}'
        f'<div class="wrapper"><div class="content">\n{body}\n</div>\n{_share(chance)}</div>\n'
        f'{_comments(chance)}<div class="footer">{chance.pick(words()["footers"])}</div>\n{_cookies(chance)}'
    )


def _table_layout(chance: Chance, site: str, body: str) -> str:
    return (
        f'<table width="100%"><tr><td colspan="2" class="header">{_navigation(chance, "div")}</td></tr>\n'
        f'<tr><td class="sidebar">{_related(chance)}</td><td class="main-content">\n{body}\n</td></tr>\n'
        f'<tr><td colspan="2" class="footer">{site}. {chance.pick(words()["footers"])}</td></tr></table>'
    )


def _blog_layout(chance: Chance, site: str, body: str) -> str:
    return (
        f'<div class="navbar">{_navigation(chance, "nav")}</div>{_cookies(chance)}\n'
        f'<div id="main"><div class="post"><div class="entry-content">\n{body}\n</div>'
        f"{_share(chance)}</div>\n{_comments(chance)}</div>\n"
        f'<div class="sidebar">{site}{_related(chance)}{_advertisement(chance)}</div>\n'
        f'<div id="footer">{chance.pick(words()["footers"])}</div>'
    )


def _nameless_layout(chance: Chance, site: str, body: str) -> str:
    """What site builders make: no element and no class says what it is for."""
    return (
        f'<div class="c1 x7">{site}</div><div class="c2">{chance.pick(words()["cookies"])}</div>\n'
        f'<div class="x9"><div>\n{body}\n</div></div>\n<div class="c4">{chance.pick(words()["comments"])}'
        f'</div><div class="x3">{chance.pick(words()["footers"])}</div>'
    )


_LAYOUTS = (
    (8.0, _semantic_layout),
    (8.0, _div_layout),
    (8.0, _table_layout),
    (8.0, _blog_layout),
    (1.0, _nameless_layout),
)


def _navigation(chance: Chance, tag: str) -> str:
    first = chance.pick(range(6))
    entries = words()["navigation"][first : first + 4]
    items = "".join(f'<li><a href="/{entry.lower()}">{entry}</a></li>' for entry in entries)
    return f'<{tag} class="nav menu"><ul>{items}</ul></{tag}>'


def _related(chance: Chance) -> str:
    links = "".join(f'<li><a href="/{i}">{chance.pick(words()["related"])}</a></li>' for i in range(3))
    return f'<div class="related"><h3>Related</h3><ul>{links}</ul></div>'


def _cookies(chance: Chance) -> str:
    sentence = chance.pick(words()["cookies"])
    return f'<div class="cookie-banner" role="dialog">{sentence} <button>Accept</button></div>\n'


def _advertisement(chance: Chance) -> str:
    return f'<div class="ad advertisement">{chance.pick(words()["advertisements"])}</div>\n'


def _share(chance: Chance) -> str:
    links = "".join(f'<li><a href="#">{chance.pick(words()["shares"])}</a></li>' for _ in range(3))
    return f'<ul class="social-share">{links}</ul>\n'


def _comments(chance: Chance) -> str:
    readers, remarks = words()["readers"], words()["comments"]
    comments = "".join(
        f'<div class="comment"><b>{chance.pick(readers)}</b> {chance.pick(remarks)}</div>'
        for _ in range(chance.pick(range(4)))
    )
    return f'<section id="comments" class="comments">{comments}</section>\n'
