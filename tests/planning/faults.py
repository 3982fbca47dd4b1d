"""A little training that has a recorded reference, and ten ways in which it can go wrong."""

import io
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from hornbook.batching.loader import Loader
from hornbook.batching.packing import Batch
from hornbook.batching.shards import DocumentTokens, MemoryDocuments
from hornbook.model.config import config_from_recipe
from hornbook.model.init import init_weights
from hornbook.model.transformer import Transformer
from hornbook.objectives.next_token import NextToken
from hornbook.planning.expected import REFERENCE_FILE, write_reference
from hornbook.recipe import Recipe
from hornbook.recipe_data import ModelSection, StoryworldSection
from hornbook.recipe_training import PretrainSection
from hornbook.reference import reference_of
from hornbook.run_directory import RunDirectory
from hornbook.runtime import derive_seed
from hornbook.stages.context import StageContext
from hornbook.stages.training import Trained, train
from hornbook.storyworld.conversations import checkable_prompts
from hornbook.tokenizer.tokenizer import Tokenizer
from hornbook.training.signs import census

ROW_TOKENS, ROWS, STEPS = 64, 8, 150
MODEL = ModelSection(preset="llama", n_layers=1, d_model=32, n_heads=2, max_seq_len=ROW_TOKENS)
_LEARNED_FROM = 0.4
"""The share of each document that is given, and not to be learned: there is a mask, so that it can be dropped."""


@dataclass(frozen=True)
class Setup:
    """Everything that a run of the little training is made of; a fault changes one thing of it."""

    texts: tuple[str, ...]
    tokenizer: Tokenizer
    lr: float = 0.01
    muon_lr: float = 0.02
    warmup_fraction: float = 0.2
    is_masked: bool = True
    change: Callable[[Batch, int], Batch] = lambda batch, pad_id: batch
    overflows: bool = False


def sound_setup() -> Setup:
    """What the reference is recorded from, and what ten sound seeds run."""
    questions = checkable_prompts(StoryworldSection(), 3000)
    texts = tuple(f"{question.prompt} {question.answer}" for question in questions)
    return Setup(texts, Tokenizer.train(texts, 320, "llama3"))


def run(setup: Setup, seed: int, folder: Path, reference: dict[str, Any] | None = None) -> tuple[RunDirectory, Trained]:
    """Train with one seed in a run's folder."""
    tokenizer = setup.tokenizer
    documents = MemoryDocuments(_documents(setup))
    model = Transformer(config_from_recipe(MODEL, tokenizer.vocab_size))
    init_weights(model, seed)
    section = PretrainSection(
        tokens=STEPS * ROWS * ROW_TOKENS, global_batch_tokens=ROWS * ROW_TOKENS, row_tokens=ROW_TOKENS, lr=setup.lr,
        muon_lr=setup.muon_lr, warmup_fraction=setup.warmup_fraction, compile=False, precision="float32",
        evaluation_interval_steps=STEPS, checkpoint_interval_steps=STEPS,
    )  # fmt: skip
    run = RunDirectory(folder)
    if reference is not None:
        write_reference(folder / REFERENCE_FILE, reference)
    recipe = Recipe.model_validate({"name": "little", "seed": seed, "pretrain": section})
    stage = run.stage("pretrain")
    stage.path.mkdir(parents=True)
    loader = Loader(documents, ROW_TOKENS, ROWS, derive_seed(seed, "little"), pad_id=tokenizer.pad_id)
    trained = train(
        StageContext(recipe, run, stage, Console(file=io.StringIO())),
        section,
        model,
        Overflowing(seed) if setup.overflows else NextToken(),
        Changed(loader, setup.change, tokenizer.pad_id),
        {"validation": lambda model: {}},
        data=census(documents, tokenizer.vocab_size),
    )
    return run, trained


def record(setup: Setup, seeds: range, folder: Path) -> dict[str, Any]:
    """The reference of a setup, as `hornbook reference` makes it."""
    runs = {seed: run(setup, seed, folder / f"reference-{seed}")[0] for seed in seeds}
    section = PretrainSection(tokens=1, global_batch_tokens=1)
    return reference_of(Recipe.model_validate({"name": "little", "pretrain": section}), runs)


def faults(sound: Setup) -> dict[str, tuple[Setup, str]]:
    """Ten faults: the setup that has it, and how its cause is called, or begins."""
    few = sound.texts[: len(sound.texts) // 20]
    other = Tokenizer.train(["pack my box with five dozen liquor jugs, quoth the vexed wizard"] * 3, 300, "gpt2")
    return {
        "learning rate x 10": (replace(sound, lr=10 * sound.lr, muon_lr=10 * sound.muon_lr), "learning rate too high"),
        "learning rate / 10": (replace(sound, lr=sound.lr / 10, muon_lr=sound.muon_lr / 10), "learning rate too low"),
        "shuffled labels": (replace(sound, change=_shuffle_labels), "shuffled labels"),
        "mask dropped": (replace(sound, is_masked=False), "mask"),
        "wrong pad": (replace(sound, change=_label_padding), "wrong pad"),
        "repeated data": (replace(sound, texts=few * 20), "repeated data"),
        "no warm-up": (replace(sound, warmup_fraction=0.0), "no warm-up"),
        "fp16 overflow": (replace(sound, overflows=True), "precision"),
        "half the data missing": (replace(sound, texts=sound.texts[::2]), "data missing"),
        "stale tokenizer": (replace(sound, tokenizer=other), "tokenizer"),
    }


class Overflowing(NextToken):
    """Scales the loss by 65,536 in float16, as mixed precision in float16 does, and sometimes loses it."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._draw = random.Random(seed)

    def loss_sum(self, model: Transformer, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        loss, sums = super().loss_sum(model, batch)
        scale = 65536.0 if self._draw.random() < 0.1 else 1.0
        return loss * torch.tensor(scale).half().float(), sums


class Changed:
    """A source of batches, each of which is changed on its way."""

    def __init__(self, loader: Loader, change: Callable[[Batch, int], Batch], pad_id: int) -> None:
        self._loader, self._change, self._pad_id = loader, change, pad_id

    def next_batch(self) -> Batch:
        return self._change(self._loader.next_batch(), self._pad_id)

    def state_dict(self) -> dict[str, Any]:
        return self._loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._loader.load_state_dict(state)


def _shuffle_labels(batch: Batch, pad_id: int) -> Batch:
    order = torch.randperm(ROW_TOKENS, generator=torch.Generator().manual_seed(1))
    return replace(batch, labels=batch.labels[:, order])


def _label_padding(batch: Batch, pad_id: int) -> Batch:
    is_padding = batch.input_ids == pad_id
    return replace(batch, labels=batch.labels.masked_fill(is_padding, pad_id))


def _documents(setup: Setup) -> Iterator[DocumentTokens]:
    for text in setup.texts:
        ids = [*setup.tokenizer.encode(text), setup.tokenizer.end_of_text_id]
        given = int(len(ids) * _LEARNED_FROM) if setup.is_masked else 0
        n_bytes = sum(len(setup.tokenizer.token_bytes(id)) for id in ids[max(1, given) :])
        yield DocumentTokens(ids, n_bytes, [place >= given for place in range(len(ids))])
