"""How well, and how fast, the text of web pages is found, beside Trafilatura on the same pages in the same run.

    python benchmarks/corpus.py extraction --data FOLDER --peer-python PATH [--rounds 3]

FOLDER holds `web/trafilatura_gold.jsonl.gz`, `web/trafilatura_pages.tar.gz` and `web/readability_pages.tar.gz`;
PATH is a Python that has Trafilatura installed. Two measures:

- Trafilatura's evaluation (Barbaresi 2021): strings that a good extraction of a page has, and strings that it
  has not. Precision, recall and F1 count the strings over all pages.
- Readability's test pages: words shared with the article that Mozilla's tests expect, as bags; means over pages.

Speed is documents per second of processor time, decoding included, the median of the rounds, in which the two
take turns: processor time, because wall time depends on what else the machine does.
"""

import argparse
import base64
import gzip
import json
import re
import statistics
import subprocess
import tarfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from hornbook.corpus.encodings import decode_page
from hornbook.corpus.extraction import main_content

PEER = """
import base64, json, sys, time
import trafilatura
texts, seconds = [], 0.0
for line in sys.stdin:
    page = base64.b64decode(line)
    started = time.process_time()
    text = trafilatura.extract(page, include_comments=False) or ""
    seconds += time.process_time() - started
    texts.append(text)
json.dump({"texts": texts, "seconds": seconds, "version": trafilatura.__version__}, sys.stdout)
"""


class Gold(NamedTuple):
    """A page and what its text must and must not contain."""

    page: bytes
    wanted: list[str]
    unwanted: list[str]


class Article(NamedTuple):
    """A page and the words of its article."""

    page: bytes
    words: Counter[str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    gold, articles = load_gold(options.data), load_articles(options.data)
    pages = [entry.page for entry in gold] + [article.page for article in articles]
    seconds: dict[str, list[float]] = {"hornbook": [], "trafilatura": []}
    texts: dict[str, list[str]] = {}
    for _ in range(options.rounds):
        for name, extract in (("hornbook", ours), ("trafilatura", lambda pages: peers(pages, options.peer_python))):
            texts[name], spent = extract(pages)
            seconds[name].append(spent)
    print(f"{len(gold)} pages of Trafilatura's evaluation, {len(articles)} of Readability's tests")
    print("             trafilatura's strings       readability's words         documents/s of")
    print("             precision recall F1         precision recall F1         processor time")
    for name, found in texts.items():
        strings = string_scores(gold, found[: len(gold)])
        words = word_scores(articles, found[len(gold) :])
        figures = "".join("".join(f"{score:.3f}     " for score in scores) for scores in (strings, words))
        print(f"{name:12} {figures}{len(pages) / statistics.median(seconds[name]):.0f}")
    ratio = statistics.median(peer / own for peer, own in zip(seconds["trafilatura"], seconds["hornbook"], strict=True))
    print(f"hornbook is {ratio:.1f} times as fast")


def ours(pages: list[bytes]) -> tuple[list[str], float]:
    """The texts of the pages, and the seconds of processor time that they took."""
    started = time.process_time()
    texts = [main_content(decode_page(page)) for page in pages]
    return texts, time.process_time() - started


def peers(pages: list[bytes], python: str) -> tuple[list[str], float]:
    """As `ours`, by Trafilatura in another process."""
    lines = b"".join(base64.b64encode(page) + b"\n" for page in pages)
    done = subprocess.run([python, "-c", PEER], input=lines, check=True, stdout=subprocess.PIPE)
    answer = json.loads(done.stdout)
    return answer["texts"], answer["seconds"]


def string_scores(gold: list[Gold], texts: list[str]) -> tuple[float, float, float]:
    """Precision, recall and F1 as Trafilatura's evaluation counts them: strings that stand in the text as given."""
    found = sum(string in text for entry, text in zip(gold, texts, strict=True) for string in entry.wanted)
    wrong = sum(string in text for entry, text in zip(gold, texts, strict=True) for string in entry.unwanted)
    wanted = sum(len(entry.wanted) for entry in gold)
    precision, recall = found / (found + wrong), found / wanted
    return precision, recall, 2 * precision * recall / (precision + recall)


def word_scores(articles: list[Article], texts: list[str]) -> tuple[float, float, float]:
    """Means over pages of the precision, recall and F1 of words, each counted as often as it stands there."""
    scores = []
    for article, text in zip(articles, texts, strict=True):
        found = words_of(text)
        shared = (found & article.words).total()
        precision, recall = shared / max(found.total(), 1), shared / max(article.words.total(), 1)
        scores.append((precision, recall, 2 * precision * recall / max(precision + recall, 1e-9)))
    precision, recall, f1 = (statistics.fmean(column) for column in zip(*scores, strict=True))
    return precision, recall, f1


def words_of(text: str) -> Counter[str]:
    return Counter(re.findall(r"\w+", text.lower()))


def load_gold(data: Path) -> list[Gold]:
    pages = {Path(name).name: page for name, page in _members(data / "web/trafilatura_pages.tar.gz")}
    with gzip.open(data / "web/trafilatura_gold.jsonl.gz", "rt", encoding="utf-8") as file:
        entries: list[dict[str, Any]] = [json.loads(line) for line in file]
    return [
        Gold(pages[Path(entry["file"]).name], entry["with"], entry["without"])
        for entry in entries
        if Path(entry["file"]).name in pages
    ]


def load_articles(data: Path) -> list[Article]:
    from resiliparse.extract.html2text import extract_plain_text

    folders: dict[str, dict[str, bytes]] = {}
    for name, content in _members(data / "web/readability_pages.tar.gz"):
        folders.setdefault(str(Path(name).parent), {})[Path(name).name] = content
    return [
        Article(
            folder["source.html"], words_of(extract_plain_text(decode_page(folder["expected.html"]), alt_texts=False))
        )
        for _, folder in sorted(folders.items())
    ]


def _members(path: Path) -> list[tuple[str, bytes]]:
    found = []
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            if file is not None:
                found.append((member.name, file.read()))
    return found
