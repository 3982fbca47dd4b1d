"""What the stages after pretraining share: the model they start from, adapters, and what is kept."""

from collections.abc import Mapping, Sequence

import torch

from hornbook.errors import UserError
from hornbook.model.huggingface import load_pretrained
from hornbook.model.lora import attach_lora, merge_lora, save_lora, trained_fraction
from hornbook.model.transformer import Transformer
from hornbook.recipe_training import LoraSection, PreferenceSection, ReinforceSection, TrainingSection
from hornbook.runtime import derive_seed, pick_device, pick_dtype
from hornbook.stages.context import StageContext
from hornbook.stages.course import draw_course
from hornbook.stages.final import save_final
from hornbook.stages.start import start_from
from hornbook.tokenizer.tokenizer import Tokenizer

ADAPTER_FOLDER = "adapter"


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


def attach_adapters(context: StageContext, lora: LoraSection | None, model: Transformer) -> None:
    """Give the model the recipe's adapters, where it asks for some, and say what share of it is trained."""
    if lora is None:
        return
    attach_lora(model, lora, derive_seed(context.recipe.seed, context.stage.name, "lora"))
    share = trained_fraction(model)
    context.console.print(f"adapters of rank {lora.rank}: {share:.2%} of all parameters are trained", highlight=False)


def keep_adapters(context: StageContext, lora: LoraSection | None, model: Transformer, base: str) -> None:
    """Write the adapters in PEFT's layout beside the model, and merge them into it. GPT-2's are merged alone."""
    if lora is None:
        return
    if model.config.architecture != "gpt2":
        folder = context.stage.path / ADAPTER_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        save_lora(model, lora, folder, base)
    merge_lora(model)


def leave_tuned(
    context: StageContext,
    section: PreferenceSection | ReinforceSection,
    model: Transformer,
    tokenizer: Tokenizer,
    panels: Mapping[str, Sequence[str]],
) -> None:
    """What a stage leaves whose training is over: its adapters, curve.svg with the figures of `panels`, and final/."""
    keep_adapters(context, section.lora, model, section.init_from or "")
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
