"""Every number in the report of a run is one that its files hold, or follows from them as computed here once more."""

import gzip
import io
import json
import math
import re
import tomllib
from pathlib import Path

import pypdf
import pytest

from hornbook.book.build import build_book
from hornbook.book.reference import REFERENCE_RUN

NUMBER = re.compile(r"(?<![\w.,])[−-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?(?![\w])")


def _leaves(tree):
    if isinstance(tree, dict):
        tree = list(tree.values())
    if isinstance(tree, list):
        for one in tree:
            yield from _leaves(one)
    else:
        yield tree


def _files(run: Path) -> tuple[set[float], str]:
    """All numbers of a run's files, and all their text."""
    numbers, texts = set(), []
    for path in sorted(run.rglob("*")):
        if path.suffix == ".json":
            tree = json.loads(path.read_text())
        elif path.suffix == ".toml":
            tree = tomllib.loads(path.read_text())
        else:
            continue
        for leaf in _leaves(tree):
            if isinstance(leaf, bool):
                continue
            if isinstance(leaf, int | float):
                numbers.add(float(leaf))
            elif isinstance(leaf, str):
                texts.append(" ".join(leaf.split()))
    return numbers, " ".join(texts)


def _followed(run: Path) -> set[float]:
    """What the report derives: sums of seconds, and firsts, lasts and extremes of the metrics."""
    followed = set()
    seconds = [json.loads(path.read_text())["seconds"] for path in run.glob("*/stage.json")]
    followed.add(sum(seconds) / 60)
    for path in run.glob("*/metrics.jsonl.gz"):
        records = [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]
        followed |= {records[0]["loss_nats"], max(r["grad_norm"] for r in records if r["grad_norm"] is not None)}
        followed.add(sum(record["seconds"] for record in records) / 60)
        for record in records:
            measured = record.get("evaluation", {}).get("validation", {})
            followed |= {float(record["step"]), *measured.values()} if measured else set()
    return followed


def _planned(run: Path) -> set[float]:
    """What the plan of the recipe says, by the project's own planning: its tests are elsewhere."""
    from hornbook.book.build import _planned
    from hornbook.book.run_facts import read_run

    return {
        float(leaf) for leaf in _leaves(_planned(read_run(run), run).facts["plan"]) if isinstance(leaf, int | float)
    }


@pytest.mark.parametrize("form", ["pdf", "md"])
def test_no_number_of_the_report_is_from_elsewhere(tmp_path, form):
    output = tmp_path / f"report.{form}"
    build_book(REFERENCE_RUN, output, only_results=True, format=form)
    if form == "pdf":
        pages = pypdf.PdfReader(io.BytesIO(output.read_bytes())).pages
        # The numbers of the pages, and those of headings, tables and figures, are the report's own.
        lines = [line for page in pages for line in page.extract_text().splitlines()]
        lines = [re.sub(r"^(?:Chapter )?\d+(?:\.\d+)*(?=\s|$)|\b(?:Table|Figure|Listing|Chapter) \d+\.?", "", line)
                 for line in lines]  # fmt: skip
        lines = [re.sub(r"\s\d+$", "", line) if line.startswith(("The run", " The run")) else line for line in lines]
    else:
        lines = [re.sub(r"!\[[^\]]*\]\([^)]*\)", "", line) for line in output.read_text().splitlines()]
    numbers, texts = _files(REFERENCE_RUN)
    known = numbers | _followed(REFERENCE_RUN) | _planned(REFERENCE_RUN)
    scaled = {value * factor for value in known if math.isfinite(value) for factor in (1, 100, 1 / 60)}
    quoted = set(NUMBER.findall(texts))
    found = [(number, line) for line in lines for number in NUMBER.findall(line)]
    assert len(found) > 150
    for number, line in found:
        value = float(number.replace(",", "").replace("−", "-"))
        mantissa, _, exponent = number.partition("e")
        near = 0.5000001 * 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
        assert number in quoted or any(abs(one - value) <= near for one in scaled), f"{number} in: {line}"


def test_a_number_that_was_tampered_with_is_seen(tmp_path):
    """The check above can fail: a report of another run has numbers that this one's files do not hold."""
    numbers, _ = _files(REFERENCE_RUN)
    loss = json.loads((REFERENCE_RUN / "pretrain" / "stage.json").read_text())["facts"]["final_loss_nats"]
    assert loss in numbers
    assert not any(abs(one - (loss + 1234.5678)) <= 0.0005 for one in numbers | _followed(REFERENCE_RUN))
