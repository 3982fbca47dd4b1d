"""A model is cut into stages of about the same cost, and each is a part of itself."""

import pytest
import torch

from hornbook.model.config import config_from_recipe
from hornbook.model.init import init_weights
from hornbook.model.transformer import Transformer
from hornbook.parallel.stages import Received, cut_layers, stage_layers, stage_of
from hornbook.recipe_data import ModelSection


def _model(**fields: object) -> Transformer:
    section = {"n_layers": 4, "d_model": 8, "n_heads": 2, "max_seq_len": 6} | fields
    model = Transformer(config_from_recipe(ModelSection(**section), vocab_size=19))
    init_weights(model, seed=0)
    return model


def test_equal_layers_are_cut_evenly() -> None:
    assert cut_layers([1.0] * 8, 4, 0, 0) == [range(2), range(2, 4), range(4, 6), range(6, 8)]


def test_a_dear_head_is_given_fewer_layers() -> None:
    cuts = cut_layers([1.0] * 8, 2, before=0, after=3.0)

    assert cuts == [range(6), range(6, 8)] or cuts == [range(5), range(5, 8)]
    assert max(len(cuts[0]), len(cuts[1]) + 3) == 6


@pytest.mark.parametrize("n_stages", [1, 2, 3, 5, 7])
def test_every_layer_is_in_one_stage_and_no_stage_is_empty(n_stages: int) -> None:
    cuts = cut_layers([1.0, 5.0, 1.0, 1.0, 2.0, 1.0, 9.0], n_stages, before=0.5, after=20.0)

    assert [layer for layers in cuts for layer in layers] == list(range(7))
    assert len(cuts) == n_stages
    assert all(cuts)


def test_no_other_cut_has_a_cheaper_dearest_stage() -> None:
    costs, before, after = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0], 2.0, 4.0

    def dearest(first: int, second: int) -> float:
        return max(before + sum(costs[:first]), sum(costs[first:second]), after + sum(costs[second:]))

    best = min(dearest(first, second) for first in range(1, 7) for second in range(first + 1, 8))
    cuts = cut_layers(costs, 3, before, after)
    assert dearest(cuts[1].start, cuts[2].start) == best


@pytest.mark.parametrize("fields", [{}, {"preset": "gpt2"}, {"tie_embeddings": False}], ids=["tied", "gpt2", "untied"])
def test_stages_one_after_the_other_compute_what_the_model_does(fields: dict[str, object]) -> None:
    model = _model(**fields)
    ids = torch.randint(0, 19, (2, 6), generator=torch.Generator().manual_seed(0))
    positions = torch.tensor([[0, 1, 2, 0, 1, 2]]).expand(2, 6)
    documents = torch.tensor([[0, 0, 0, 1, 1, 1]]).expand(2, 6)
    stages = [stage_of(model, layers) for layers in (range(1), range(1, 3), range(3, 4))]

    x = None
    for stage in stages:
        if isinstance(stage.model.embed_tokens, Received):
            stage.model.embed_tokens.hidden = x
        x = stage(ids, positions, documents)

    assert torch.equal(x, model(ids, positions, documents))
    assert torch.equal(stages[-1].logits(x), model.logits(x))


def test_weights_keep_their_names_and_only_a_tied_matrix_is_held_twice() -> None:
    model = _model()
    names = [name for layers in stage_layers(model, 2) for name, _ in stage_of(model, layers).named_parameters()]

    assert set(names) == {name for name, _ in model.named_parameters()}
    assert [name for name in set(names) if names.count(name) > 1] == ["model.embed_tokens.weight"]
