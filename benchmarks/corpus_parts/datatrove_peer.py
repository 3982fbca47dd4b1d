"""What the corpus benchmarks share: real documents, datatrove's filters as sections of a recipe, and its worker."""

import gzip
import json
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

from hornbook.corpus.character_kinds import WORD_PATTERN
from hornbook.corpus.rules.c4 import SENTENCE_PATTERN
from hornbook.filter_presets import C4, FINEWEB, GOPHER
from hornbook.recipe_data import FilterSection

WEB_SAMPLES = ("c4_demo", "c4_sample_olmo", "dclm_quality_agreement", "dclm_quality_majority")
_REPETITION = {name: threshold for name, threshold in GOPHER.items() if "duplicate" in name or "gram_" in name}
_QUALITY = {name: threshold for name, threshold in GOPHER.items() if name not in _REPETITION}
SECTIONS = {
    name: FilterSection(preset=(), **fields)
    for name, fields in {
        "gopher_quality": _QUALITY,
        "gopher_repetition": _REPETITION,
        "fineweb": FINEWEB,
        "c4": C4,
        "c4_any_line_end": C4 | {"c4_line_end": "off"},
        "c4_sentences": C4 | {"c4_edit": "sentences"},
        "c4_sentences_any_end": C4 | {"c4_edit": "sentences", "c4_line_end": "off"},
    }.items()
}


def read_web_samples(data: Path) -> list[tuple[str, str]]:
    """Real web documents, as (name, text)."""
    documents = []
    for sample in WEB_SAMPLES:
        with gzip.open(data / "web" / f"{sample}.jsonl.gz", "rt", encoding="utf-8") as file:
            documents += [(f"{sample}:{number}", json.loads(line)["text"]) for number, line in enumerate(file, 1)]
    return documents


class Worker:
    """datatrove in a process of its own, asked line by line."""

    def __init__(self, python: Path, documents: Path) -> None:
        script = Path(__file__).with_name("datatrove_worker.py")
        self._process = subprocess.Popen(
            [str(python), str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        self._send({"documents": str(documents), "word_pattern": WORD_PATTERN, "sentence_pattern": SENTENCE_PATTERN})

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def ask(self, splitter: str, filters: list[str], first: int = 0, step: int = 1, with_texts: bool = False) -> None:
        """Ask for one run, and do not wait for its answer."""
        self._send({"splitter": splitter, "filters": filters, "first": first, "step": step, "with_texts": with_texts})

    def answer(self) -> dict[str, Any]:
        """Wait for the answer to what was asked."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"datatrove's process ended with status {self._process.wait()}; see its message above")
        return json.loads(line)

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        print(json.dumps(message), file=self._process.stdin, flush=True)
