"""The projects that are compared: each builds its own model and optimizer, and makes a whole step as it ships.

A peer is imported from a checkout of its repository, `PEERS/NAME` (nanoGPT, nanochat, litgpt); transformers from the
environment. What a peer does not say itself (the training loop of transformers) follows its defaults: AdamW in its
fused form, clipping at 1.

All predict the next token of the same ids, in rows that hold one document each.
"""

import contextlib
import importlib
import importlib.util
import io
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hornbook.batching.packing import Batch
from hornbook.model.config import config_from_recipe
from hornbook.model.init import init_weights
from hornbook.model.transformer import Transformer
from hornbook.objectives.next_token import NextToken
from hornbook.parallel.compiled import CompiledLayers
from hornbook.parallel.parallelize import SpreadModel
from hornbook.parallel.recompute import recomputed
from hornbook.recipe_data import ModelSection
from hornbook.recipe_training import PretrainSection
from hornbook.training.memory import tune_allocator
from hornbook.training.optimizers import build_optimizer

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Shape:
    """One size of model and batch."""

    n_layers: int
    d_model: int
    n_heads: int
    row_tokens: int
    rows: int
    vocab_size: int

    @property
    def tokens(self) -> int:
        return self.rows * self.row_tokens

    @property
    def swiglu_width(self) -> int:
        """8/3 of the width, up to a multiple of 64: as many weights as an ungated one of 4 times the width."""
        return -(-8 * self.d_model // 192) * 64


SHAPES = {
    "tiny": Shape(4, 128, 4, 256, 16, 4096),
    "small": Shape(6, 384, 6, 256, 8, 8192),
    "124M": Shape(12, 768, 12, 512, 2, 50304),
}


@dataclass
class Contender:
    """Something that can make training steps on a batch of ids (B, T + 1), and give scores (B, T, V) to ids (B, T)."""

    model: nn.Module
    loss: Callable[[Tensor], Tensor]
    scores: Callable[[Tensor], Tensor]
    optimizer: torch.optim.Optimizer
    clip: Callable[[], object] | None
    matrix_weights: int
    kept_open: contextlib.ExitStack | None = None
    """What would be undone if it were let go of."""

    def step(self, ids: Tensor) -> float:
        """Forward, backward, clipping, optimizer. Returns the loss, in nats."""
        loss = self.loss(ids)
        loss.backward()
        if self.clip is not None:
            self.clip()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()


class NotHere(Exception):
    """A peer that cannot be built, and why."""


def build(
    name: str, shape: Shape, peers: Path, dtype: torch.dtype, compiled: bool, device: torch.device = _CPU
) -> Contender:
    """A contender of the name. Raises NotHere where its code is not."""
    torch.manual_seed(1)
    try:
        # Some print what they do; nothing of it belongs in a table.
        with contextlib.redirect_stdout(io.StringIO()):
            return _BUILDERS[name](shape, peers, dtype, compiled, device)
    except (ImportError, FileNotFoundError) as error:
        raise NotHere(f"{name}: {error}") from error


def matrix_weights(model: nn.Module, tied_head: Tensor | None = None) -> int:
    """The weights that each token is multiplied with, those of the head included."""
    counted = sum(
        module.weight.numel()
        for module in model.modules()
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
    )
    return counted + (0 if tied_head is None else tied_head.numel())


def hornbook(
    model_section: ModelSection,
    section: PretrainSection,
    shape: Shape,
    dtype: torch.dtype,
    compiled: bool,
    device: torch.device = _CPU,
) -> Contender:
    """Ours, as a recipe with these two sections trains it."""
    model = Transformer(config_from_recipe(model_section, shape.vocab_size)).to(device)
    init_weights(model, seed=1)
    if device.type == "cpu":
        tune_allocator(sum(parameter.nbytes for parameter in model.parameters()))
    objective = NextToken()
    attached = contextlib.ExitStack()
    attached.enter_context(recomputed(model.model.layers, section.recompute))
    if compiled:
        attached.enter_context(CompiledLayers(model, device, dtype).attached())
        objective = objective.compiled()
    one_row = torch.arange(shape.row_tokens, device=device)

    def loss(ids: Tensor) -> Tensor:
        positions = one_row.repeat(len(ids), 1)
        batch = Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), positions, torch.zeros_like(positions))
        with _autocast(ids.device, dtype):
            return objective.loss_sum(model, batch)[0] / objective.count(batch)

    tied_head = model.head_weight if model.lm_head is None else None
    return Contender(
        model,
        loss,
        lambda ids: model.logits(model(ids)),
        build_optimizer(model, section),
        lambda: SpreadModel.alone(model, device).clip(section.clip_norm),
        matrix_weights(model, tied_head),
        attached,
    )


