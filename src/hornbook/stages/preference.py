"""Preference: the model learns which of two answers is the better one (DPO)."""

import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from hornbook.batching.loader import spread_numbers
from hornbook.model.transformer import Transformer
from hornbook.objectives.answers import Answer, answer_batch, answer_tensors
from hornbook.objectives.log_probabilities import token_log_probabilities
from hornbook.objectives.preference import DirectPreference, PairBatch
from hornbook.run_directory import atomic_write
from hornbook.runtime import derive_seed
from hornbook.stages.context import StageContext
from hornbook.stages.order import ShuffledOrder
from hornbook.stages.preference_pairs import PreferencePair, read_preference_pairs
from hornbook.stages.training import EVALUATION_ROWS_AT_ONCE, train
from hornbook.stages.tuning import attach_adapters, leave_tuned, on_device, starting_model, too_few
from hornbook.tokenizer.chat import END_OF_TURN, render
from hornbook.tokenizer.tokenizer import Tokenizer
from hornbook.training.metrics import read_metrics

_BEFORE = ("finetune", "pretrain")
_REFERENCE_FILE = "reference.safetensors"
_PANELS = {
    "loss (nats)": ("loss_nats", "validation.loss_nats"),
    "pairs": ("accuracy", "validation.accuracy", "validation.chosen_likelier"),
    "margin": ("margin", "validation.margin"),
    "KL (nats)": ("kl_nats", "validation.kl_nats"),
}

Pair = tuple[Answer, Answer]
"""The chosen answer and the rejected one."""


