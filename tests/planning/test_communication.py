"""What a layout sends, against what is known of it (tests/parallel/test_traffic.py counts)."""

from typing import Any

import pytest

from hornbook.model.config import ModelConfig, config_from_recipe
from hornbook.planning.communication import Exchange, step_exchanges
from hornbook.planning.flops import parameters_by_part
from hornbook.planning.layout import Layout
from hornbook.recipe_data import ModelSection


def _config(**fields: Any) -> ModelConfig:
    section = {"preset": "llama", "n_layers": 4, "d_model": 64, "n_heads": 4, "d_ff": 128, "max_seq_len": 16} | fields
    return config_from_recipe(ModelSection(**section), vocab_size=64)


def _bytes(layout: Layout, tokens: int = 1024, micro_batches: int = 1, **fields: Any) -> dict[str, float]:
    """The bytes of a step by kind, in float32."""
    exchanges = list(step_exchanges(_config(**fields), layout, tokens, micro_batches, weight_bytes=4))
    return {
        kind: sum(exchange.n_bytes for exchange in exchanges if exchange.kind == kind)
        for kind in ("all_gather", "reduce_scatter", "all_reduce", "send")
    }


def test_one_process_sends_nothing() -> None:
    assert not any(_bytes(Layout()).values())


def test_sharding_gathers_layers_twice_and_scatters_every_gradient_once_for_each_micro_batch() -> None:
    config = _config()
    parts = parameters_by_part(config)
    layers, ends = parts["attention"] + parts["feed_forward"] + parts["norms"], parts["embedding"]

    gathered, scattered = step_exchanges(config, Layout(shard=8), 1024, 3, weight_bytes=2)

    assert gathered == Exchange("shard", "all_gather", 3 * (2 * 2 * layers + 4 * ends), 8)
    assert scattered == Exchange("shard", "reduce_scatter", 3 * 4 * (layers + ends), 8)


def test_replicas_add_up_their_gradients_once_a_step_whatever_the_micro_batches() -> None:
    few, many = (_bytes(Layout(replicate=4, shard=2), micro_batches=count) for count in (1, 8))
    assert few["all_reduce"] == many["all_reduce"] == 4 * sum(parameters_by_part(_config()).values()) / 2


def test_replicas_without_shards_send_nothing_but_gradients() -> None:
    sent = _bytes(Layout(replicate=2), micro_batches=4)
    assert sent == {
        "all_gather": 0,
        "reduce_scatter": 0,
        "all_reduce": 4 * sum(parameters_by_part(_config()).values()),
        "send": 0,
    }


@pytest.mark.parametrize(("schedule", "boundaries"), [("1f1b", 1), ("interleaved", 3)])
def test_a_pipeline_sends_each_boundary_twice(schedule: Any, boundaries: int) -> None:
    sent = _bytes(Layout(pipeline=2, schedule=schedule), micro_batches=16, tie_embeddings=False)
    assert 2 * sent["send"] == 2 * boundaries * 1024 * 64 * 4
    assert sent["all_gather"] == sent["all_reduce"] == 0


@pytest.mark.parametrize("width", [64, 128])
def test_tensor_parallelism_sends_activations_and_not_weights(width: int) -> None:
    once, twice = (sum(_bytes(Layout(tensor=2), tokens, d_model=width).values()) for tokens in (512, 1024))
    assert twice == pytest.approx(2 * once, rel=0.03)


def test_a_ring_sends_all_but_its_own_part_and_a_sum_goes_round_twice() -> None:
    assert Exchange("shard", "all_gather", 800, among=4).sent_bytes == 600
    assert Exchange("replicate", "all_reduce", 800, among=4).sent_bytes == 1200
    assert Exchange("pipeline", "send", 800, among=4).sent_bytes == 800
