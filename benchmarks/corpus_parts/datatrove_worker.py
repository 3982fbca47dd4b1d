"""datatrove's side of the corpus benchmarks. It runs in an environment of its own, with datatrove, spaCy and regex.

The first line of standard input names the documents (a JSON file with a list of texts) and the patterns of our
own splitter. Each further line asks for one run: {"splitter": "ours", "fastest" or "spacy", "filters": [...],
"first": 0, "step": 1}. Each answer is one line: why each document was dropped (null where it was kept), the texts of
those kept if they are asked for, and the seconds that the filters took, on the clock and of the processor.
"""

import json
import re
import sys
import time
from collections.abc import Callable
from functools import partial

import regex
from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.utils import text as datatrove_text
from datatrove.utils.word_tokenizers import WordTokenizer

FILTERS = {
    "gopher_quality": GopherQualityFilter,
    "gopher_repetition": GopherRepetitionFilter,
    "fineweb": FineWebQualityFilter,
    "c4": C4QualityFilter,
    "c4_any_line_end": partial(C4QualityFilter, filter_no_terminal_punct=False),
    "c4_sentences": partial(C4QualityFilter, split_paragraph=False),
    "c4_sentences_any_end": partial(C4QualityFilter, split_paragraph=False, filter_no_terminal_punct=False),
}


class RegexTokenizer(WordTokenizer):
    """Words and sentences by patterns."""

    def __init__(self, split_words: Callable[[str], list[str]], sentence_pattern: str) -> None:
        super().__init__()
        self.split_words, self.sentences = split_words, re.compile(sentence_pattern)

    def word_tokenize(self, text: str) -> list[str]:
        return self.split_words(text)

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        return [(match.start(), min(match.end(), len(text))) for match in self.sentences.finditer(text + "\n")]

    def sent_tokenize(self, text: str) -> list[str]:
        return [text[start:end] for start, end in self.span_tokenize(text)]


def run(texts: list[str], language: WordTokenizer | str, names: list[str]) -> dict:
    """One run: as in datatrove's executor, each document goes through the filters until one drops it."""
    filters = [FILTERS[name](language=language) for name in names]
    documents = [Document(text, str(number)) for number, text in enumerate(texts)]
    reasons: list[str | None] = []
    datatrove_text.split_into_parts.cache_clear()
    cpu_started, started = time.process_time(), time.perf_counter()
    for document in documents:
        reasons.append(next((why for step in filters if (why := judge(step, document))), None))
    return {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu_started,
        "reasons": reasons,
        "texts": [None if why else document.text for document, why in zip(documents, reasons, strict=True)],
    }


def judge(step, document: Document) -> str | None:
    """Why a filter drops a document, or None. A division by zero ends a run of datatrove; here it is a reason."""
    try:
        result = step.filter(document)
    except ZeroDivisionError as problem:
        return f"error: {problem}"
    return None if result is True else result[1]


def main() -> None:
    """Answer requests until standard input ends."""
    setup = json.loads(sys.stdin.readline())
    with open(setup["documents"], encoding="utf-8") as file:
        texts = json.load(file)
    ours, sentences = regex.compile(setup["word_pattern"]), setup["sentence_pattern"]
    splitters = {
        "ours": RegexTokenizer(lambda text: [match.group() for match in ours.finditer(text)], sentences),
        # About the least that a regular expression can do, and three times as fast as our pattern.
        "fastest": RegexTokenizer(re.compile(r"\w+|[^\w\s]").findall, sentences),
        "spacy": "en",
    }
    # What datatrove prints would stand between the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        request = json.loads(line)
        sample = texts[request["first"] :: request["step"]]
        answer = run(sample, splitters[request["splitter"]], request["filters"])
        if not request["with_texts"]:
            del answer["texts"]
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
