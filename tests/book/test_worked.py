"""The worked examples are what the code that they explain computes. Tolerance: float64 against float64, 1e-12, where
the code computes in float32 1e-6."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from hornbook.book.worked import answers, costs, network, text, training
from hornbook.model.attention import causal_mask, reference_attention
from hornbook.model.config import config_from_recipe
from hornbook.model.normalization import LayerNorm, RMSNorm
from hornbook.model.rotary import rotary_angles, rotate
from hornbook.model.transformer import Transformer
from hornbook.objectives.objective import chunked_cross_entropy_sum
from hornbook.recipe_data import ModelSection
from hornbook.training.optimizers import MuonWithAdamW, orthogonalize


def test_attention_is_the_models():
    example = network.attention()
    q, k, v = (torch.tensor(example[name])[None, None] for name in ("q", "k", "v"))
    result = reference_attention(q, k, v, causal_mask(3, q.device))
    assert result[0, 0].numpy() == pytest.approx(np.array(example["result"]), abs=1e-6)


def test_rotation_is_the_models_and_depends_on_distance_alone():
    example = network.rotation()
    config = config_from_recipe(
        ModelSection(preset="llama", n_layers=1, d_model=4, n_heads=1, max_seq_len=16, rope_theta=example["theta"]), 300
    )
    for position, name, vector in ((3, "q_at_3", "q"), (1, "k_at_1", "k"), (7, "q_at_7", "q"), (5, "k_at_5", "k")):
        angles = rotary_angles(torch.tensor([[position]]), config)
        turned = rotate(torch.tensor(example[vector])[None, None, None], *angles)
        assert turned.flatten().numpy() == pytest.approx(np.array(example[name]), abs=1e-6)
    assert example["score_3_1"] == pytest.approx(example["score_7_5"], abs=1e-12)
    assert example["score_3_1"] != pytest.approx(example["score_7_1"], abs=0.1)


@pytest.mark.parametrize(("kind", "name"), [(RMSNorm, "rmsnorm"), (LayerNorm, "layernorm")])
def test_norms_are_the_models(kind, name):
    example = network.norms()
    normalised = kind(4, eps=0.0)(torch.tensor(example["x"], dtype=torch.float64))
    assert normalised.detach().numpy() == pytest.approx(np.array(example[name]), abs=1e-12)


def test_bends_are_torchs():
    example = network.activations()
    x = torch.tensor(example["x"], dtype=torch.float64)
    assert nn.functional.gelu(x, approximate="tanh").numpy() == pytest.approx(np.array(example["gelu"]), abs=1e-12)
    assert nn.functional.silu(x).numpy() == pytest.approx(np.array(example["silu"]), abs=1e-12)


def test_cross_entropy_and_its_gradient_are_the_objectives():
    example = training.cross_entropy()
    hidden = torch.tensor([[example["logits"]]], dtype=torch.float64, requires_grad=True)
    head = torch.eye(4, dtype=torch.float64)
    loss = chunked_cross_entropy_sum(hidden, head, torch.tensor([[training.LOSS_LABEL]]))
    loss.backward()
    assert loss.item() == pytest.approx(example["loss_nats"], abs=1e-12)
    assert hidden.grad[0, 0].numpy() == pytest.approx(np.array(example["gradient"]), abs=1e-12)


def test_adamw_is_the_optimizers():
    example = training.adamw()
    weight = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    betas = (example["beta1"], example["beta2"])
    optimizer = MuonWithAdamW(
        [{"params": [weight], "kind": "adamw", "lr": example["lr"], "betas": betas, "weight_decay": example["decay"]}]
    )
    for step in example["steps"]:
        weight.grad = torch.tensor([step["gradient"]], dtype=torch.float64)
        optimizer.step()
        assert weight.item() == pytest.approx(step["weight"], abs=1e-12)


def test_newton_schulz_is_muons():
    example = training.newton_schulz()
    result = orthogonalize(torch.tensor([example["start"]], dtype=torch.float64))[0]
    assert result.numpy() == pytest.approx(np.array(example["result"]), abs=1e-9)
    assert all(0.6 < value < 1.25 for value in example["singular_values"][-1])


def test_byte_pairs_count_what_each_merge_saves():
    example = text.byte_pairs()
    tokens = example["n_bytes"]
    for step in example["steps"]:
        assert step["tokens_after"] == tokens - step["count"]
        tokens = step["tokens_after"]
    assert tokens == example["n_tokens"]
    assert "".join(example["new_word"]) == "␣lowest"


@pytest.mark.parametrize(("name", "published"), [("124M", 124_439_808), ("1B", 1_235_814_400), ("8B", 8_030_261_248)])
def test_budgets_are_of_the_published_sizes(name, published):
    assert costs.budget(name)["parameters"] == published
    with torch.device("meta"):
        model = Transformer(costs.shape(name))
    assert sum(parameter.numel() for parameter in model.parameters()) == published


def test_the_best_size_is_the_bottom_of_the_valley():
    best, tokens = costs.best_size(1e20)
    assert 6 * best * tokens == pytest.approx(1e20)
    for factor in (0.9, 1.1):
        other = best * factor
        assert costs.chinchilla_loss(other, 1e20 / 6 / other) > costs.chinchilla_loss(best, tokens)


def test_number_formats_are_torchs():
    for name, example in training.number_formats().items():
        info = torch.finfo(getattr(torch, name))
        assert example["next_after_one"] == 1 + info.eps
        assert example["largest_power_of_ten"] == math.floor(math.log10(info.max))


def test_backpropagation_is_torchs():
    example = training.backpropagation()
    w, u = (torch.tensor(example[name], dtype=torch.float64, requires_grad=True) for name in ("w", "u"))
    loss = (u * torch.relu(w * example["x"]) - example["target"]) ** 2
    loss.backward()
    assert (loss.item(), w.grad.item(), u.grad.item()) == pytest.approx(
        (example["loss"], example["by_w"], example["by_u"]), abs=1e-12
    )


def test_the_packed_row_is_the_batchs():
    from hornbook.batching.packing import fill, plan_rows
    from hornbook.batching.shards import DocumentTokens, MemoryDocuments

    example = training.packed_row()
    documents = MemoryDocuments([DocumentTokens(ids, 0, None) for ids in ([11, 12, 13, 14], [21, 22, 23])])
    batch = fill(plan_rows(np.array([4, 3]), 8), documents, 8, pad_id=0)
    for name, values in example.items():
        assert getattr(batch, name)[0].tolist() == values


def test_advantages_are_the_objectives():
    from hornbook.objectives import policy

    example = answers.group_advantages()
    rewards = torch.tensor(example["rewards"], dtype=torch.float64)
    computed = policy.group_advantages(rewards, len(rewards))
    assert computed.numpy() == pytest.approx(np.array(example["advantages"]), abs=1e-12)
    assert policy._ADVANTAGE_EPSILON == answers.ADVANTAGE_EPSILON


def test_the_pair_has_the_objectives_loss(monkeypatch):
    from hornbook.objectives import preference

    example = answers.dpo()
    labels = torch.tensor([[1], [1]])
    batch = preference.PairBatch(
        input_ids=labels, labels=labels, position_ids=labels, document_ids=labels,
        reference_log_probabilities=torch.tensor(
            [[example["reference_chosen"]], [example["reference_rejected"]]], dtype=torch.float64
        ),
    )  # fmt: skip
    given = torch.tensor([[example["chosen"]], [example["rejected"]]], dtype=torch.float64)
    monkeypatch.setattr(preference, "token_log_probabilities", lambda model, batch: given)
    loss, sums = preference.DirectPreference(example["beta"]).loss_sum(None, batch)
    assert loss.item() == pytest.approx(example["loss"], abs=1e-12)
    assert sums["margin"].item() == pytest.approx(example["margin"], abs=1e-12)


@pytest.mark.parametrize(
    ("row", "options"),
    [("plain", {}), ("cool", {"temperature": 0.7}), ("top_two", {"top_k": 2}), ("nucleus", {"top_p": 0.9})],
)
def test_sampling_draws_with_the_probabilities_of_the_table(row, options):
    from hornbook.inference.sampling import Sampling

    example = answers.sampling()
    # One number in the middle of each hundredth of the line: what falls to a token is its probability.
    uniform = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    scores = torch.tensor(example["scores"]).expand(len(uniform), -1)
    chosen = Sampling(**({"temperature": 1.0} | options)).choose(scores, uniform)
    shares = torch.bincount(chosen, minlength=5) / len(uniform)
    assert shares.numpy() == pytest.approx(np.array(example[row]), abs=2e-4)


def test_an_adapter_has_as_many_numbers_as_the_models():
    from hornbook.model.lora import LoraLinear

    example = answers.lora()
    with torch.device("meta"):
        layer = LoraLinear(nn.Linear(example["d_in"], example["d_out"], bias=False), example["rank"], 16.0)
    assert sum(p.numel() for name, p in layer.named_parameters() if "lora" in name) == example["low"]
    assert layer.weight.numel() == example["full"]


def test_two_devices_give_the_whole_feed_forward():
    example = network.split_feed_forward()
    x, up, down = (torch.tensor(example[name], dtype=torch.float64) for name in ("x", "up", "down"))
    assert (down @ torch.relu(up @ x)).tolist() == example["result"]
    assert [a + b for a, b in zip(example["part_1"], example["part_2"], strict=True)] == example["result"]


def test_standard_errors_are_the_evaluations():
    from hornbook.evaluation.scores import standard_error

    example = answers.standard_error()
    for n, error in example["of"].items():
        n_right = round(example["p"] * int(n))
        answered = [True] * n_right + [False] * (int(n) - n_right)
        assert standard_error(answered) == pytest.approx(error, abs=1e-12)


def test_the_cache_is_as_large_as_the_engines():
    from hornbook.inference.cache import RowCache

    example, config = costs.cache_bytes(), costs.shape("8B")
    cache = RowCache(config, 1, 15, torch.bfloat16, torch.device("meta"))  # 16 columns: one takes what padding writes
    assert sum(block.nbytes for block in (*cache.keys, *cache.values)) == 16 * example["bytes_per_token"]
