"""What the training stages share: everything around the trainer, from documents to a finished model on disk."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hornbook.batching.loader import Loader
from hornbook.batching.shards import Documents
from hornbook.evaluation.loss import bits_per_byte
from hornbook.model.huggingface import save_pretrained
from hornbook.model.transformer import Transformer
from hornbook.objectives.next_token import NextToken
from hornbook.recipe import TrainingSection
from hornbook.runtime import derive_seed, pick_device, pick_dtype
from hornbook.stages.context import StageContext
from hornbook.stages.patience import Patience
from hornbook.tokenizer.chat import END_OF_TURN
from hornbook.tokenizer.tokenizer import Tokenizer
from hornbook.training.curve import draw_curve
from hornbook.training.optimizers import build_optimizer
from hornbook.training.trainer import Evaluator, Trainer

EVALUATION_ROWS_AT_ONCE = 16


def train_stage(
    context: StageContext,
    section: TrainingSection,
    model: Transformer,
    tokenizer: Tokenizer,
    training: Documents,
    validation: Documents,
    floor_bits_per_byte: float | None = None,
    few_labels: bool = False,
    more_evaluators: Mapping[str, Evaluator] | None = None,
    patience: int | None = None,
    before_saving: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Train `model` to predict the next token of `training`, and leave what came of it in the stage's folder.

    Writes checkpoints/, metrics.jsonl, curve.svg and final/ (the model and its tokenizer, as transformers reads them).
    Returns the headline facts. `floor_bits_per_byte` is drawn into the curve where it is known; `few_labels` says that
    most tokens of the training documents are not to be learned. `more_evaluators` run after the validation. With
    `patience` the training ends after so many validations without a better one, and the best model is kept.
    `before_saving` is called when the training is over and the model not yet saved.
    """
    folder, name = context.stage.path, context.stage.name
    device = pick_device("auto")
    dtype = pick_dtype(section.precision, device)
    model.to(device)
    row_tokens = section.row_tokens or model.config.max_seq_len
    loader = Loader(
        training,
        row_tokens,
        section.global_batch_tokens // row_tokens,
        derive_seed(context.recipe.seed, name),
        pad_id=tokenizer.pad_id,
        first_in_order=section.order == "corpus",
    )

    def validate(model: Transformer) -> dict[str, float]:
        measured = bits_per_byte(
            model,
            validation,
            row_tokens,
            EVALUATION_ROWS_AT_ONCE,
            pad_id=tokenizer.pad_id,
            dtype=dtype,
            max_rows=section.evaluation_rows,
        )
        if waiting is not None:
            waiting.watch(trainer, measured["bits_per_byte"])
        return measured

    waiting = None if patience is None else Patience(folder, patience)
    trainer = Trainer(
        model=model,
        objective=NextToken(few_labels=few_labels),
        loader=loader,
        optimizer=build_optimizer(model, section),
        section=section,
        directory=folder,
        total_steps=math.ceil(section.tokens / section.global_batch_tokens),
        evaluators={"validation": validate, **(more_evaluators or {})},
        console=context.console,
        seed=context.recipe.seed,
        device=device,
        dtype=dtype,
    )
    result = trainer.train()
    if waiting is not None:
        waiting.restore_best(model)
    before_saving()
    draw_curve(folder / "metrics.jsonl", folder / "curve.svg", f"{context.recipe.name}: {name}", floor_bits_per_byte)
    save_final(folder / "final", model, tokenizer)
    facts = {
        "validation_bits_per_byte": result.last_evaluation["validation"]["bits_per_byte"],
        "floor_bits_per_byte": floor_bits_per_byte,
        "final_loss_nats": result.final_loss_nats,
        "tokens": result.tokens,
        "tokens_per_second": result.tokens_per_second,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    return facts | {key: value for key, value in asdict(result).items() if key not in facts}


def save_final(folder: Path, model: Transformer, tokenizer: Tokenizer) -> None:
    """The model and its tokenizer in Hugging Face's layout."""
    folder.mkdir(parents=True, exist_ok=True)
    end_of_turn_id = tokenizer.special_id(END_OF_TURN)
    save_pretrained(model, folder, tokenizer.end_of_text_id, tokenizer.pad_id, end_of_turn_id)
    tokenizer.save(folder)
