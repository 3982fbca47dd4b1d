"""How low the loss gets in a given time, beside other projects, or beside other settings of one's own.

    python benchmarks/time_to_loss.py --peers PEERS --data TINYSTORIES --budget 360 nanoGPT nanochat hornbook
    python benchmarks/time_to_loss.py --data TINYSTORIES --budget 60 hornbook hornbook:preset=llama,muon_lr=0.03,rows=4

TINYSTORIES holds train.jsonl.gz and valid.jsonl.gz with a "text" in each line. All learn from the same tokens, a
vocabulary made of the training texts, in rows of 256 cut from anywhere; all are of the same layers and width, and are
measured by the same windows of the validation texts, in bits per byte of raw text (the closing token has no bytes and
is left out).

Steps are interleaved: the next is made by whoever has used least of its budget, so that all meet the same disturbances.
Each schedule is stretched over the budget. The budget is in seconds of the processor with one thread
(OMP_NUM_THREADS=1), else of the clock; compiling and validating are not counted.

A contender is NAME or NAME:SETTING=VALUE,... Settings of all: rows, and share, the part of the budget over which the
contender's schedule is stretched and after which it stands still. Settings of hornbook: those of a recipe's sections
model and pretrain. Settings of the peers: lr (nanoGPT) or lr_factor (nanochat). nanoGPT's defaults here are the tuned
ones: learning rate 3e-3 with 100 steps of warm-up, momenta 0.9 and 0.99. nanochat follows its own rules for rates,
momentum and weight decay; rates three times as high were the best found for budgets of minutes (lr_factor=3).
"""

import argparse
import gzip
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from training_parts.contenders import Contender, Shape, build, hornbook, nanochat_model

from hornbook.recipe_data import ModelSection
from hornbook.recipe_training import PretrainSection
from hornbook.tokenizer.tokenizer import Tokenizer
from hornbook.training.schedule import learning_rate_scale

VALIDATION_ROWS = 64
ROWS_AT_ONCE = 8
_WARM_UP_STEPS = 2
_VIRTUAL_STEPS = 1_000_000  # a schedule of steps, read at a share of the budget


