"""What a run has left on disk, as one tree of facts with names: the only numbers of a run that the book may print."""

import gzip
import json
import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hornbook.errors import UserError
from hornbook.recipe import load_recipe
from hornbook.run_directory import RunDirectory, open_run, read_json

Record = dict[str, Any]

_LOSS_IS_OVER = {"preference": "pair", "reinforce": "answer", "classify": "text"}
"""What a stage's loss is the mean over, where that is not tokens."""

EXPECTED = "expected.json"
"""What the recipe's reference says of the curves of each stage, where the run was made with one."""

_METRICS = "metrics.jsonl"
_STAGES_IN_ORDER = (
    "corpus", "tokenizer", "tokens", "pretrain", "finetune", "classify", "preference", "reinforce",
    "evaluation", "export",
)  # fmt: skip
_LAST_STEPS = 50
PICTURES = ("attention", "embeddings", "tokens", "memory", "samples")
"""What pretraining leaves of its model beside the figures of `stage.json`; runs from before that have none of it."""


@dataclass(frozen=True)
class Run:
    """A run as the book sees it.

    facts: stage → facts, and beside them name, recipe, seconds, corpus_report, tokenizer_report, expected, transcripts,
    pictures and what is derived from all of these. metrics: training stage → a record for each step.
    """

    facts: dict[str, Any]
    metrics: dict[str, list[Record]]

    def get(self, key: str) -> Any:
        """The fact with a dotted name, in which a number is a place in a list; None where the run has no such thing."""
        found: Any = self.facts
        for part in key.split("."):
            if isinstance(found, list) and part.isdigit():
                found = dict(enumerate(found)).get(int(part))
            else:
                found = found.get(part) if isinstance(found, Mapping) else None
        return found

    def need(self, key: str) -> Any:
        """The same. Raises UserError where the run has no such thing."""
        found = self.get(key)
        if found is None:
            raise UserError(f"{self.facts['name']}: the run has no {key}. Finish it with `hornbook run` first.")
        return found


def loss_unit(stage: str) -> str:
    """The unit of a stage's loss, such as "nats per token"."""
    return f"nats per {_LOSS_IS_OVER.get(stage, 'token')}"


def read_run(path: Path) -> Run:
    """Read the facts of a run. Raises UserError where `path` is no run, its recipe is damaged, or no stage is done."""
    run = open_run(path)
    load_recipe(run.recipe_path)  # a damaged recipe ends here, in a sentence
    recipe = tomllib.loads(run.recipe_path.read_text(encoding="utf-8"))
    facts: dict[str, Any] = {
        "name": recipe["name"],
        "description": recipe.get("description", ""),
        "recipe": recipe,
        "seconds": {},
    }
    metrics = {}
    for stage in _stages(run):
        record = run.stage(stage).record()
        facts[stage] = run.summary()["stages"].get(stage, {}) if record is None else record["facts"]
        if record is not None:
            facts["seconds"][stage] = record["seconds"]
        records = _read_metrics(run.path / stage / _METRICS)
        if records and facts[stage]:
            metrics[stage] = records
    if not any(facts.get(stage) for stage in _STAGES_IN_ORDER):
        raise UserError(f"{path}: no stage of this run is done, so there is nothing to print. Run its recipe first.")
    for name in ("corpus", "tokenizer"):
        report = run.path / name / "report.json"
        if report.is_file():
            facts[f"{name}_report"] = read_json(report)
    if (run.path / EXPECTED).is_file():
        facts["expected"] = read_json(run.path / EXPECTED)
    facts["transcripts"] = _transcripts(run)
    facts["pictures"] = {
        name: read_json(found) for name in PICTURES if (found := run.path / "pretrain" / f"{name}.json").is_file()
    }
    facts, metrics = _finite(facts), _finite(metrics)
    facts["derived"] = _derived(facts, metrics)
    return Run(facts, metrics)


