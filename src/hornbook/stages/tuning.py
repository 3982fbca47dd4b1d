"""What the stages after pretraining share: the model they start from, adapters, and what is kept."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from hornbook.errors import UserError
from hornbook.model.huggingface import load_pretrained
from hornbook.model.huggingface_config import read_config
from hornbook.model.lora import attach_lora, merge_lora, save_lora, trained_fraction
from hornbook.model.transformer import Transformer
from hornbook.recipe_training import FinetuneSection, PreferenceSection, ReinforceSection, TrainingSection
from hornbook.runtime import derive_seed, pick_device, pick_dtype
from hornbook.stages.context import StageContext
from hornbook.stages.course import draw_course
from hornbook.stages.final import save_final
from hornbook.stages.start import start_from
from hornbook.tokenizer.published import read_published
from hornbook.tokenizer.tokenizer import Tokenizer
from hornbook.tokenizer.tokenizer_json import read_vocabulary

ADAPTER_FOLDER = "adapter"

TunedSection = FinetuneSection | PreferenceSection | ReinforceSection


def starting_model(
    context: StageContext, init_from: str | None, row_tokens: int | None, before: tuple[str, ...]
) -> tuple[Transformer, Tokenizer]:
    """The model that a stage goes on with, and its tokenizer.

    That is the model in the folder `init_from`, with what a conversation needs added to its tokenizer, or else the
    one of the first stage of `before` that the recipe has. Raises UserError where it cannot be read.
    """
    if init_from is not None:
        tokenizer = Tokenizer.from_published(init_from, context.recipe.tokenizer.special_tokens)
        return start_from(context, init_from, tokenizer, row_tokens), tokenizer
    stage = next(name for name in before if name in context.recipe.training_sections)
    folder = context.run.stage(stage).path / "final"
    return load_pretrained(folder), Tokenizer.load(folder)


def attach_adapters(context: StageContext, section: TunedSection, model: Transformer, tokenizer: Tokenizer) -> None:
    """Give the model the recipe's adapters, where it asks for some, and say what share of it is trained.

    The rows of tokens that were added to the model are trained as well. Raises UserError where those are to be cut
    among the stages of a pipeline.
    """
    if section.lora is None:
        return
    stage = context.stage.name
    added = _added_tokens(section.init_from, tokenizer)
    if added and context.recipe.parallel.pipeline > 1:
        raise UserError(
            f"{stage}.lora: the rows of the {len(added)} tokens that the model in {section.init_from} lacks are "
            "trained beside the adapters, which a pipeline cannot do. Set parallel.pipeline to 1, or leave the "
            "adapters out."
        )
    attach_lora(model, section.lora, derive_seed(context.recipe.seed, stage, "lora"), added)
    rows = f" and the rows of {len(added)} added tokens" if added else ""
    context.console.print(
        f"adapters of rank {section.lora.rank}{rows}: {trained_fraction(model):.2%} of all parameters are trained",
        highlight=False,
    )


def _added_tokens(init_from: str | None, tokenizer: Tokenizer) -> range:
    """The tokens that are new to the model in a folder: its own tokenizer lacks them, or it has no row for them."""
    if init_from is None:
        return range(0)
    n_known = min(read_vocabulary(read_published(init_from)).size, read_config(Path(init_from)).vocab_size)
    return range(n_known, tokenizer.vocab_size)


def keep_adapters(context: StageContext, section: TunedSection, model: Transformer) -> None:
    """Write the adapters in PEFT's layout beside the model, and merge them into it. GPT-2's are merged alone."""
    if section.lora is None:
        return
    if model.config.architecture != "gpt2":
        folder = context.stage.path / ADAPTER_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        save_lora(model, section.lora, folder, section.init_from or "")
    merge_lora(model)


def leave_tuned(
    context: StageContext,
    section: PreferenceSection | ReinforceSection,
    model: Transformer,
    tokenizer: Tokenizer,
    panels: Mapping[str, Sequence[str]],
) -> None:
    """What a stage leaves whose training is over: its adapters, curve.svg with the figures of `panels`, and final/."""
    keep_adapters(context, section, model)
    folder, title = context.stage.path, f"{context.recipe.name}: {context.stage.name}"
    draw_course(folder / "metrics.jsonl", folder / "curve.svg", title, panels)
    save_final(folder / "final", model, tokenizer)


def on_device(model: Transformer, section: TrainingSection) -> torch.dtype:
    """Move the model to the fastest device; the type to compute in there."""
    device = pick_device("auto")
    model.to(device)
    return pick_dtype(section.precision, device)


def too_few(stage: str, what: str, n_training: int, n_validation: int, why: str) -> UserError:
    """The complaint that too little is left to train on or to validate with."""
    return UserError(
        f"{stage}: {n_training} {what} to train on and {n_validation} to validate with are left ({why}). "
        "Give more of them, or longer rows."
    )
