"""Learning rates that hold at every width: the coordinate check of Yang et al. (arXiv 2203.03466, appendix D.1).

After some steps the numbers in each layer's output must have moved equally far whatever the width. Muon's rate does
that as it is; the rate of the embedding, whose rows have length 1, so that its entries shrink with the root of the
width, has to go down with that root.
"""

import math

import pytest
import torch

from hornbook.batching.packing import Batch
from hornbook.model.config import config_from_recipe
from hornbook.model.init import init_weights
from hornbook.model.transformer import Transformer
from hornbook.objectives.next_token import NextToken
from hornbook.recipe_data import ModelSection
from hornbook.recipe_training import PretrainSection
from hornbook.training.optimizers import build_optimizer

WIDTHS = (32, 64, 128, 256)
N_STEPS, N_ROWS, ROW_TOKENS, VOCAB_SIZE = 4, 4, 32, 61


def _batch() -> Batch:
    ids = torch.randint(0, VOCAB_SIZE, (N_ROWS, ROW_TOKENS + 1), generator=torch.Generator().manual_seed(3))
    positions = torch.arange(ROW_TOKENS).repeat(N_ROWS, 1)
    return Batch(ids[:, :-1], ids[:, 1:], positions, torch.zeros_like(positions))


def _movement(width: int, lr: float) -> tuple[float, float]:
    """How far training moved the last layer's output and the embedding, each over its own size at the start."""
    section = ModelSection(preset="qwen3", n_layers=2, d_model=width, n_heads=width // 16, max_seq_len=ROW_TOKENS)
    model = Transformer(config_from_recipe(section, VOCAB_SIZE))
    init_weights(model, seed=0)
    batch = _batch()
    training = PretrainSection(tokens=128, global_batch_tokens=128, optimizer="muon", lr=lr, muon_lr=0.02)
    optimizer = build_optimizer(model, training)
    kept: list[torch.Tensor] = []
    hook = model.model.layers[-1].register_forward_hook(lambda layer, inputs, output: kept.append(output.detach()))
    embedding = model.model.embed_tokens.weight.detach().clone()
    for _ in range(N_STEPS):
        loss, _ = NextToken().loss_sum(model, batch)
        (loss / NextToken().count(batch)).backward()
        optimizer.step()
        optimizer.zero_grad()
    model(batch.input_ids)
    hook.remove()
    moved = model.model.embed_tokens.weight - embedding
    return ((kept[-1] - kept[0]).norm() / kept[0].norm()).item(), (moved.norm() / embedding.norm()).item()


def test_outputs_move_equally_far_at_every_width_where_lr_goes_with_its_root() -> None:
    outputs, embeddings = zip(*(_movement(width, 0.01 * math.sqrt(64 / width)) for width in WIDTHS), strict=True)

    assert max(outputs) / min(outputs) < 1.5
    assert max(embeddings) / min(embeddings) < 1.2


def test_with_the_same_lr_the_embedding_of_a_wider_model_moves_further() -> None:
    (_, narrow), (_, wide) = (_movement(width, 0.01) for width in (32, 256))

    assert wide / narrow == pytest.approx(math.sqrt(256 / 32), rel=0.2)