@dataclass
class Runner:
    """A contender on its way."""

    label: str
    contender: Contender
    shape: Shape
    set_rates: Callable[[float, int], None]
    """Called before each step with the share of the budget that is used, and the number of the step."""
    share: float = 1.0
    """Of the budget."""
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(1))
    seconds: float = 0.0
    steps: int = 0

    def step(self, stream: Tensor, budget: float) -> None:
        starts = torch.randint(len(stream) - self.shape.row_tokens, (self.shape.rows,), generator=self.generator)
        ids = torch.stack([stream[start : start + self.shape.row_tokens + 1] for start in starts.tolist()])
        started = now()
        self.set_rates(self.seconds / (self.share * budget), self.steps)
        self.contender.step(ids)
        self.seconds += now() - started
        self.steps += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contenders", nargs="+")
    parser.add_argument("--peers", type=Path, default=Path("peers"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--budget", type=float, default=360.0, help="seconds of training for each")
    parser.add_argument("--validations", type=int, default=8, help="how often each is validated")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--vocab-size", type=int, default=4096)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    dtype = getattr(torch, options.dtype)
    tokenizer, stream, held_out = tokens_of(options.data, options.vocab_size)
    windows = spread_windows(held_out, 256)
    token_bytes = torch.tensor([len(tokenizer.token_bytes(id)) for id in range(tokenizer.vocab_size)])
    shape = Shape(options.layers, options.width, options.heads, 256, 8, tokenizer.vocab_size)
    torch._dynamo.config.recompile_limit = 64
    runners = [make_runner(text, shape, options.peers, dtype, options.compile) for text in options.contenders]
    print(f"{shape}, {dtype}, {torch.get_num_threads()} threads, budget {options.budget:g} s", flush=True)

    marks = [options.budget * (number + 1) / options.validations for number in range(options.validations)]
    print(f"{'seconds':>8}  " + "  ".join(f"{runner.label:>24}" for runner in runners))
    for mark in marks:
        while behind := [runner for runner in runners if runner.seconds < min(mark, runner.share * options.budget)]:
            min(behind, key=lambda runner: runner.seconds).step(stream, options.budget)
        found = [bits_per_byte(runner.contender, windows, token_bytes) for runner in runners]
        cells = [f"{bits:.4f} ({runner.steps} steps)" for bits, runner in zip(found, runners, strict=True)]
        print(f"{mark:>8.0f}  " + "  ".join(f"{cell:>24}" for cell in cells), flush=True)


def tokens_of(folder: Path, vocab_size: int) -> tuple[Tokenizer, Tensor, Tensor]:
    """A tokenizer of the training texts, and both texts as a stream of ids each, documents closed by the end token."""
    texts = {name: read_texts(folder / f"{name}.jsonl.gz") for name in ("train", "valid")}
    tokenizer = Tokenizer.train(texts["train"], vocab_size, "llama3")

    def stream(name: str) -> Tensor:
        end = torch.tensor([tokenizer.end_of_text_id])
        documents = (torch.from_numpy(ids.astype("int64")) for ids in tokenizer.encode_batch(texts[name]))
        return torch.cat([part for ids in documents for part in (ids, end)])

    return tokenizer, stream("train"), stream("valid")


def read_texts(path: Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"].strip() + "\n" for line in lines]


def spread_windows(stream: Tensor, row_tokens: int) -> Tensor:
    """Rows of one token more than `row_tokens`, evenly spread over the stream."""
    starts = torch.linspace(0, len(stream) - row_tokens - 1, VALIDATION_ROWS).long()
    return torch.stack([stream[start : start + row_tokens + 1] for start in starts.tolist()])


@torch.no_grad()
def bits_per_byte(contender: Contender, windows: Tensor, token_bytes: Tensor) -> float:
    contender.model.eval()
    nats, n_bytes = 0.0, 0
    for rows in windows.split(ROWS_AT_ONCE):
        scores = contender.scores(rows[:, :-1].contiguous()).float()
        labels = rows[:, 1:].flatten()
        losses = F.cross_entropy(scores.flatten(0, 1), labels, reduction="none")
        nats += losses[token_bytes[labels] > 0].double().sum().item()
        n_bytes += int(token_bytes[labels].sum())
    contender.model.train()
    return nats / math.log(2) / n_bytes


def make_runner(text: str, shape: Shape, peers: Path, dtype: torch.dtype, compiled: bool) -> Runner:
    """The contender that a word of the command line names, compiled and with its start's weights."""
    name, _, listed = text.partition(":")
    settings = {
        key: value_of(word) for key, word in (setting.split("=", 1) for setting in listed.split(",") if setting)
    }
    default_rows = 8 if name == "hornbook" else 16
    shape, share = replace(shape, rows=settings.pop("rows", default_rows)), settings.pop("share", 1.0)
    make = {"hornbook": _hornbook, "nanoGPT": _nanogpt, "nanochat": _nanochat}[name]
    contender, set_rates = make(shape, peers, dtype, compiled, settings)
    kept_weights = {key: value.clone() for key, value in contender.model.state_dict().items()}
    kept_state = deep_copy(contender.optimizer.state_dict())
    for _ in range(_WARM_UP_STEPS):
        contender.step(torch.zeros(shape.rows, shape.row_tokens + 1, dtype=torch.int64))
    contender.model.load_state_dict(kept_weights)
    contender.optimizer.load_state_dict(kept_state)
    return Runner(text, contender, shape, set_rates, share)


def value_of(word: str) -> Any:
    """A number or a truth value as TOML writes them, else the word itself."""
    try:
        return json.loads(word)
    except json.JSONDecodeError:
        return word


def deep_copy(state: Any) -> Any:
    """A deep copy whose tensors share nothing with the original."""
    if isinstance(state, Tensor):
        return state.clone()
    if isinstance(state, dict):
        return {key: deep_copy(value) for key, value in state.items()}
    return [deep_copy(value) for value in state] if isinstance(state, list) else state


Made = tuple[Contender, Callable[[float, int], None]]


def _hornbook(shape: Shape, peers: Path, dtype: torch.dtype, compiled: bool, settings: dict[str, Any]) -> Made:
    in_model = {key: value for key, value in settings.items() if key in ModelSection.model_fields}
    model_section = ModelSection(
        n_layers=shape.n_layers,
        d_model=shape.d_model,
        n_heads=shape.n_heads,
        max_seq_len=shape.row_tokens,
        **{"preset": "qwen3"} | in_model,
    )
    in_training = {key: value for key, value in settings.items() if key not in in_model}
    section = PretrainSection(tokens=shape.tokens, global_batch_tokens=shape.tokens, **in_training)
    contender = hornbook(model_section, section, shape, dtype, compiled)

    def set_rates(share: float, step: int) -> None:
        virtual_step = min(int(share * _VIRTUAL_STEPS), _VIRTUAL_STEPS - 1)
        contender.optimizer.scale_learning_rates(learning_rate_scale(virtual_step, _VIRTUAL_STEPS, section))

    return contender, set_rates


def _nanogpt(shape: Shape, peers: Path, dtype: torch.dtype, compiled: bool, settings: dict[str, Any]) -> Made:
    contender = build("nanoGPT", shape, peers, dtype, compiled)
    peak = settings.get("lr", 3e-3)
    for group in contender.optimizer.param_groups:
        group["betas"] = (0.9, 0.99)

    def set_rates(share: float, step: int) -> None:
        cosine = peak * (0.1 + 0.9 * (1 + math.cos(math.pi * min(share, 1))) / 2)
        for group in contender.optimizer.param_groups:
            group["lr"] = min(cosine, peak * (step + 1) / 100)

    return contender, set_rates


def _nanochat(shape: Shape, peers: Path, dtype: torch.dtype, compiled: bool, settings: dict[str, Any]) -> Made:
    """Rates, momentum and weight decay as its scripts/base_train.py has them, progress being that of time."""
    contender = build("nanochat", shape, peers, dtype, compiled)
    reference = nanochat_model(replace(shape, n_layers=12, d_model=768, n_heads=6), peers, dtype)
    sizes = [_nanochat_scaled_parameters(model) for model in (contender.model, reference)]
    batch_share = shape.tokens / 2**19
    factor = math.sqrt(batch_share) * settings.get("lr_factor", 1)
    decay = 0.28 * math.sqrt(batch_share) * sizes[1] / sizes[0]
    contender.optimizer = contender.model.setup_optimizer(
        unembedding_lr=0.008 * factor,
        embedding_lr=0.3 * factor,
        scalar_lr=0.5 * factor,
        matrix_lr=0.02 * factor,
        weight_decay=decay,
    )
    falling = 0.65

    def set_rates(share: float, step: int) -> None:
        left = min(1.0, max(0.0, 1 - share) / falling)
        rate = (step + 1) / 40 if step < 40 else left + (1 - left) * 0.05
        momentum = 0.97 * left + 0.9 * (1 - left) if left < 1 else 0.85 + 0.12 * min(step / 400, 1)
        for group in contender.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * rate
            if group["kind"] == "muon":
                group["momentum"] = momentum
                group["weight_decay"] = decay * (1 + math.cos(math.pi * min(share, 1))) / 2

    return contender, set_rates


def _nanochat_scaled_parameters(model: Any) -> int:
    counts = model.num_scaling_params()
    return counts["transformer_matrices"] + counts["lm_head"]


now = time.process_time if torch.get_num_threads() == 1 else time.perf_counter


if __name__ == "__main__":
    main()
