"""What one step of training really holds in memory, by torch's own tracker."""

from contextlib import nullcontext
from typing import Any

import torch
from torch.distributed._tools.mem_tracker import MemTracker

from hornbook.batching.packing import Batch
from hornbook.model.config import ModelConfig, config_from_recipe
from hornbook.model.init import init_weights
from hornbook.model.transformer import Transformer
from hornbook.objectives.next_token import NextToken
from hornbook.parallel.recompute import recomputed
from hornbook.recipe_data import ModelSection
from hornbook.recipe_training import PretrainSection, TrainingSection
from hornbook.training.optimizers import build_optimizer

CPU = torch.device("cpu")


def measured_peak_bytes(config: ModelConfig, section: TrainingSection, n_rows: int, device: torch.device = CPU) -> int:
    """The peak of one step as the trainer makes it, `n_rows` at once, everything counted but the program itself.

    On a GPU it is what torch's allocator gave out beyond the working space of its libraries.
    """
    if device.type == "cuda":
        _open_libraries(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        _step(config, section, n_rows, device, tracker=None)
        return torch.cuda.max_memory_allocated(device) - before
    tracker = MemTracker()
    _step(config, section, n_rows, device, tracker)
    return tracker.get_tracker_snapshot("peak")[device]["Total"]


def _step(
    config: ModelConfig, section: TrainingSection, n_rows: int, device: torch.device, tracker: MemTracker | None
) -> None:
    model = Transformer(config).to(device)
    init_weights(model, seed=1)
    optimizer = build_optimizer(model, section)
    rows, row_tokens = section.global_batch_tokens // section.row_tokens, section.row_tokens
    ids = torch.randint(config.vocab_size, (rows, row_tokens), generator=torch.Generator().manual_seed(1)).to(device)
    positions = torch.arange(row_tokens, device=device).expand_as(ids)
    batch = Batch(input_ids=ids, labels=ids, position_ids=positions, document_ids=torch.zeros_like(ids))
    objective = NextToken()
    if tracker is not None:
        tracker.track_external(model, optimizer)
    with tracker or nullcontext(), recomputed(model.model.layers, section.recompute):
        for start in range(0, rows, n_rows):
            if tracker is not None:
                tracker.reset_mod_stats()  # of the modules; the peak goes on
            micro_batch = batch.rows(start, min(start + n_rows, rows))
            with torch.autocast(device.type, torch.bfloat16, enabled=section.precision != "float32"):
                loss_sum, _ = objective.loss_sum(model, micro_batch)
            (loss_sum / ids.numel()).backward()
            del loss_sum
        torch.nn.utils.clip_grad_norm_(model.parameters(), section.clip_norm, foreach=True)
        optimizer.step()


def _open_libraries(device: torch.device) -> None:
    """Have the libraries of products take their working space, which they keep."""
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.ones(256, 256, device=device, dtype=dtype, requires_grad=True)
        torch.addmm(matrix[0], matrix, matrix).sum().backward()
    torch.cuda.synchronize(device)


def _config(vocab_size: int = 512, **fields: Any) -> ModelConfig:
    shape = {"preset": "llama", "n_layers": 4, "d_model": 64, "n_heads": 4, "max_seq_len": 1024}
    return config_from_recipe(ModelSection(**(shape | fields)), vocab_size)


def _section(**fields: Any) -> PretrainSection:
    usual = {"tokens": 65536, "global_batch_tokens": 1024, "row_tokens": 128}
    return PretrainSection(**(usual | {"precision": "float32", "optimizer": "adamw"} | fields))


CASES: dict[str, tuple[ModelConfig, PretrainSection, int]] = {
    "all rows at once": (_config(), _section(), 8),
    "in four parts": (_config(), _section(), 2),
    "muon": (_config(), _section(optimizer="muon"), 8),
    "full recomputation": (_config(), _section(recompute="full"), 8),
    "selective recomputation": (_config(), _section(recompute="selective"), 8),
    "gpt2 in two parts": (_config(preset="gpt2"), _section(), 4),
    "qwen3, selective, muon": (
        _config(preset="qwen3", n_kv_heads=2),
        _section(recompute="selective", optimizer="muon"),
        4,
    ),
    "a vocabulary of 8,192": (_config(8192), _section(), 2),
    "a head of its own": (_config(8192, tie_embeddings=False), _section(), 8),
    "where the update is the peak": (_config(n_layers=8, d_model=128), _section(optimizer="muon"), 1),
    "bfloat16": (_config(n_layers=2, d_model=192, d_ff=800), _section(precision="bfloat16"), 4),
    "bfloat16, full recomputation": (_config(n_layers=6), _section(precision="bfloat16", recompute="full"), 8),
    "bfloat16, long rows": (
        _config(preset="qwen3"),
        _section(row_tokens=600, global_batch_tokens=2400, precision="bfloat16"),
        2,
    ),
    "full recomputation in parts": (
        _config(n_layers=6, d_model=96),
        _section(row_tokens=256, global_batch_tokens=2048, recompute="full"),
        2,
    ),
    "a vocabulary of 32,000": (_config(32000), _section(), 4),
    "gpt2, bfloat16, selective": (
        _config(preset="gpt2", n_layers=6, d_model=96),
        _section(precision="bfloat16", recompute="selective"),
        8,
    ),
}
"""Model, training and rows at once: sizes, vocabularies, micro-batches, recomputation, optimizers and types."""


def _large(**fields: Any) -> ModelConfig:
    return _config(**({"vocab_size": 32768, "n_layers": 12, "d_model": 768, "n_heads": 12} | fields))


def _long(**fields: Any) -> PretrainSection:
    return _section(**({"global_batch_tokens": 16384, "row_tokens": 1024, "precision": "bfloat16"} | fields))


GPU_CASES: dict[str, tuple[ModelConfig, PretrainSection, int]] = {
    "all rows at once": (_large(), _long(), 16),
    "in four parts": (_large(), _long(), 4),
    "float32": (_large(), _long(precision="float32"), 8),
    "muon": (_large(), _long(optimizer="muon"), 4),
    "full recomputation": (_large(), _long(recompute="full"), 16),
    "selective recomputation": (_large(), _long(recompute="selective"), 16),
    "gpt2": (_large(preset="gpt2"), _long(), 8),
    "gpt2, float32, selective": (_large(preset="gpt2"), _long(precision="float32", recompute="selective"), 8),
    "qwen3, muon, selective": (
        _large(preset="qwen3", n_kv_heads=4),
        _long(optimizer="muon", recompute="selective"),
        16,
    ),
    "a vocabulary of 131,072": (_large(vocab_size=131072, n_layers=4), _long(), 8),
    "a head of its own": (_large(tie_embeddings=False), _long(), 8),
    "where the update is the peak": (_large(n_layers=24, d_model=1024, n_heads=16), _long(optimizer="muon"), 1),
    "half a billion, long rows": (
        _large(n_layers=24, d_model=1280, n_heads=20, max_seq_len=4096),
        _long(row_tokens=4096, recompute="full"),
        4,
    ),
}
"""The same for a GPU, where a model is not small."""
