"""What the training stages share: everything around the trainer, from documents to a finished model on disk."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from hornbook.batching.loader import Loader
from hornbook.batching.shards import Documents
from hornbook.errors import RunFailed
from hornbook.evaluation.loss import bits_per_byte
from hornbook.model.config import ModelConfig
from hornbook.model.huggingface import save_pretrained
from hornbook.model.transformer import Transformer
from hornbook.objectives.next_token import NextToken
from hornbook.parallel.mesh import open_mesh
from hornbook.parallel.parallelize import SpreadModel, parallelize
from hornbook.planning.flops import flops_per_token
from hornbook.planning.hardware import Kind
from hornbook.planning.memory import most_rows_at_once, rows_that_fit, training_memory
from hornbook.planning.tables import size
from hornbook.recipe_parallel import Cuttable
from hornbook.recipe_training import TrainingSection
from hornbook.runtime import derive_seed, measured_flops_per_second, pick_device, pick_dtype
from hornbook.stages.context import StageContext
from hornbook.stages.patience import Patience
from hornbook.tokenizer.chat import END_OF_TURN
from hornbook.tokenizer.tokenizer import Tokenizer
from hornbook.training.curve import draw_curve
from hornbook.training.memory import free_memory_bytes
from hornbook.training.optimizers import build_optimizer
from hornbook.training.progress import Yardstick
from hornbook.training.trainer import Evaluator, Trainer

EVALUATION_ROWS_AT_ONCE = 16
_PEAK_MEASUREMENT_SECONDS = 0.2


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
    before_saving: Callable[[Transformer], None] = lambda model: None,
) -> dict[str, Any]:
    """Train `model` to predict the next token of `training`, and leave what came of it in the stage's folder.

    Writes checkpoints/, metrics.jsonl, curve.svg and final/ (the model and its tokenizer, as transformers reads them).
    Returns the headline facts. `floor_bits_per_byte` is drawn into the curve where it is known; `few_labels` says that
    most tokens of the training documents are not to be learned. `more_evaluators` run after the validation. With
    `patience` the training ends after so many validations without a better one, and the best model is kept.
    `before_saving` is called with the model when the training is over and the model not yet saved.

    Several processes train together, as the recipe's section parallel says. Each then reads its own share of the rows,
    and all files are written by rank 0.
    """
    folder, name = context.stage.path, context.stage.name
    device = pick_device("auto")
    dtype = pick_dtype(section.precision, device)
    row_tokens = section.row_tokens or model.config.max_seq_len
    mesh = open_mesh(context.recipe.parallel, device, context.processes, _to_cut(name, model.config, section))
    spread = parallelize(model, mesh, dtype, section.compile)
    rows_at_once = _rows_at_once(context, spread, section, dtype)
    peak = measured_flops_per_second(section.precision, _PEAK_MEASUREMENT_SECONDS) * context.processes.world_size
    yardstick = Yardstick(flops_per_token(spread.shape.config, row_tokens).model, peak)
    loader = Loader(
        training,
        row_tokens,
        section.global_batch_tokens // row_tokens,
        derive_seed(context.recipe.seed, name),
        pad_id=tokenizer.pad_id,
        first_in_order=section.order == "corpus",
        rank=mesh.data_rank,
        world_size=mesh.n_data,
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
        model=spread.model,
        objective=NextToken(few_labels=few_labels),
        loader=loader,
        optimizer=build_optimizer(spread.model, section),
        section=section.model_copy(update={"micro_batch_size": rows_at_once}),
        directory=folder,
        total_steps=math.ceil(section.tokens / section.global_batch_tokens),
        # What writes texts needs the model in one piece.
        evaluators={"validation": validate, **({} if mesh.is_spread else more_evaluators or {})},
        console=context.console,
        seed=context.recipe.seed,
        device=device,
        dtype=dtype,
        yardstick=yardstick,
        spread=spread,
    )
    result = trainer.train()
    model = trainer.whole_model()
    if mesh.is_first:
        if waiting is not None:
            waiting.restore_best(model)
        before_saving(model)
        title = f"{context.recipe.name}: {name}"
        draw_curve(folder / "metrics.jsonl", folder / "curve.svg", title, floor_bits_per_byte)
        save_final(folder / "final", model, tokenizer)
    speed = result.tokens_per_second
    facts = {
        "validation_bits_per_byte": result.last_evaluation["validation"]["bits_per_byte"],
        "floor_bits_per_byte": floor_bits_per_byte,
        "final_loss_nats": result.final_loss_nats,
        "tokens": result.tokens,
        "tokens_per_second": result.tokens_per_second,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "mfu": None if speed is None else yardstick.utilization(speed),
    }
    return facts | {key: value for key, value in asdict(result).items() if key not in facts}


def _to_cut(name: str, config: ModelConfig, section: TrainingSection) -> Cuttable:
    row_tokens = section.row_tokens or config.max_seq_len
    return Cuttable(
        stage=name,
        n_layers=config.n_layers,
        n_heads=config.n_heads,
        n_kv_heads=config.n_kv_heads,
        d_ff=config.d_ff,
        vocab_size=config.vocab_size,
        n_positions=config.max_seq_len if config.positions == "learned" else 0,
        row_tokens=row_tokens,
        n_rows=section.global_batch_tokens // row_tokens,
        has_adapters=getattr(section, "lora", None) is not None,
    )


def _rows_at_once(context: StageContext, spread: SpreadModel, section: TrainingSection, dtype: torch.dtype) -> int:
    """As many rows as fit, by the plan's estimate. It knows one device only: of several processes, each tries the rows
    of its share, or the recipe's micro-batch. Raises RunFailed where not even one fits."""
    config, mesh = spread.shape.config, spread.mesh
    if mesh.is_spread:
        return most_rows_at_once(config, section)
    there_already = sum(parameter.nbytes for parameter in spread.model.parameters())
    fit = fit_in_memory(config, section, mesh.device, dtype, there_already)
    if fit.rows == 0:
        raise RunFailed(f"{context.stage.name}: {fit.sentence}")
    if fit.rows < fit.most_rows:
        context.console.print(f"{fit.sentence[0].upper()}{fit.sentence[1:]}", highlight=False)
    return fit.rows


