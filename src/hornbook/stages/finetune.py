"""Fine-tuning: the pretrained model learns to answer, with the loss on the answers alone."""

from typing import Any

from hornbook.batching.shards import DocumentTokens, MemoryDocuments
from hornbook.errors import UserError
from hornbook.model.huggingface import load_pretrained
from hornbook.run_directory import write_json
from hornbook.runtime import derive_seed
from hornbook.stages.context import StageContext
from hornbook.stages.conversations import decontaminate, read_conversations
from hornbook.stages.corpus import benchmarks_of
from hornbook.stages.start import start_from
from hornbook.stages.training import train_stage
from hornbook.tokenizer.chat import render
from hornbook.tokenizer.tokenizer import Tokenizer


def run(context: StageContext) -> dict[str, Any]:
    """Train on conversations; see `train_stage` for what is written and returned.

    A conversation that is longer than a row is left out and counted: cut, it would lose what its answers are about.
    So is one that gives away what the recipe evaluates; `decontamination.json` says which ones, and why.
    """
    section = context.recipe.finetune
    if section is None:
        raise ValueError("this recipe has no finetune section, so its pipeline has no such stage")
    if section.init_from is None:
        base = context.run.stage("pretrain").path / "final"
        model, tokenizer = load_pretrained(base), Tokenizer.load(base)
    else:
        tokenizer = Tokenizer.from_published(section.init_from, context.recipe.tokenizer.special_tokens)
        model = start_from(context, section.init_from, tokenizer, section.row_tokens)
    row_tokens = section.row_tokens or model.config.max_seq_len

    training: list[DocumentTokens] = []
    validation: list[DocumentTokens] = []
    n_too_long = 0
    conversations = read_conversations(section.source, context.recipe.storyworld)
    clean, receipt = decontaminate(conversations, benchmarks_of(context.recipe))
    write_json(context.stage.path / "decontamination.json", receipt)
    n_contaminated = receipt["documents_removed"]
    for number, messages in clean:
        ids, mask = render(messages, tokenizer)
        if len(ids) > row_tokens:
            n_too_long += 1
            continue
        n_bytes = sum(len(tokenizer.token_bytes(id)) for id, is_learned in zip(ids, mask, strict=True) if is_learned)
        draw = derive_seed(context.recipe.seed, "finetune split", number) / 2**63
        (validation if draw < section.validation_fraction else training).append(DocumentTokens(ids, n_bytes, mask))
    if not training or not validation:
        raise UserError(
            f"finetune: {len(training)} conversations to train on and {len(validation)} to validate with are left "
            f"({n_too_long} are longer than a row of {row_tokens} tokens, {n_contaminated} give away what is "
            "evaluated). Give more of them, or longer rows."
        )
    context.console.print(
        f"{len(training):,} conversations to train on, {len(validation):,} to validate with; "
        f"{n_too_long:,} left out as longer than a row, {n_contaminated:,} as giving away what is evaluated",
        highlight=False,
    )
    documents = MemoryDocuments(training), MemoryDocuments(validation)
    facts = train_stage(context, section, model, tokenizer, *documents, few_labels=True)
    return facts | {
        "conversations": len(training) + len(validation),
        "conversations_too_long": n_too_long,
        "conversations_contaminated": n_contaminated,
    }
