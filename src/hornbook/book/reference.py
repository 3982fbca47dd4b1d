"""The recorded run that the book is built from where the reader has none: the small files of a real run.

`python -m hornbook.book.reference runs/quickstart` records another one in its place.
"""

import gzip
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from hornbook.book.run_facts import EXPECTED, PICTURES
from hornbook.run_directory import atomic_write, open_run, read_json, write_json

REFERENCE_RUN = Path(__file__).parent / "reference_run"

_TRANSCRIPTS_KEPT = 6
_METRICS_KEPT = (
    "step", "tokens", "loss_nats", "grad_norm", "lr", "seconds", "tokens_per_second", "micro_batch_size", "reward",
    "evaluation",
)  # fmt: skip
"""What the book draws of each step. The rest would make the recording several times as large."""


def record_run(run_path: Path, to: Path) -> None:
    """Copy what the book reads of a run into `to`, without text, tokens and weights; metrics are compressed.

    Raises UserError where `run_path` is no run.
    """
    run = open_run(run_path)
    if to.exists():
        shutil.rmtree(to)
    for path in _small_files(run.path):
        target = to / path.relative_to(run.path)
        if path.suffix == ".jsonl":
            # Without a time in its header, so that the same run gives the same bytes.
            kept = "".join(_kept(line) for line in path.read_text(encoding="utf-8").splitlines())
            atomic_write(target.with_name(f"{path.name}.gz"), gzip.compress(kept.encode(), mtime=0))
        elif path.name == EXPECTED or (path.parent.name == "pretrain" and path.name != "stage.json"):
            atomic_write(target, json.dumps(read_json(path), ensure_ascii=False, separators=(",", ":")) + "\n")
        elif path.parent.name == "evaluation" and path.name not in ("stage.json", "samples.json"):
            answers = read_json(path)
            write_json(target, answers | {"transcripts": answers["transcripts"][:_TRANSCRIPTS_KEPT]})
        else:
            atomic_write(target, path.read_bytes())


def _kept(line: str) -> str:
    record = json.loads(line)
    return json.dumps({name: record[name] for name in _METRICS_KEPT if name in record}) + "\n"


def _small_files(folder: Path) -> Iterator[Path]:
    yield folder / "recipe.toml"
    yield folder / "summary.json"
    pictures = (f"pretrain/{name}.json" for name in PICTURES)
    for pattern in (EXPECTED, "*/stage.json", "*/report.json", "*/metrics.jsonl", "evaluation/*.json", *pictures):
        yield from sorted(path for path in folder.glob(pattern) if path.name != "started.json")


if __name__ == "__main__":
    record_run(Path(sys.argv[1]), REFERENCE_RUN)
