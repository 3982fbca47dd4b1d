"""Masks in blocks: they let every token see what the dense ones do; on a GPU, so do the trained gradients."""

import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_mask

from hornbook.batching.packing import Batch
from hornbook.model.attention import masks_by_window
from hornbook.model.block_masks import block_masks_by_window
from hornbook.model.config import ModelConfig, config_from_recipe
from hornbook.model.init import init_weights
from hornbook.model.transformer import Transformer
from hornbook.objectives.next_token import NextToken
from hornbook.parallel.compiled import CompiledLayers
from hornbook.parallel.recompute import Recompute, recomputed
from hornbook.recipe_data import ModelSection

CPU = torch.device("cpu")
ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


def _config(**fields) -> ModelConfig:
    shape = {"preset": "llama", "n_layers": 2, "d_model": 128, "n_heads": 4, "n_kv_heads": 2, "max_seq_len": 512}
    return config_from_recipe(ModelSection(**(shape | fields)), 512)


def _documents(n_rows: int, n_tokens: int) -> Tensor:
    """Documents of 1 to some 100 tokens, another draw for each row."""
    starts = torch.rand(n_rows, n_tokens, generator=torch.Generator().manual_seed(1)) < 0.02
    return starts.long().cumsum(1)


@pytest.mark.parametrize("window", [None, 40])
def test_they_show_each_token_what_the_dense_ones_show(window: int | None) -> None:
    config = _config() if window is None else _config(preset="qwen3", sliding_window=window)
    documents = _documents(3, 256)

    dense = masks_by_window(config, 256, CPU, documents)
    blocks = block_masks_by_window(config, 256, CPU, documents)

    assert list(blocks) == list(dense)
    for window_tokens, mask in blocks.items():
        assert isinstance(mask, BlockMask)
        assert torch.equal(create_mask(mask.mask_mod, 3, 1, 256, 256, device="cpu"), dense[window_tokens])


def test_blocks_without_a_pair_that_sees_each_other_are_left_out() -> None:
    documents = torch.arange(512)[None] // 128

    mask = block_masks_by_window(_config(), 512, CPU, documents)[None]

    assert isinstance(mask, BlockMask)
    assert torch.equal(mask.to_dense()[0, 0], torch.eye(4, dtype=torch.int32))


@pytest.mark.parametrize(("n_tokens", "has_documents"), [(100, True), (256, False)])
def test_rows_that_blocks_do_not_fit_or_serve_keep_the_plain_ones(n_tokens: int, has_documents: bool) -> None:
    documents = _documents(1, n_tokens) if has_documents else None

    masks = block_masks_by_window(_config(), n_tokens, CPU, documents)

    assert not any(isinstance(mask, BlockMask) for mask in masks.values())


@ON_GPU
@pytest.mark.parametrize("what", ["none", "selective", "full"])
@pytest.mark.parametrize("preset", ["llama", "qwen3"])
def test_on_a_gpu_they_cost_no_accuracy(preset: str, what: Recompute) -> None:
    """Gradients in bfloat16 are about as near to those in float32 as the plain run's with dense masks."""
    device = torch.device("cuda")
    model = Transformer(_config(preset=preset)).to(device)
    init_weights(model, seed=1)
    ids = torch.randint(512, (4, 257), generator=torch.Generator().manual_seed(1)).to(device)
    positions = torch.arange(256, device=device).expand(4, -1)
    batch = Batch(ids[:, :-1], ids[:, 1:], positions, _documents(4, 256).to(device))

    exact = _gradients(model, NextToken(), batch)
    with torch.autocast("cuda", torch.bfloat16):
        plain = _gradients(model, NextToken(), batch)
        with recomputed(model.model.layers, what), CompiledLayers(model, device, torch.bfloat16).attached():
            in_blocks = _gradients(model, NextToken().compiled(), batch)

    for wanted, usual, found in zip(exact, plain, in_blocks, strict=True):
        assert (found - wanted).norm() < 1.5 * (usual - wanted).norm() + 1e-3 * wanted.norm()


def _gradients(model: Transformer, objective: NextToken, batch: Batch) -> list[Tensor]:
    loss_sum, _ = objective.loss_sum(model, batch)
    return list(torch.autograd.grad(loss_sum, list(model.parameters())))
