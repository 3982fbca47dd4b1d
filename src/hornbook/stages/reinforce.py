"""Reinforcement: the model learns from answers of its own, by whether they are right (GRPO)."""

import copy
import math
from collections.abc import Sequence
from typing import Any

from hornbook.evaluation.tasks import Task, as_chat
from hornbook.model.transformer import Transformer
from hornbook.objectives.policy import GroupRelativePolicy
from hornbook.recipe_training import ReinforceSection
from hornbook.runtime import derive_seed
from hornbook.stages.checkable import read_checkable
from hornbook.stages.context import StageContext
from hornbook.stages.rollouts import Rollouts, draw_answers
from hornbook.stages.training import train
from hornbook.stages.tuning import attach_adapters, leave_tuned, on_device, starting_model, too_few
from hornbook.tokenizer.tokenizer import Tokenizer

_BEFORE = ("preference", "finetune", "pretrain")
_PANELS = {
    "reward": ("reward", "validation.pass_at_1"),
    "a right one among k": ("pass_in_group", "validation.pass_at_k"),
    "answers": ("empty", "endless"),
    "tokens": ("answer_tokens",),
    "KL (nats)": ("kl_nats",),
}


def run(context: StageContext) -> dict[str, Any]:
    """Train on rewards, and leave checkpoints/, metrics.jsonl, curve.svg and final/. Returns the headline facts.

    A prompt that leaves no room for an answer in a row is left out and counted.
    """
    section = context.recipe.reinforce
    if section is None:
        raise ValueError("this recipe has no reinforce section, so its pipeline has no such stage")
    model, tokenizer = starting_model(context, section.init_from, section.row_tokens, _BEFORE)
    row_tokens = section.row_tokens or model.config.max_seq_len
    training, validation, n_too_long = _read_tasks(context, tokenizer, row_tokens)
    dtype = on_device(model, section)
    reference = copy.deepcopy(model).requires_grad_(False)
    attach_adapters(context, section, model, tokenizer)
    seed = derive_seed(context.recipe.seed, context.stage.name)
    rollouts = Rollouts(model, reference, tokenizer, training, section, row_tokens, dtype, seed)

    def validate(model: Transformer) -> dict[str, float]:
        measured = pass_rates(model, tokenizer, validation, section, seed)
        context.console.print(
            f"validation: {measured['greedy']:.0%} right, {measured['pass_at_1']:.0%} when drawn, "
            f"{measured['pass_at_k']:.0%} at least once in {section.answers_per_prompt}",
            highlight=False,
        )
        return measured

    before = validate(model)
    objective = GroupRelativePolicy(section.clip_range, section.kl_beta)
    evaluators = {"validation": validate}
    trained = train(context, section, model, objective, rollouts, evaluators, first=before["pass_at_1"])
    result = trained.result
    leave_tuned(context, section, model, tokenizer, _PANELS)
    last = result.last_evaluation["validation"]
    facts = {
        "right": last["greedy"],
        "right_before": before["greedy"],
        "pass_at_1": last["pass_at_1"],
        "pass_at_1_before": before["pass_at_1"],
        "pass_at_k": last["pass_at_k"],
        "pass_at_k_before": before["pass_at_k"],
        "k": section.answers_per_prompt,
        "prompts": len(training) + len(validation),
        "prompts_too_long": n_too_long,
    }
    return facts | {key: value for key, value in trained.facts().items() if key not in facts}


def pass_rates(
    model: Transformer, tokenizer: Tokenizer, tasks: Sequence[Task], section: ReinforceSection, seed: int
) -> dict[str, float]:
    """How often the model is right: greedy, its likeliest answer; pass_at_1, one answer drawn; pass_at_k, one of k.

    k is the size of a group. All are estimated from k answers drawn to each task, always with the same seeds: one
    drawn at random is right with probability right / k (Chen et al., arXiv 2107.03374, equation 1).
    """
    k = section.answers_per_prompt
    likeliest = draw_answers(model, tokenizer, tasks, section.answer_tokens, temperature=0.0, seed=0)
    repeated = [task for task in tasks for _ in range(k)]
    drawn = draw_answers(
        model, tokenizer, repeated, section.answer_tokens, temperature=1.0, seed=derive_seed(seed, "validation")
    )
    is_right = [task.is_right(tokenizer.decode(ids)) for task, ids in zip(repeated, drawn, strict=True)]
    n_right = [sum(is_right[start : start + k]) for start in range(0, len(is_right), k)]
    greedy = sum(task.is_right(tokenizer.decode(ids)) for task, ids in zip(tasks, likeliest, strict=True))
    return {
        "greedy": greedy / len(tasks),
        "pass_at_1": math.fsum(n_right) / k / len(tasks),
        "pass_at_k": sum(n > 0 for n in n_right) / len(tasks),
    }


def _read_tasks(context: StageContext, tokenizer: Tokenizer, row_tokens: int) -> tuple[list[Task], list[Task], int]:
    """The tasks to train on, those to validate with, and how many were left out. No prompt is in both."""
    section, recipe = context.recipe.reinforce, context.recipe
    assert section is not None
    tasks: dict[str, Task] = {}
    n_too_long = 0
    for question in read_checkable(section.source, recipe.storyworld, section.prompts):
        task = as_chat(question, tokenizer)
        if len(task.prompt) + section.answer_tokens > row_tokens:
            n_too_long += 1
        else:
            tasks.setdefault(question.prompt, task)
    in_order = sorted(tasks, key=lambda prompt: derive_seed(recipe.seed, "reinforce split", prompt))
    validation = [tasks[prompt] for prompt in in_order[: section.validation_prompts]]
    training = [tasks[prompt] for prompt in in_order[section.validation_prompts :]]
    why = f"{n_too_long} leave no room for {section.answer_tokens} tokens of answer in a row of {row_tokens}"
    if not training:
        raise too_few("reinforce", "prompts", len(training), len(validation), why)
    context.console.print(
        f"{len(training):,} prompts to train on, {len(validation):,} to validate with; left out: {why}", highlight=False
    )
    return training, validation, n_too_long