@dataclass(frozen=True)
class Fit:
    """How a training fits into the memory that is free.

    rows: computed at once at first; 0: not even one row fits. most_rows: what training would take with memory enough.
    sentence: the same in words, without a capital.
    """

    rows: int
    most_rows: int
    sentence: str


def fit_in_memory(
    config: ModelConfig, section: TrainingSection, device: torch.device, dtype: torch.dtype, there_already: int = 0
) -> Fit:
    """Compare the plan's estimate with what is free, `there_already` bytes of it being allocated.

    An accelerator says when its memory runs out, and the trainer then takes fewer rows. On a CPU the kernel kills the
    process instead, so there it has to be foreseen.
    """
    kind: Kind = "cpu" if device.type == "cpu" else "accelerator"
    section = section.model_copy(update={"precision": "float32" if dtype == torch.float32 else "bfloat16"})
    most = most_rows_at_once(config, section)
    free = free_memory_bytes(device)
    if free is None:
        return Fit(most, most, "how much memory is free is not known here, so it is tried.")
    there = free + there_already
    fitting = rows_that_fit(config, section, there, kind)
    rows = most if kind == "accelerator" else fitting
    needed = size(training_memory(config, section, max(fitting, 1), kind).total)
    if fitting == 0:
        advice = 'Make the rows shorter (row_tokens), set recompute = "full", or choose a smaller model.'
        return Fit(rows, most, f"a single row needs about {needed} of memory, and {size(there)} are free. {advice}")
    if fitting < most:
        words = f"{fitting} rows at once instead of {most}, since {size(there)} of memory are free"
        return Fit(rows, most, f"computing {words} (about {needed} needed); the gradient is the same.")
    return Fit(rows, most, f"{most} rows at once need about {needed}, and {size(there)} are free.")


def save_final(folder: Path, model: Transformer, tokenizer: Tokenizer) -> None:
    """The model and its tokenizer in Hugging Face's layout."""
    folder.mkdir(parents=True, exist_ok=True)
    end_of_turn_id = tokenizer.special_id(END_OF_TURN)
    save_pretrained(model, folder, tokenizer.end_of_text_id, tokenizer.pad_id, end_of_turn_id)
    tokenizer.save(folder)