def _finite(tree: Any) -> Any:
    """The same without figures that are no numbers, such as the loss of a run that never had one: None stands there."""
    if isinstance(tree, dict):
        return {name: _finite(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [_finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def _stages(run: RunDirectory) -> list[str]:
    """The stages with something to show."""
    known = [*run.summary()["stages"], *(path.name for path in sorted(run.path.iterdir()) if path.is_dir())]
    found = [name for name in dict.fromkeys(known) if run.stage(name).record() or name in run.summary()["stages"]]
    return _in_order(found)


def _in_order(names: Iterable[str]) -> list[str]:
    """Stages in the order of the pipeline; those not known here come last."""
    order = {name: place for place, name in enumerate(_STAGES_IN_ORDER)}
    return sorted(names, key=lambda name: (order.get(name, len(order)), name))


def _read_metrics(path: Path) -> list[Record]:
    """The records of each step, from the file or, in a recorded run, from its compressed copy."""
    compressed = path.with_name(f"{path.name}.gz")
    if path.is_file():
        text = path.read_text(encoding="utf-8")
    elif compressed.is_file():
        text = gzip.decompress(compressed.read_bytes()).decode()
    else:
        return []
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


def _transcripts(run: RunDirectory) -> dict[str, Any]:
    """{stage: {suite: answers}}, from evaluation/SUITE-STAGE.json."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((run.path / "evaluation").glob("*-*.json")):
        suite, stage = path.stem.rsplit("-", 1)
        answers = read_json(path)
        if isinstance(answers, dict) and "transcripts" in answers:
            found.setdefault(stage, {})[suite] = answers["transcripts"]
    return {stage: found[stage] for stage in _in_order(found)}


def _derived(facts: Mapping[str, Any], metrics: Mapping[str, list[Record]]) -> dict[str, Any]:
    """Figures that follow from those of the run: sums, shares, firsts and lasts."""
    derived: dict[str, Any] = {"total_seconds": sum(facts["seconds"].values())}
    derived["total_minutes"] = derived["total_seconds"] / 60
    vocab_size = facts.get("tokenizer", {}).get("vocab_size")
    if vocab_size:
        derived["uniform_loss_nats"] = math.log(vocab_size)
    for stage, records in metrics.items():
        derived[stage] = _of_training(facts[stage], records)
    pretrain = facts.get("pretrain") or {}
    if pretrain.get("floor_bits_per_byte") and pretrain.get("validation_bits_per_byte"):
        derived["times_floor"] = pretrain["validation_bits_per_byte"] / pretrain["floor_bits_per_byte"]
    if pretrain.get("tokens") and pretrain.get("parameters"):
        derived["tokens_per_parameter"] = pretrain["tokens"] / pretrain["parameters"]
        derived["training_flops_6nd"] = 6 * pretrain["tokens"] * pretrain["parameters"]
        derived["training_gigaflops_6nd"] = derived["training_flops_6nd"] / 1e9
    read, kept = facts.get("corpus", {}).get("documents_read"), facts.get("corpus", {}).get("documents")
    if read and kept:
        derived["kept_fraction"] = kept / read
    return derived


def _of_training(stage: Mapping[str, Any], records: list[Record]) -> dict[str, Any]:
    """A skipped step has no loss, and one whose gradient is no number has no norm; so a run may have none at all."""
    losses = [record["loss_nats"] for record in records if record["loss_nats"] is not None]
    norms = [record["grad_norm"] for record in records if record.get("grad_norm") is not None]
    evaluated = [(r["step"], r["evaluation"]["validation"]["bits_per_byte"]) for r in records
                 if r.get("evaluation", {}).get("validation", {}).get("bits_per_byte") is not None]  # fmt: skip
    facts: dict[str, Any] = {
        "peak_lr": max(record["lr"] for record in records),
        "minutes": sum(record["seconds"] for record in records) / 60,
    }
    if losses:
        last = losses[-_LAST_STEPS:]
        facts["first_loss_nats"], facts["lowest_loss_nats"] = losses[0], min(losses)
        facts["last_loss_nats"] = sum(last) / len(last)
    if norms:
        facts["first_grad_norm"], facts["largest_grad_norm"] = norms[0], max(norms)
        facts["median_grad_norm"] = sorted(norms)[len(norms) // 2]
    if evaluated:
        facts["first_evaluation_step"], facts["first_evaluation_bits_per_byte"] = evaluated[0]
        facts["validations"] = [{"step": step, "bits_per_byte": bits} for step, bits in evaluated]
    return facts
