"""What a layout sends, against what is known of it (tests/parallel/test_traffic.py counts)."""

from typing import Any

import pytest

from hornbook.model.config import ModelConfig, config_from_recipe
from hornbook.planning.communication import step_communication
from hornbook.planning.flops import parameters_by_part
from hornbook.recipe_data import ModelSection
from hornbook.recipe_parallel import ParallelSection


def _config(**fields: Any) -> ModelConfig:
    section = {"preset": "llama", "n_layers": 4, "d_model": 64, "n_heads": 4, "d_ff": 128, "max_seq_len": 16} | fields
    return config_from_recipe(ModelSection(**section), vocab_size=64)


def test_one_process_sends_nothing() -> None:
    assert step_communication(_config(), ParallelSection(shard=1), 1024, 4, weight_bytes=4).total == 0


def test_sharding_gathers_layers_twice_and_scatters_every_gradient_once_for_each_micro_batch() -> None:
    config = _config()
    parts = parameters_by_part(config)
    layers, ends = parts["attention"] + parts["feed_forward"] + parts["norms"], parts["embedding"]

    sent = step_communication(config, ParallelSection(shard=8), 1024, 3, weight_bytes=2)

    assert sent.all_gather == 3 * (2 * 2 * layers + 4 * ends)
    assert sent.reduce_scatter == 3 * 4 * (layers + ends)
    assert sent.all_reduce == sent.send == 0


def test_replicas_add_up_their_gradients_once_a_step_whatever_the_micro_batches() -> None:
    few, many = (
        step_communication(_config(), ParallelSection(replicate=4, shard=2), 1024, count, weight_bytes=4)
        for count in (1, 8)
    )
    assert few.all_reduce == many.all_reduce == 4 * sum(parameters_by_part(_config()).values()) // 2


def test_a_pipeline_sends_each_boundary_twice() -> None:
    section = ParallelSection(pipeline=4, shard=1)
    sent = step_communication(_config(tie_embeddings=False), section, 1024, 16, weight_bytes=4)
    assert 4 * sent.send == 2 * 3 * 1024 * 64 * 4
    assert sent.all_gather == sent.all_reduce == 0


@pytest.mark.parametrize("width", [64, 128])
def test_tensor_parallelism_sends_activations_and_not_weights(width: int) -> None:
    section = ParallelSection(tensor=2, shard=1)
    once, twice = (step_communication(_config(d_model=width), section, n, 1, weight_bytes=4).total for n in (512, 1024))
    assert twice == pytest.approx(2 * once, rel=0.03)
