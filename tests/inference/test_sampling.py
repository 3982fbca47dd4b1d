import pytest
import torch
import transformers

from hornbook.errors import UserError
from hornbook.inference.sampling import Sampling

LOGITS = torch.tensor([0.1, 0.4, 0.2, 0.3]).log()
EVERYWHERE = (torch.arange(10_000) + 0.5) / 10_000
"""Random numbers spread evenly, so that shares come out without chance."""


def shares(sampling: Sampling) -> list[float]:
    chosen = sampling.choose(LOGITS.expand(len(EVERYWHERE), -1), EVERYWHERE)
    return (torch.bincount(chosen, minlength=4) / len(EVERYWHERE)).tolist()


def test_temperature_zero_takes_the_best_token():
    assert shares(Sampling(temperature=0.0)) == [0, 1, 0, 0]


def test_a_temperature_next_to_zero_takes_the_best_token():
    assert shares(Sampling(temperature=1e-40)) == [0, 1, 0, 0]
    assert shares(Sampling(temperature=1e-5)) == [0, 1, 0, 0]


def test_scores_as_large_as_numbers_go_are_drawn_from():
    scores = torch.tensor([[1.0, 3.0, 2.0]]) * 1e38
    assert Sampling(temperature=0.1).choose(scores, torch.tensor([0.5])).tolist() == [1]


def test_temperature_one_draws_with_the_models_probabilities():
    assert shares(Sampling(temperature=1.0)) == pytest.approx([0.1, 0.4, 0.2, 0.3], abs=2e-4)


def test_a_lower_temperature_sharpens_by_the_power_of_its_inverse():
    squares = torch.tensor([0.01, 0.16, 0.04, 0.09])
    assert shares(Sampling(temperature=0.5)) == pytest.approx((squares / squares.sum()).tolist(), abs=2e-4)


def test_top_k_draws_among_the_k_best():
    assert shares(Sampling(temperature=1.0, top_k=2)) == pytest.approx([0, 4 / 7, 0, 3 / 7], abs=2e-4)


def test_top_k_beyond_the_vocabulary_changes_nothing():
    assert shares(Sampling(temperature=1.0, top_k=9)) == pytest.approx([0.1, 0.4, 0.2, 0.3], abs=2e-4)


@pytest.mark.parametrize(
    ("top_p", "expected"),
    [
        (0.3, [0, 1, 0, 0]),
        (0.5, [0, 4 / 7, 0, 3 / 7]),
        (0.8, [0, 4 / 9, 2 / 9, 3 / 9]),
        (1.0, [0.1, 0.4, 0.2, 0.3]),
    ],
)
def test_top_p_draws_among_the_fewest_that_reach_it(top_p: float, expected: list[float]):
    assert shares(Sampling(temperature=1.0, top_p=top_p)) == pytest.approx(expected, abs=2e-4)


def test_the_extreme_random_numbers_choose_possible_tokens():
    logits = torch.tensor([-torch.inf, 1.0, 1.0, -torch.inf]).expand(2, -1)
    extremes = torch.tensor([0.0, 1 - 2**-24])
    assert Sampling(temperature=1.0).choose(logits, extremes).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"temperature": -0.5}, "temperature: must be 0 or more, but is -0.5"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_k": 0}, "top_k: must be 1 or more"),
        ({"top_p": 0.0}, "top_p: must be above 0"),
        ({"top_p": 1.5}, "top_p: must be above 0"),
        ({"min_p": 1.5}, "min_p: must be from 0 to 1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty: must be from 0.01 to 100, but is 0.0"),
        ({"repetition_penalty": 1e-40}, "repetition_penalty: must be from 0.01 to 100"),
        ({"repetition_penalty": float("nan")}, "repetition_penalty: must be from 0.01 to 100"),
    ],
)
def test_options_out_of_their_range_are_the_users_mistake(options: dict[str, float], complaint: str):
    with pytest.raises(UserError, match=complaint):
        Sampling(**options)


def test_min_p_draws_among_those_with_that_share_of_the_best():
    assert shares(Sampling(temperature=1.0, min_p=0.6)) == pytest.approx([0, 4 / 7, 0, 3 / 7], abs=2e-4)
    assert shares(Sampling(temperature=1.0, min_p=0.0)) == pytest.approx([0.1, 0.4, 0.2, 0.3], abs=2e-4)


@pytest.mark.parametrize("penalty", [1.3, 0.8])
def test_the_repetition_penalty_is_that_of_transformers(penalty: float):
    logits = torch.tensor([[0.5, -0.5, 2.0, -1.0, 0.0], [1.0, 2.0, -3.0, 0.1, 0.2]])
    texts = [[0, 1, 1], [2, 3, 4]]
    theirs = transformers.RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor(texts), logits)
    assert torch.equal(Sampling(repetition_penalty=penalty).penalise(logits, texts), theirs)


def test_min_p_keeps_the_tokens_that_transformers_keeps():
    scores = torch.randn(20, 50, generator=torch.Generator().manual_seed(1))
    kept = transformers.MinPLogitsWarper(0.2)(None, scores).isfinite()
    drawn = torch.zeros_like(kept)
    for place in range(500):
        uniform = torch.full((20,), (place + 0.5) / 500)
        drawn[torch.arange(20), Sampling(1.0, min_p=0.2).choose(scores, uniform)] = True
    assert torch.equal(drawn, kept)
