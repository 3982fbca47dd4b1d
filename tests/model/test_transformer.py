from collections.abc import Callable
from typing import Any

import pytest
import torch

from hornbook.model import attention
from hornbook.model.attention import fused_attention, reference_attention
from hornbook.model.transformer import Transformer
from hornbook.recipe_data import RopeScalingSection

SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {"preset": "gpt2"},
    "llama": {"preset": "llama"},
    "llama3 stretched": {"preset": "llama3", "rope_scaling": RopeScalingSection(factor=4.0, original_max_seq_len=16)},
    "qwen3": {"preset": "qwen3"},
    "qwen3 with a sliding window": {"preset": "qwen3", "sliding_window": 4, "full_attention_every": 2},
}
EVERY_SHAPE = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
BACKENDS = pytest.mark.parametrize("backend", [fused_attention, reference_attention], ids=["fused", "written out"])
LENGTHS = (7, 5, 9, 3)  # of the documents in a row; the last one stands for padding


@pytest.fixture
def packed() -> tuple[torch.Tensor, torch.Tensor]:
    """Position ids and document ids, each (1,24), of one row that holds several documents."""
    position_ids = torch.cat([torch.arange(length) for length in LENGTHS])
    document_ids = torch.cat([torch.full((length,), index) for index, length in enumerate(LENGTHS)])
    return position_ids[None], document_ids[None]


def influence_on(position: int, model: Transformer, token_ids: torch.Tensor) -> torch.Tensor:
    """(T,): how much each token's embedding has to do with the logits at a position, by their gradient."""
    embedded: list[torch.Tensor] = []

    def keep(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
        output.retain_grad()
        embedded.append(output)

    model.model.embed_tokens.register_forward_hook(keep)
    model.logits(model(token_ids))[:, position].square().sum().backward()
    return embedded[0].grad.abs().sum((0, 2))


@EVERY_SHAPE
def test_a_later_token_never_changes_an_earlier_logit(
    shape: dict[str, Any], make_model: Callable[..., Transformer], token_ids: torch.Tensor
):
    influence = influence_on(10, make_model(**shape), token_ids)
    assert (influence[:11] > 0).all()
    assert (influence[11:] == 0).all()


def test_a_window_in_each_of_two_layers_reaches_back_twice_as_far_and_no_further(
    make_model: Callable[..., Transformer], token_ids: torch.Tensor
):
    model = make_model(preset="qwen3", sliding_window=4, full_attention_every=3)
    assert influence_on(20, model, token_ids).nonzero().flatten().tolist() == list(range(20 - 2 * 3, 21))


def test_a_window_as_long_as_the_row_changes_nothing(make_model: Callable[..., Transformer], token_ids: torch.Tensor):
    wide, full = make_model(preset="qwen3", sliding_window=24), make_model(preset="qwen3")
    assert torch.equal(wide(token_ids), full(token_ids))


@EVERY_SHAPE
@BACKENDS
def test_changing_one_document_changes_no_logit_of_its_neighbours(
    shape: dict[str, Any],
    backend: Callable[..., torch.Tensor],
    make_model: Callable[..., Transformer],
    token_ids: torch.Tensor,
    packed: tuple[torch.Tensor, torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(attention, "attend", backend)
    model, ids = make_model(**shape), token_ids[:1]
    changed_ids = ids.clone()
    changed_ids[:, 7:12] = (ids[:, 7:12] + 1) % 61
    before, after = (model.logits(model(row, *packed)) for row in (ids, changed_ids))
    neighbours = torch.ones(24, dtype=torch.bool)
    neighbours[7:12] = False
    assert torch.equal(before[:, neighbours], after[:, neighbours])
    assert (before[:, 7:12] != after[:, 7:12]).any(-1).all()


@EVERY_SHAPE
def test_a_packed_document_gives_the_logits_that_it_gives_alone(
    shape: dict[str, Any],
    make_model: Callable[..., Transformer],
    token_ids: torch.Tensor,
    packed: tuple[torch.Tensor, torch.Tensor],
):
    model, ids = make_model(**shape), token_ids[:1]
    together = model.logits(model(ids, *packed))
    alone = torch.cat([model.logits(model(document)) for document in ids.split(LENGTHS, dim=1)], dim=1)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5 * alone.abs().max().item())


def test_padding_gives_no_nan_forward_or_backward(make_model: Callable[..., Transformer]):
    model = make_model()
    all_padding = torch.zeros(2, 6, dtype=torch.int64)
    hidden = model(all_padding, torch.arange(6).expand(2, 6), torch.full((2, 6), 5))
    hidden.sum().backward()
    assert hidden.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_one_document_without_ids_equals_one_document_with_them(
    make_model: Callable[..., Transformer], token_ids: torch.Tensor
):
    model = make_model()
    with_ids = model(token_ids, torch.arange(24).expand(2, 24), torch.zeros(2, 24, dtype=torch.int64))
    torch.testing.assert_close(model(token_ids), with_ids)


def test_the_same_input_gives_the_same_bits_twice(make_model: Callable[..., Transformer], token_ids: torch.Tensor):
    model = make_model()
    assert torch.equal(model(token_ids), model(token_ids))


def test_tied_embeddings_are_one_matrix_and_untied_ones_two(make_model: Callable[..., Transformer]):
    tied, untied = make_model(tie_embeddings=True), make_model(tie_embeddings=False)
    assert tied.head_weight is tied.model.embed_tokens.weight
    assert "lm_head.weight" not in tied.state_dict()
    assert untied.head_weight is not untied.model.embed_tokens.weight
    assert "lm_head.weight" in untied.state_dict()


@EVERY_SHAPE
@pytest.mark.parametrize("is_packed", [False, True], ids=["causal", "packed"])
def test_the_forward_pass_is_one_graph_for_the_compiler(
    shape: dict[str, Any],
    is_packed: bool,
    make_model: Callable[..., Transformer],
    token_ids: torch.Tensor,
    packed: tuple[torch.Tensor, torch.Tensor],
):
    model = make_model(**shape)
    arguments = (token_ids[:1], *packed) if is_packed else (token_ids[:1],)
    torch.compiler.reset()  # it compiles one function for a few models only
    one_graph = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(one_graph(*arguments), model(*arguments))


@EVERY_SHAPE
def test_autocast_to_bfloat16_stays_near_float32(
    shape: dict[str, Any],
    make_model: Callable[..., Transformer],
    token_ids: torch.Tensor,
    packed: tuple[torch.Tensor, torch.Tensor],
):
    model, ids = make_model(**shape), token_ids[:1]
    exact = model(ids, *packed)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(ids, *packed)
    assert rounded.dtype == torch.float32  # the residual stream keeps the parameters' dtype
    assert 0 < (rounded - exact).norm() / exact.norm() < 0.03
