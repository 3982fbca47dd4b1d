"""From a path to an engine: which model of a run is meant, and everything it needs to speak."""

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path

from hornbook.errors import UserError
from hornbook.inference.engine import Engine
from hornbook.inference.fast_model import FastTransformer
from hornbook.model.huggingface import CONFIG_FILE, GENERATION_FILE, load_pretrained
from hornbook.problems import nearest
from hornbook.run_directory import RunDirectory, read_json
from hornbook.runtime import Precision, pick_device, pick_dtype
from hornbook.tokenizer.tokenizer import Tokenizer


def find_model(path: Path, stages: tuple[str, ...]) -> Path:
    """The folder of a model: `path` itself, or that of the first of `stages` that the run finished.

    Raises `UserError` where there is neither.
    """
    if (path / CONFIG_FILE).is_file():
        return path
    if not path.is_dir():
        raise UserError(f"{path}: there is no such folder; give a run (runs/NAME) or the folder of a model")
    models = {folder.name: folder / "final" for folder in path.iterdir() if (folder / "final" / CONFIG_FILE).is_file()}
    finished = [stage for stage in models if RunDirectory(path).stage(stage).record() is not None]
    for stage in stages:
        if stage in finished:
            return models[stage]
    problem = f"{path}: there is no finished model of the stage {' or '.join(stages)} here."
    unfinished = [stage for stage in stages if stage in models]
    if unfinished:
        raise UserError(
            f"{problem} {models[unfinished[0]]} is of an earlier form of the recipe, or not done: `hornbook run` with "
            "the run's recipe makes it anew; give that folder to use it all the same."
        )
    guess = nearest(stages[0], finished) if len(stages) == 1 else None
    there = f" Did you mean {guess}?" if guess else f" There are: {', '.join(sorted(finished))}." if finished else ""
    raise UserError(f"{problem}{there} `hornbook run` with the run's recipe makes those that the recipe has.")


TUNED_STAGES = ("reinforce", "preference", "finetune")
"""Stages whose models answer, the last one first."""


@dataclass(frozen=True)
class EngineOptions:
    """How a model computes.

    precision: the type of the computation. int8: the weights of all matrices but the embeddings are held as int8,
    on a CPU. has_drafts: what is written is guessed ahead where that may pay.
    """

    precision: Precision = "auto"
    int8: bool = False
    has_drafts: bool = False


def load_engine(directory: Path, options: EngineOptions | None = None) -> Engine:
    """The model and tokenizer of a folder in Hugging Face's layout, on the fastest device.

    Raises `UserError` where either cannot be read, or they do not belong together, or nothing says which token ends a
    text, or int8 is asked of no CPU.
    """
    options = options or EngineOptions()
    model, tokenizer = load_pretrained(directory), Tokenizer.load(directory)
    if tokenizer.vocab_size > model.config.vocab_size:
        raise UserError(
            f"{directory}: the tokenizer has {tokenizer.vocab_size} tokens, but the model has "
            f"{model.config.vocab_size}: they do not belong together"
        )
    device = pick_device("auto")
    dtype, end_ids = pick_dtype(options.precision, device), _end_ids(directory, tokenizer)
    engine = Engine(model, tokenizer, device, dtype, has_drafts=options.has_drafts, end_ids=end_ids)
    if device.type == "cpu":
        made = FastTransformer.of(engine.model, options.int8)
        engine.model = made
        if options.int8 and not made.is_fast:
            print("There is no C compiler here: int8 weights give their answers, but save no time.", file=sys.stderr)
    elif options.int8:
        raise UserError(f"--int8: is for CPUs, but the model runs on {device.type}: leave it out")
    return engine


def _end_ids(directory: Path, tokenizer: Tokenizer) -> list[int]:
    """The tokens that end a text: the tokenizer's own, or else those that the model's files name."""
    with contextlib.suppress(UserError):
        return [tokenizer.end_of_text_id]
    for file in (directory / GENERATION_FILE, directory / CONFIG_FILE):
        settings = read_json(file) if file.is_file() else None
        named = settings.get("eos_token_id") if isinstance(settings, dict) else None
        if ids := [id for id in (named if isinstance(named, list) else [named]) if isinstance(id, int)]:
            return ids
    raise UserError(
        f"{directory}: nothing says which token ends a text: the tokenizer has no <|endoftext|>. "
        f"Name the token's number as eos_token_id in {GENERATION_FILE}."
    )
