"""Compiling layer by layer: one code for all layers, used within the block alone."""

import torch
from torch._dynamo.utils import counters

from hornbook.batching.packing import Batch
from hornbook.model.config import config_from_recipe
from hornbook.model.init import init_weights
from hornbook.model.transformer import Transformer
from hornbook.objectives.next_token import NextToken
from hornbook.parallel.compiled import CompiledLayers
from hornbook.recipe_data import ModelSection


def test_all_layers_run_one_compiled_code_within_the_block_and_none_outside() -> None:
    section = ModelSection(preset="llama", n_layers=3, d_model=32, n_heads=2, max_seq_len=16)
    model = Transformer(config_from_recipe(section, 50))
    init_weights(model, seed=1)
    ids = torch.arange(32).view(2, 16)
    batch = Batch(ids, ids, torch.arange(16).expand(2, -1), torch.zeros_like(ids))
    compiled = CompiledLayers(model, torch.device("cpu"), torch.float32)
    plain, _ = NextToken().loss_sum(model, batch)

    counters.clear()
    with compiled.attached():
        loss, _ = NextToken().loss_sum(model, batch)
    assert counters["stats"]["unique_graphs"] == 1
    assert torch.isclose(loss, plain, rtol=1e-5)

    counters.clear()
    again, _ = NextToken().loss_sum(model, batch)
    assert not counters["stats"]
    assert torch.equal(again, plain)
