"""Fine-tuning: the pretrained model learns to answer, with the loss on the answers alone."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from hornbook.batching.loader import spread_numbers
from hornbook.batching.shards import DocumentTokens, MemoryDocuments
from hornbook.inference.engine import Engine
from hornbook.model.transformer import Transformer
from hornbook.recipe_data import StoryworldSection
from hornbook.recipe_training import FinetuneSection
from hornbook.run_directory import write_json
from hornbook.runtime import derive_seed
from hornbook.stages.context import StageContext
from hornbook.stages.conversations import decontaminate, read_source
from hornbook.stages.corpus import benchmarks_of
from hornbook.stages.training import train_stage
from hornbook.stages.tuning import attach_adapters, keep_adapters, starting_model, too_few
from hornbook.tokenizer.chat import END_OF_TURN, Message, render
from hornbook.tokenizer.tokenizer import Tokenizer

_SAMPLE_TOKENS = 64
_QUESTION_CHARACTERS = 100


def run(context: StageContext) -> dict[str, Any]:
    """Train on conversations; see `train_stage` for what is written and returned.

    A conversation that is longer than a row is left out and counted: cut, it would lose what its answers are about.
    So is one that gives away what the recipe evaluates; `decontamination.json` says which ones, and why.
    """
    section = context.recipe.finetune
    if section is None:
        raise ValueError("this recipe has no finetune section, so its pipeline has no such stage")
    model, tokenizer = starting_model(context, section.init_from, section.row_tokens, ("pretrain",))
    row_tokens = section.row_tokens or model.config.max_seq_len

    training: list[DocumentTokens] = []
    validation: list[DocumentTokens] = []
    n_too_long = 0
    held_back: list[Sequence[Message]] = []
    conversations = list(_weighted_conversations(section, context.recipe.storyworld))
    clean, receipt = decontaminate([messages for messages, _ in conversations], benchmarks_of(context.recipe))
    write_json(context.stage.path / "decontamination.json", receipt)
    n_contaminated = receipt["documents_removed"]
    for number in clean:
        messages, weight = conversations[number]
        ids, mask = render(messages, tokenizer)
        if len(ids) > row_tokens:
            n_too_long += 1
            continue
        n_bytes = sum(len(tokenizer.token_bytes(id)) for id, is_learned in zip(ids, mask, strict=True) if is_learned)
        document = DocumentTokens(ids, n_bytes, mask)
        if derive_seed(context.recipe.seed, "finetune split", number) / 2**63 < section.validation_fraction:
            validation.append(document)
            held_back.append(messages)
        else:
            extra = derive_seed(context.recipe.seed, "finetune mixture", number) / 2**63
            training += [document] * math.floor(weight + extra)
    if not training or not validation:
        why = f"{n_too_long} are longer than a row of {row_tokens} tokens, {n_contaminated} give away what is evaluated"
        raise too_few("finetune", "conversations", len(training), len(validation), why)
    context.console.print(
        f"{len(training):,} conversations to train on, {len(validation):,} to validate with; "
        f"{n_too_long:,} left out as longer than a row, {n_contaminated:,} as giving away what is evaluated",
        highlight=False,
    )
    asked = spread_numbers(len(held_back), section.sample_answers)
    prompts = [_up_to_last_answer(held_back[number]) for number in asked]
    documents = MemoryDocuments(training), MemoryDocuments(validation)
    attach_adapters(context, section, model, tokenizer)

    def show_answers(model: Transformer) -> dict[str, float]:
        return _show_answers(model, tokenizer, prompts, context)

    facts = train_stage(
        context,
        section,
        model,
        tokenizer,
        *documents,
        few_labels=True,
        more_evaluators={"answers": show_answers} if prompts else {},
        patience=section.patience,
        before_saving=lambda model: keep_adapters(context, section, model),
    )
    return facts | {
        "conversations": len(training) + len(validation),
        "conversations_too_long": n_too_long,
        "conversations_contaminated": n_contaminated,
    }


def _weighted_conversations(
    section: FinetuneSection, world: StoryworldSection
) -> Iterator[tuple[Sequence[Message], float]]:
    """Every conversation of the sources once, with how often it is to be taken, on average."""
    weights = section.weights or (1.0,) * len(section.source)
    for source, weight in zip(section.source, weights, strict=True):
        for messages in read_source(source, world):
            yield messages, weight


def _up_to_last_answer(messages: Sequence[Message]) -> list[Message]:
    """The conversation up to its last question from the user."""
    last = max(place for place, message in enumerate(messages) if message["role"] == "assistant")
    return list(messages[:last])


def _show_answers(
    model: Transformer, tokenizer: Tokenizer, prompts: Sequence[Sequence[Message]], context: StageContext
) -> dict[str, float]:
    """Print what the model answers, and keep it in answers.json; the share of answers that ended by themselves."""
    end_of_turn = tokenizer.special_id(END_OF_TURN)
    ids = [render(prompt, tokenizer, add_generation_prompt=True)[0] for prompt in prompts]
    with torch.autocast(model.head_weight.device.type, enabled=False):
        written = Engine(model, tokenizer).generate(ids, _SAMPLE_TOKENS, stop_ids=(end_of_turn,))
    answers = [tokenizer.decode(answer) for answer in written]
    for prompt, answer in zip(prompts, answers, strict=True):
        question = prompt[-1]["content"].split("\n")[-1][-_QUESTION_CHARACTERS:]
        context.console.print(f"  {question} → {answer}", highlight=False, markup=False, soft_wrap=True)
    rows = [{"messages": prompt, "answer": answer} for prompt, answer in zip(prompts, answers, strict=True)]
    write_json(context.stage.path / "answers.json", rows)
    return {"ended": sum(len(answer) < _SAMPLE_TOKENS for answer in written) / len(written)}
