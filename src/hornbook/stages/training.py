"""What the training stages share: everything around the trainer, from a model and batches to what came of it.

There is one way to train: `train`. It fits the batch into memory, says what is to be expected (hornbook.planning),
watches for it, and judges the training and the plan when it is over. `train_stage` is that for all that predicts the
next token of documents.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from hornbook.batching.loader import Loader, Stretch
from hornbook.batching.shards import Documents
from hornbook.evaluation.loss import bits_per_byte
from hornbook.kernels.blocks import blocks_note
from hornbook.model.transformer import Transformer
from hornbook.objectives.classification import Classification
from hornbook.objectives.next_token import NextToken
from hornbook.objectives.objective import Objective
from hornbook.parallel.data import let_go
from hornbook.parallel.mesh import open_mesh
from hornbook.parallel.parallelize import SpreadModel, parallelize
from hornbook.planning.curves import windows
from hornbook.planning.expected import Beginning, Expectation, compared_settings, expectation, read_law, read_reference
from hornbook.planning.flops import flops_per_token
from hornbook.planning.ladder import counted_parameters
from hornbook.planning.layout import to_cut
from hornbook.planning.prediction import PeakMemory, measured_figures, predicted_figures
from hornbook.planning.score import plan_score_table, score
from hornbook.planning.verdict import Verdict, Watch, judge
from hornbook.recipe_training import TrainingSection
from hornbook.run_directory import read_json, write_json
from hornbook.runtime import derive_seed, measured_flops_per_second, pick_device, pick_dtype, precision_note
from hornbook.stages.context import StageContext
from hornbook.stages.final import save_final
from hornbook.stages.fit import fitted, layout_of_mesh
from hornbook.stages.patience import Patience
from hornbook.tokenizer.tokenizer import Tokenizer
from hornbook.training.curve import draw_curve
from hornbook.training.memory import give_back_freed, tune_allocator
from hornbook.training.metrics import TrainingResult, read_metrics
from hornbook.training.optimizers import build_optimizer
from hornbook.training.progress import Yardstick
from hornbook.training.signs import WatchedBatches, census
from hornbook.training.trainer import BatchSource, Evaluator, Trainer

EVALUATION_ROWS_AT_ONCE = 16
BEGINNING_FILE = "beginning.json"
_PEAK_MEASUREMENT_SECONDS = 0.2


@dataclass(frozen=True)
class Trained:
    """What came of a training: its model, its figures, whether it went as expected, and how good its plan was.

    The model is in one piece. Of several processes, only rank 0 has its values.
    """

    model: Transformer
    result: TrainingResult
    expected: Expectation
    verdict: Verdict
    score: dict[str, dict[str, float | None]]
    mfu: float | None
    data: Mapping[str, float]

    def facts(self) -> dict[str, Any]:
        """For `stage.json` and `summary.json`."""
        judged = {"mfu": self.mfu, "verdict": self.verdict.as_json(), "plan_score": self.score}
        return asdict(self.result) | judged


def train(
    context: StageContext,
    section: TrainingSection,
    model: Transformer,
    objective: Objective,
    batches: BatchSource,
    evaluators: Mapping[str, Evaluator],
    data: Mapping[str, float] | None = None,
    first: float | None = None,
    rows_of_unit: int = 1,
    waiting: Patience | None = None,
    spread: SpreadModel | None = None,
) -> Trained:
    """Train the model, which is on its device, and leave checkpoints/ and metrics.jsonl in the stage's folder.

    data: a census of the training data. first: what the stage's figure (its loss, or its reward) is before the first
    step, where the model is not a new one. rows_of_unit: rows that a batch never parts, such as the two of a pair.
    waiting: ends the training when its validation, in bits per byte, no longer gets better. spread: the model as it is
    spread over processes; then `model` is the whole of it, without values, and only rank 0 writes.
    """
    folder, name = context.stage.path, context.stage.name
    spread = spread or SpreadModel.alone(model, model.head_weight.device)
    mesh, config = spread.mesh, model.config
    device, layout = mesh.device, layout_of_mesh(mesh)
    dtype = pick_dtype(section.precision, device)
    row_tokens = section.row_tokens or config.max_seq_len
    there_already = sum(parameter.nbytes for parameter in spread.model.parameters())
    if device.type == "cpu":
        give_back_freed()
        tune_allocator(there_already)
    section, rows = fitted(context, section, spread, dtype, there_already, rows_of_unit)
    total_steps = math.ceil(section.tokens / section.global_batch_tokens)
    beginning = beginning_of(context, section, model, data, first)
    if mesh.is_first:
        write_json(folder / BEGINNING_FILE, {"beginning": asdict(beginning), "data": dict(data or {})})
    expected = expectation(beginning, read_reference(context.run.path), read_law(context.run.path))
    peak = measured_flops_per_second(section.precision, _PEAK_MEASUREMENT_SECONDS) * layout.n_devices
    predicted = predicted_figures(
        config, device, section, dtype, rows, peak, total_steps, expected.final_loss_nats, layout
    )
    watch = Watch(expected, data or {}, read_metrics(folder / "metrics.jsonl"))
    yardstick = Yardstick(flops_per_token(config, row_tokens).model, peak, watch)

    def validate(model: Transformer) -> dict[str, float]:
        measured = evaluators["validation"](model)
        if waiting is not None:
            waiting.watch(trainer, measured["bits_per_byte"])
        return measured

    memory = PeakMemory(device, there_already)
    labels_are_tokens = not isinstance(objective, Classification)
    watched = WatchedBatches(batches, spread.model, lambda: trainer.step, labels_are_tokens)
    trainer = Trainer(
        model=spread.model,
        objective=objective,
        loader=watched,
        optimizer=build_optimizer(spread.model, section),
        section=section,
        directory=folder,
        total_steps=total_steps,
        evaluators={**evaluators, "validation": validate},
        console=context.console,
        seed=context.recipe.seed,
        device=device,
        dtype=dtype,
        yardstick=yardstick,
        notes=watched.notes,
        spread=spread,
    )
    result = trainer.train()
    model = trainer.whole_model()
    records = read_metrics(folder / "metrics.jsonl")
    verdict = judge(records, expected, data)
    losses = [value for value in windows(records, "loss_nats", expected.total_tokens) if value is not None]
    last = losses[-1] if losses else None
    scored = score(predicted, measured_figures(model, section, result, memory.peak_bytes(), last))
    context.console.print(verdict.sentence, markup=False, highlight=False, soft_wrap=True)
    for cause in verdict.causes[:3]:
        text = f"  perhaps {cause.name}: {cause.because} {cause.check}"
        context.console.print(text, markup=False, highlight=False, soft_wrap=True)
    context.console.print(plan_score_table(name, scored))
    speed = result.tokens_per_second
    return Trained(
        model, result, expected, verdict, scored, None if speed is None else yardstick.utilization(speed), data or {}
    )


def read_beginning(folder: Path) -> Beginning:
    """What was known of the training in a stage's folder before it began."""
    return Beginning(**read_json(folder / BEGINNING_FILE)["beginning"])