def _hornbook(preset: str = "llama", **settings: Any) -> Callable[..., Contender]:
    def make(shape: Shape, peers: Path, dtype: torch.dtype, compiled: bool, device: torch.device) -> Contender:
        model_section = ModelSection(
            preset=preset,
            n_layers=shape.n_layers,
            d_model=shape.d_model,
            n_heads=shape.n_heads,
            max_seq_len=shape.row_tokens,
        )
        section = PretrainSection(tokens=shape.tokens, global_batch_tokens=shape.tokens, **settings)
        return hornbook(model_section, section, shape, dtype, compiled, device)

    return make


def _clipping_at_1(model: nn.Module) -> Callable[[], object]:
    return lambda: nn.utils.clip_grad_norm_(model.parameters(), 1.0)


def _nanogpt(shape: Shape, peers: Path, dtype: torch.dtype, compiled: bool, device: torch.device) -> Contender:
    path = peers / "nanoGPT" / "model.py"
    spec = importlib.util.spec_from_file_location("nanogpt_model", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["nanogpt_model"] = module
    spec.loader.exec_module(module)
    settings = module.GPTConfig(
        block_size=shape.row_tokens,
        vocab_size=shape.vocab_size,
        n_layer=shape.n_layers,
        n_head=shape.n_heads,
        n_embd=shape.d_model,
        dropout=0.0,
        bias=False,
    )
    model = module.GPT(settings).to(device)
    run = _maybe_compiled(model, compiled)
    optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.95), device.type)

    def loss(ids: Tensor) -> Tensor:
        with _autocast(ids.device, dtype):
            return run(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())[1]

    # Given targets, it returns the scores of every token; else those of the last alone.
    return Contender(
        model, loss, lambda ids: model(ids, ids)[0], optimizer, _clipping_at_1(model), matrix_weights(model)
    )


def nanochat_model(shape: Shape, peers: Path, dtype: torch.dtype) -> Any:
    """nanochat's model of a shape, without memory for its weights."""
    # Its own switch of the number type, read when it is imported.
    os.environ["NANOCHAT_DTYPE"] = "bfloat16" if dtype == torch.bfloat16 else "float32"
    module = _from_checkout(peers / "nanochat", "nanochat.gpt")
    settings = module.GPTConfig(
        sequence_len=shape.row_tokens,
        vocab_size=shape.vocab_size,
        n_layer=shape.n_layers,
        n_head=shape.n_heads,
        n_kv_head=shape.n_heads,
        n_embd=shape.d_model,
        window_pattern="L",
    )
    with torch.device("meta"):
        return module.GPT(settings)


def _nanochat(shape: Shape, peers: Path, dtype: torch.dtype, compiled: bool, device: torch.device) -> Contender:
    model = nanochat_model(shape, peers, dtype)
    model.to_empty(device=device)
    model.init_weights()
    run = _maybe_compiled(model, compiled)
    optimizer = model.setup_optimizer()

    def loss(ids: Tensor) -> Tensor:
        return run(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())

    return Contender(model, loss, model, optimizer, None, matrix_weights(model))


