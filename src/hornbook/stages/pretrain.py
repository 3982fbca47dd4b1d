"""Pretraining: a new model, or one from a folder, learns to predict the next token of the corpus."""

from typing import Any

import torch

from hornbook.batching.shards import ShardedDocuments
from hornbook.model.config import config_from_recipe
from hornbook.model.transformer import Transformer
from hornbook.stages.context import StageContext
from hornbook.stages.pictures import leave_pictures, sample_evaluators
from hornbook.stages.start import start_from
from hornbook.stages.training import train_stage
from hornbook.tokenizer.tokenizer import Tokenizer


def run(context: StageContext) -> dict[str, Any]:
    """Train from scratch, or on from `init_from`; see `train_stage` for what is written and returned.

    Beside that, what the book draws of the model: see `leave_pictures` and `sample_evaluators`.
    """
    section = context.recipe.pretrain
    if section is None:
        raise ValueError("this recipe has no pretrain section, so its pipeline has no such stage")
    tokenizer = Tokenizer.load(context.run.stage("tokenizer").path)
    tokens = context.run.stage("tokens").path
    if section.init_from is None:
        with torch.device("meta"):
            model = Transformer(config_from_recipe(context.recipe.model, tokenizer.vocab_size))
    else:
        model = start_from(context, section.init_from, tokenizer, section.row_tokens)
    corpus = context.run.stage("corpus").record() or {"facts": {}}
    validation = ShardedDocuments(sorted(tokens.glob("validation-*.bin")))
    facts = train_stage(
        context,
        section,
        model,
        tokenizer,
        training=ShardedDocuments(sorted(tokens.glob("train-*.bin"))),
        validation=validation,
        is_new=section.init_from is None,
        floor_bits_per_byte=corpus["facts"].get("generator_bits_per_byte"),
        more_evaluators=sample_evaluators(context.stage.path, tokenizer, context.recipe),
    )
    leave_pictures(context.stage.path, model, tokenizer, validation, section, facts["micro_batch_size"])
    return facts