def run(context: StageContext) -> dict[str, Any]:
    """Train on pairs, and leave checkpoints/, metrics.jsonl, curve.svg, reference.safetensors and final/.

    The reference's log-probabilities are computed once, before the first step. Pairs that are longer than a row, or
    whose answers are the same, are left out and counted. Returns the headline facts.
    """
    section = context.recipe.preference
    if section is None:
        raise ValueError("this recipe has no preference section, so its pipeline has no such stage")
    model, tokenizer = starting_model(context, section.init_from, section.row_tokens, _BEFORE)
    row_tokens = section.row_tokens or model.config.max_seq_len
    training, validation, left_out = _read_pairs(context, tokenizer, row_tokens)
    dtype = on_device(model, section)
    reference = _reference(context.stage.path, model, [*training, *validation], row_tokens, tokenizer.pad_id, dtype)
    attach_adapters(context, section, model, tokenizer)
    batches = PairBatches(
        training,
        reference[: 2 * len(training)],
        section.global_batch_tokens // row_tokens // 2,
        row_tokens,
        tokenizer.pad_id,
        derive_seed(context.recipe.seed, context.stage.name),
    )
    # Pairs stand source after source, and those that are looked at in the training are of all sources.
    numbers = spread_numbers(len(validation), max(1, section.evaluation_rows // 2))
    shown = [validation[number] for number in numbers]
    reference_of_shown = reference[2 * len(training) :].unflatten(0, (-1, 2))[numbers].flatten(0, 1)
    held_back = PairBatches(shown, reference_of_shown, 1, row_tokens, tokenizer.pad_id, seed=0)
    objective = DirectPreference(section.beta, section.label_smoothing, section.length_normalised)

    def validate(model: Transformer) -> dict[str, float]:
        measured = _measure(objective, model, held_back, len(shown))
        context.console.print(
            f"validation: loss {measured['loss_nats']:.3f}, {measured['accuracy']:.0%} of the chosen answers gained "
            f"more, {measured['chosen_likelier']:.0%} are the likelier ones",
            highlight=False,
        )
        return measured

    before = held_back.chosen_likelier
    context.console.print(f"before training, {before:.0%} of the chosen answers are the likelier ones", highlight=False)
    trained = train(context, section, model, objective, batches, {"validation": validate}, rows_of_unit=2)
    result = trained.result
    leave_tuned(context, section, model, tokenizer, _PANELS)
    last = result.last_evaluation["validation"]
    facts = {
        "chosen_likelier": last["chosen_likelier"],
        "chosen_likelier_before": before,
        "accuracy": last["accuracy"],
        # Missing where they had no finite value.
        "margin": last.get("margin", math.nan),
        "kl_nats": last.get("kl_nats", math.nan),
        "first_loss_nats": read_metrics(context.stage.path / "metrics.jsonl")[0]["loss_nats"],
        "pairs": len(training) + len(validation),
        **left_out,
    }
    return facts | {key: value for key, value in trained.facts().items() if key not in facts}


class PairBatches:
    """Batches of pairs in a shuffled order; the state is the number of pairs taken so far."""

    def __init__(
        self, pairs: Sequence[Pair], reference: Tensor, pairs_per_step: int, row_tokens: int, pad_id: int, seed: int
    ) -> None:
        self._pairs, self._reference, self._pairs_per_step = pairs, reference, pairs_per_step
        self._row_tokens, self._pad_id = row_tokens, pad_id
        self._order, self._taken = ShuffledOrder(len(pairs), seed), 0

    def next_batch(self) -> PairBatch:
        chosen = self._order.take(self._taken, self._pairs_per_step)
        self._taken += self._pairs_per_step
        return self.batch(chosen)

    def batch(self, numbers: Sequence[int]) -> PairBatch:
        """The pairs with these numbers."""
        answers = [answer for number in numbers for answer in self._pairs[number]]
        rows = [row for number in numbers for row in (2 * number, 2 * number + 1)]
        tensors = answer_tensors(answers, self._row_tokens, self._pad_id)
        return PairBatch(**tensors, reference_log_probabilities=self._reference[rows])

    @property
    def chosen_likelier(self) -> float:
        """The share of pairs to whose chosen answer the reference gives the higher probability."""
        sums = self._reference.double().sum(1)
        return (sums[0::2] > sums[1::2]).double().mean().item()

    def state_dict(self) -> dict[str, Any]:
        return {"pairs_taken": self._taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._taken = state["pairs_taken"]


def _read_pairs(
    context: StageContext, tokenizer: Tokenizer, row_tokens: int
) -> tuple[list[Pair], list[Pair], dict[str, int]]:
    """The pairs to train on, those to validate with, and how many were left out and why."""
    section, recipe = context.recipe.preference, context.recipe
    assert section is not None
    training: list[Pair] = []
    validation: list[Pair] = []
    left_out = {"pairs_too_long": 0, "pairs_identical": 0}
    for number, pair in enumerate(read_preference_pairs(section.source, recipe.storyworld, section.pairs)):
        chosen, rejected = as_answers(pair, tokenizer)
        if max(len(chosen), len(rejected)) > row_tokens:
            left_out["pairs_too_long"] += 1
        elif chosen == rejected:
            left_out["pairs_identical"] += 1
        else:
            draw = derive_seed(recipe.seed, "preference split", number) / 2**63
            (validation if draw < section.validation_fraction else training).append((chosen, rejected))
    why = (
        f"{left_out['pairs_too_long']} are longer than a row of {row_tokens} tokens, "
        f"{left_out['pairs_identical']} have the same answer twice"
    )
    if not training or not validation:
        raise too_few("preference", "pairs", len(training), len(validation), why)
    context.console.print(
        f"{len(training):,} pairs to train on, {len(validation):,} to validate with; left out: {why}", highlight=False
    )
    return training, validation, left_out


def as_answers(pair: PreferencePair, tokenizer: Tokenizer) -> Pair:
    """Both answers of a pair in tokens, each with the token that ends a turn: an empty answer is that token alone."""
    prompt, _ = render(pair.prompt, tokenizer, add_generation_prompt=True)
    end_of_turn = tokenizer.special_id(END_OF_TURN)
    chosen, rejected = ([*tokenizer.encode(text), end_of_turn] for text in (pair.chosen, pair.rejected))
    return Answer(prompt, chosen), Answer(prompt, rejected)


@torch.no_grad()
def _reference(
    folder: Path, model: Transformer, pairs: Sequence[Pair], row_tokens: int, pad_id: int, dtype: torch.dtype
) -> Tensor:
    """The model's log-probability of each label, (2 pairs, row_tokens), in nats.

    What a killed run computed is read again, unless its file is damaged.
    """
    path = folder / _REFERENCE_FILE
    if path.is_file():
        with suppress(SafetensorError):
            return load_file(path)["log_probabilities"]
    answers = [answer for pair in pairs for answer in pair]
    device = model.head_weight.device
    parts = []
    for start in range(0, len(answers), EVALUATION_ROWS_AT_ONCE):
        batch = answer_batch(answers[start : start + EVALUATION_ROWS_AT_ONCE], row_tokens, pad_id).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            parts.append(token_log_probabilities(model, batch).float().cpu())
    log_probabilities = torch.cat(parts)
    atomic_write(path, save({"log_probabilities": log_probabilities}))
    return log_probabilities


def _measure(objective: DirectPreference, model: Transformer, batches: PairBatches, n_pairs: int) -> dict[str, float]:
    """The objective's means over all pairs, loss_nats among them."""
    device = model.head_weight.device
    totals: dict[str, float] = {}
    for start in range(0, n_pairs, EVALUATION_ROWS_AT_ONCE):
        batch = batches.batch(range(start, min(start + EVALUATION_ROWS_AT_ONCE, n_pairs))).to(device)
        loss_sum, sums = objective.loss_sum(model, batch)
        for name, value in ({"loss_nats": loss_sum} | sums).items():
            totals[name] = totals.get(name, 0.0) + value.item()
    return {name: total / n_pairs for name, total in totals.items()}
