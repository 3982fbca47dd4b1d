"""Fine-tuning: the pretrained model learns to answer, with the loss on the answers alone."""

from typing import Any

from hornbook.batching.shards import DocumentTokens, MemoryDocuments
from hornbook.errors import UserError
from hornbook.model.huggingface import load_pretrained
from hornbook.runtime import derive_seed
from hornbook.stages.context import StageContext
from hornbook.stages.conversations import read_conversations
from hornbook.stages.start import start_from
from hornbook.stages.training import train_stage
from hornbook.tokenizer.chat import render
from hornbook.tokenizer.tokenizer import Tokenizer


def run(context: StageContext) -> dict[str, Any]:
    """Train on conversations; see `train_stage` for what is written and returned.

    A conversation that is longer than a row is left out and counted: cut, it would lose what its answers are about.
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
    for number, messages in enumerate(read_conversations(section.source, context.recipe.storyworld)):
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
            f"({n_too_long} are longer than a row of {row_tokens} tokens). Give more of them, or longer rows."
        )
    context.console.print(
        f"{len(training):,} conversations to train on, {len(validation):,} to validate with; "
        f"{n_too_long:,} left out as longer than a row",
        highlight=False,
    )
    documents = MemoryDocuments(training), MemoryDocuments(validation)
    facts = train_stage(context, section, model, tokenizer, *documents, few_labels=True)
    return facts | {"conversations": len(training) + len(validation), "conversations_too_long": n_too_long}