def beginning_of(
    context: StageContext,
    section: TrainingSection,
    model: Transformer,
    data: Mapping[str, float] | None = None,
    first: float | None = None,
) -> Beginning:
    """What is known of a stage's training before it begins. Its settings are those that decide what its curve is of."""
    config = model.config
    return Beginning(
        stage=context.stage.name,
        total_tokens=math.ceil(section.tokens / section.global_batch_tokens) * section.global_batch_tokens,
        vocab_size=config.vocab_size,
        n_parameters=counted_parameters(config),
        settings=compared_settings(config, section),
        first_loss=first,
        bytes_per_token=None if data is None else data.get("bytes_per_label"),
    )


def train_stage(
    context: StageContext,
    section: TrainingSection,
    model: Transformer,
    tokenizer: Tokenizer,
    training: Documents,
    validation: Documents,
    floor_bits_per_byte: float | None = None,
    few_labels: bool = False,
    is_new: bool = False,
    more_evaluators: Mapping[str, Evaluator] | None = None,
    patience: int | None = None,
    before_saving: Callable[[Transformer], None] = lambda model: None,
) -> dict[str, Any]:
    """Train `model` to predict the next token of `training`, and leave what came of it in the stage's folder.

    Writes checkpoints/, metrics.jsonl, curve.svg and final/ (the model and its tokenizer, as transformers reads them).
    Returns the headline facts. `floor_bits_per_byte` is drawn into the curve where it is known; `few_labels` says that
    most tokens of the training documents are not to be learned, and `is_new` that the model has no weights yet.
    `more_evaluators` run after the validation. With `patience` the training ends after so many validations without a
    better one, and the best model is kept. `before_saving` is called with the model when the training is over and the
    model not yet saved.

    Several processes train together, as the recipe's section parallel says. Each then reads its own share of the rows,
    and all files are written by rank 0. What comes back as the model is `trained.model`: the one given is used up.
    """
    folder, name = context.stage.path, context.stage.name
    device = pick_device("auto")
    dtype = pick_dtype(section.precision, device)
    for note in (precision_note(section.precision, device), blocks_note(device, dtype)):
        if note is not None:
            context.console.print(note)
    config = model.config
    row_tokens = section.row_tokens or config.max_seq_len
    mesh = open_mesh(context.recipe.parallel, device, context.processes, to_cut(name, config, section))
    spread = parallelize(model, mesh, dtype)
    if is_new:
        spread.init_weights(context.recipe.seed)

    def batches() -> BatchSource:
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
        n_stretches = mesh.section.context
        return loader if n_stretches == 1 else Stretch(loader, mesh.context_rank, n_stretches)

    def validate(model: Transformer) -> dict[str, float]:
        return bits_per_byte(
            model,
            validation,
            row_tokens,
            EVALUATION_ROWS_AT_ONCE,
            pad_id=tokenizer.pad_id,
            dtype=dtype,
            max_rows=section.evaluation_rows,
        )

    waiting = None if patience is None else Patience(folder, patience)
    objective = NextToken(few_labels=few_labels)
    trained = train(
        context,
        section,
        spread.shape,
        objective,
        batches(),
        # What writes texts needs the model in one piece.
        {"validation": validate, **({} if mesh.is_spread else more_evaluators or {})},
        data=census(training, config.vocab_size),
        first=None if is_new else loss_on(spread, objective, batches(), dtype),
        waiting=waiting,
        spread=spread,
    )
    model, result = trained.model, trained.result
    if mesh.is_first:
        if waiting is not None:
            waiting.restore_best(model)
        before_saving(model)
        draw_curve(
            folder / "metrics.jsonl",
            folder / "curve.svg",
            f"{context.recipe.name}: {name}",
            floor_bits_per_byte,
            trained.expected.drawn(),
        )
        save_final(folder / "final", model, tokenizer)
    last = result.last_evaluation["validation"].get("bits_per_byte", math.nan)  # missing where not finite
    facts = {
        # With patience, the model that is kept is the best one.
        "validation_bits_per_byte": last if waiting is None else result.best_bits_per_byte.get("validation", math.nan),
        "floor_bits_per_byte": floor_bits_per_byte,
        "final_loss_nats": result.final_loss_nats,
        "tokens": result.tokens,
        "tokens_per_second": result.tokens_per_second,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    return facts | {key: value for key, value in trained.facts().items() if key not in facts}


@torch.no_grad()
def loss_on(spread: SpreadModel, objective: Objective, batches: BatchSource, dtype: torch.dtype) -> float:
    """The mean loss of a model on the next batch: on the tokens that its first step will see."""
    device = spread.mesh.device
    batch = batches.next_batch().to(device)
    total, count = torch.zeros((), device=device), objective.count(batch).clone()
    for row in range(0, batch.n_rows, EVALUATION_ROWS_AT_ONCE):
        part = batch.rows(row, min(row + EVALUATION_ROWS_AT_ONCE, batch.n_rows))
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            total += objective.loss_sum(spread.model, part)[0]
    let_go(spread.model)
    return float(spread.mesh.add_up_shares(total)) / max(1, int(spread.mesh.add_up_shares(count)))
