"""How fast this machine trains a model, and how much it computes, by doing a little of it.

Only called where something is to be measured; torch is imported then.
"""

import time
from typing import TYPE_CHECKING

from hornbook.model.config import ModelConfig
from hornbook.planning.flops import flops_per_token
from hornbook.planning.hardware import Device
from hornbook.planning.memory import rows_that_fit
from hornbook.recipe_training import TrainingSection

if TYPE_CHECKING:
    from hornbook.model.transformer import Transformer

_LONGEST_SECONDS = 4.0
_MOST_TOKENS_AT_ONCE = 8192
_STEPS = 3


def measured_utilisation(config: ModelConfig, section: TrainingSection, device: Device) -> float | None:
    """The share of the machine's rate that steps of this very training reach, the best of a few, without compiling.

    None where a step would take too long to be measured in a few seconds.
    """
    row_tokens = section.row_tokens or config.max_seq_len
    rows = min(
        rows_that_fit(config, section, device.memory_bytes or 2**62, device.kind),
        max(1, _MOST_TOKENS_AT_ONCE // row_tokens),
    )
    operations = rows * row_tokens * flops_per_token(config, row_tokens).model
    if rows == 0 or (_STEPS + 1) * operations / (0.1 * device.flops_per_second) > 4 * _LONGEST_SECONDS:
        return None
    import torch

    from hornbook.batching.packing import Batch
    from hornbook.model.init import init_weights
    from hornbook.model.transformer import Transformer
    from hornbook.objectives.next_token import NextToken
    from hornbook.runtime import pick_device, pick_dtype, torch_generator
    from hornbook.training.optimizers import build_optimizer

    target = pick_device("auto")
    dtype = pick_dtype(section.precision, target)
    model = Transformer(config)
    init_weights(model, seed=1)
    model.to(target)
    optimizer = build_optimizer(model, section)
    ids = torch.randint(config.vocab_size, (rows, row_tokens), generator=torch_generator("probe"))
    places = torch.arange(row_tokens).expand_as(ids)
    batch = Batch(input_ids=ids, labels=ids, position_ids=places, document_ids=torch.zeros_like(ids)).to(target)
    began, seconds = time.perf_counter(), []
    for step in range(_STEPS + 1):
        started = time.perf_counter()
        with torch.autocast(target.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss_sum, _ = NextToken().loss_sum(model, batch)
        (loss_sum / ids.numel()).backward()
        computed = time.perf_counter() - started
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        float(loss_sum.detach())  # a device works in the background until a value is asked for
        if step:
            # One update for all rows of a step, of which these may be a part.
            share = min(1.0, rows * row_tokens / section.global_batch_tokens)
            seconds.append(computed + share * (time.perf_counter() - started - computed))
        if seconds and time.perf_counter() - began > _LONGEST_SECONDS:
            break
    return operations / min(seconds) / device.flops_per_second


def counted_flops_per_token(model: "Transformer", row_tokens: int, section: TrainingSection) -> float:
    """The operations of forward and backward for one token, as torch's own counter sees them on one row of this model.

    Leaves no gradient behind. Attention is counted by its formula, since the counter does not know every kernel.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from hornbook.batching.packing import Batch
    from hornbook.objectives.next_token import NextToken
    from hornbook.parallel.recompute import recomputed

    ids = torch.zeros(1, row_tokens, dtype=torch.int64, device=model.head_weight.device)
    batch = Batch(input_ids=ids, labels=ids, position_ids=ids, document_ids=ids)
    # The kept results of selective recomputation are those of fused attention, which the formula stands for here.
    layers = model.model.layers
    again = recomputed(layers, "full" if section.recompute == "full" else "none")
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, again:
        NextToken().loss_sum(model, batch)[0].backward()
    model.zero_grad(set_to_none=True)
    return counter.get_total_flops() / row_tokens