def _litgpt(shape: Shape, peers: Path, dtype: torch.dtype, compiled: bool, device: torch.device) -> Contender:
    module = _from_checkout(peers / "litgpt", "litgpt.model")
    utils = _from_checkout(peers / "litgpt", "litgpt.utils")
    settings = module.Config(
        block_size=shape.row_tokens,
        n_layer=shape.n_layers,
        n_embd=shape.d_model,
        n_head=shape.n_heads,
        vocab_size=shape.vocab_size,
        padded_vocab_size=shape.vocab_size,
        norm_class_name="RMSNorm",
        mlp_class_name="LLaMAMLP",
        intermediate_size=shape.swiglu_width,
        bias=False,
        rotary_percentage=1.0,
        parallel_residual=False,
    )
    model = module.GPT(settings).to(device)
    model.apply(model._init_weights)
    run = _maybe_compiled(model, compiled)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-4, weight_decay=0.1, betas=(0.9, 0.95))

    def loss(ids: Tensor) -> Tensor:
        with _autocast(ids.device, dtype):
            return utils.chunked_cross_entropy(run(ids[:, :-1].contiguous()), ids[:, 1:].contiguous())

    return Contender(model, loss, model, optimizer, _clipping_at_1(model), matrix_weights(model))


def _transformers(kind: str, checkpointing: bool = False) -> Callable[..., Contender]:
    def make(shape: Shape, peers: Path, dtype: torch.dtype, compiled: bool, device: torch.device) -> Contender:
        transformers = importlib.import_module("transformers")
        model = transformers.AutoModelForCausalLM.from_config(_transformers_config(transformers, kind, shape)).to(
            device
        )
        model.train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        run = _maybe_compiled(model, compiled)
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, fused=True)

        def loss(ids: Tensor) -> Tensor:
            with _autocast(ids.device, dtype):
                logits = run(input_ids=ids[:, :-1].contiguous(), use_cache=False).logits
                return F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())

        # A tied head is a Linear all the same, and counted as one.
        return Contender(
            model, loss, lambda ids: model(ids).logits, optimizer, _clipping_at_1(model), matrix_weights(model)
        )

    return make


def _transformers_config(transformers: Any, kind: str, shape: Shape) -> Any:
    if kind == "gpt2":
        return transformers.GPT2Config(
            vocab_size=shape.vocab_size,
            n_embd=shape.d_model,
            n_layer=shape.n_layers,
            n_head=shape.n_heads,
            n_positions=shape.row_tokens,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        )
    return transformers.LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.d_model,
        intermediate_size=shape.swiglu_width,
        num_hidden_layers=shape.n_layers,
        num_attention_heads=shape.n_heads,
        max_position_embeddings=shape.row_tokens,
    )


_BUILDERS: dict[str, Callable[[Shape, Path, torch.dtype, bool, torch.device], Contender]] = {
    "hornbook": _hornbook(),
    "hornbook qwen3": _hornbook("qwen3"),
    "hornbook AdamW": _hornbook(optimizer="adamw"),
    "hornbook AdamW selective": _hornbook(optimizer="adamw", recompute="selective"),
    "hornbook AdamW full": _hornbook(optimizer="adamw", recompute="full"),
    "nanoGPT": _nanogpt,
    "nanochat": _nanochat,
    "LitGPT": _litgpt,
    "transformers Llama": _transformers("llama"),
    "transformers Llama checkpointing": _transformers("llama", checkpointing=True),
    "transformers GPT-2": _transformers("gpt2"),
}
NAMES = tuple(_BUILDERS)


def is_peer(name: str) -> bool:
    return not name.startswith("hornbook")


def peers_among(names: Iterable[str]) -> list[str]:
    return [name for name in names if is_peer(name)]


def _maybe_compiled(model: nn.Module, compiled: bool) -> Callable[..., Any]:
    return torch.compile(model) if compiled else model


def _autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)


def _from_checkout(folder: Path, module: str) -> Any:
    if not folder.is_dir():
        raise FileNotFoundError(f"no checkout at {folder}")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return importlib.import_module(module)
