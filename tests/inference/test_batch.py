"""Requests that come and go at any step get what the plain full forward gives them."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from hornbook.errors import UserError
from hornbook.inference.batch import ContinuousBatch, Produced, Request
from hornbook.inference.fast_model import FastTransformer
from hornbook.inference.sampling import Sampling
from hornbook.model.transformer import Transformer

SHAPES = {
    "gpt2": {"preset": "gpt2"},
    "llama": {"preset": "llama", "n_kv_heads": 2},
    "a sliding window": {"preset": "qwen3", "sliding_window": 6, "full_attention_every": 2},
    "one wide kv head": {"preset": "llama", "n_heads": 2, "n_kv_heads": 1, "head_dim": 80},
}


def greedy_by_full_forward(model: Transformer, prompt: list[int], n_tokens: int) -> list[int]:
    ids = list(prompt)
    with torch.inference_mode():
        for _ in range(n_tokens):
            ids.append(model.logits(model(torch.tensor([ids])))[0, -1].argmax().item())
    return ids[len(prompt) :]


def run_to_end(batch: ContinuousBatch) -> list[Produced]:
    produced = []
    while batch.n_active or batch.n_waiting:
        produced += batch.step()
    return produced


def some_prompts(chance: random.Random) -> list[list[int]]:
    """Prompts of 1 to 24 tokens, of which many begin alike."""
    beginnings = [[chance.randrange(60) for _ in range(chance.randint(5, 16))] for _ in range(3)]
    ends = [[chance.randrange(60) for _ in range(chance.randint(1, 8))] for _ in range(10)]
    return [(chance.choice(beginnings) if number % 4 else []) + end for number, end in enumerate(ends)]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("is_fast", [False, True], ids=["plain", "fast"])
@pytest.mark.parametrize("seed", range(4))
def test_random_arrivals_get_the_greedy_tokens_of_the_plain_full_forward(
    seed: int, is_fast: bool, shape: dict[str, Any], make_model: Callable[..., Transformer]
):
    chance = random.Random(seed)
    model = make_model(**shape)
    served = FastTransformer.of(make_model(**shape)) if is_fast else model
    batch = ContinuousBatch(served, n_rows=chance.randint(3, 5), capacity_tokens=48, has_drafts=seed % 2 == 1)
    requests = [Request(prompt, chance.randint(1, 12)) for prompt in some_prompts(chance)]
    requests += [Request(request.prompt, 6) for request in requests[:2]]
    gone = set(chance.sample(range(len(requests)), 2))
    waiting = list(requests)
    while waiting or batch.n_active or batch.n_waiting:
        for _ in range(min(len(waiting), chance.choice([0, 0, 1, 1, 3]))):
            batch.submit(waiting.pop(0))
        batch.step()
        for number in gone:
            requests[number].is_cancelled = chance.random() < 0.3 or requests[number].is_cancelled
    assert batch.tokens_shared > 0
    for number, request in enumerate(requests):
        expected = greedy_by_full_forward(model, list(request.prompt), request.max_new_tokens)
        if number in gone:
            assert request.tokens == expected[: len(request.tokens)]
        else:
            assert request.tokens == expected


@pytest.mark.parametrize(
    "sampling",
    [Sampling(), Sampling(0.5), Sampling(0.7, top_k=3, repetition_penalty=1.1)],
    ids=["greedy", "drawn", "penalised"],
)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_drafts_change_the_number_of_steps_and_not_the_text(
    shape: dict[str, Any], sampling: Sampling, make_model: Callable[..., Transformer]
):
    model = make_model(**shape, max_seq_len=128)
    texts, steps = {}, {}
    for has_drafts in (False, True):
        batch = ContinuousBatch(model, 3, 128, has_drafts)
        requests = [Request([7, 8, 9, number, 7, 8, 9], 80 + number, sampling, (60,), (number,)) for number in (1, 2)]
        for request in requests:
            batch.submit(request)
        run_to_end(batch)
        texts[has_drafts], steps[has_drafts] = [request.tokens for request in requests], batch.n_steps
    assert texts[True] == texts[False]
    if sampling.temperature == 0:  # what such a model writes greedily soon goes round in a circle
        assert steps[True] < steps[False]


def test_a_draft_ends_where_the_text_may_not_go_on(make_model: Callable[..., Transformer]):
    for max_new_tokens, capacity in ((5, 48), (40, 20)):
        batch = ContinuousBatch(make_model(), 1, capacity, has_drafts=True)
        request = Request([1, 2, 3, 4] * 3 + [1, 2], max_new_tokens)
        batch.submit(request)
        *_, last = run_to_end(batch)
        assert last.finish == "length"
        assert len(request.tokens) == min(max_new_tokens, capacity - 14)


def test_a_prefix_that_newcomers_share_is_read_once(make_model: Callable[..., Transformer]):
    batch = ContinuousBatch(make_model(), n_rows=8, capacity_tokens=48)
    for end in range(4):
        batch.submit(Request([*range(20), 50 + end], 1))
    run_to_end(batch)
    assert batch.tokens_read == 21 + 3 * 1
    assert batch.tokens_shared == 3 * 20


def test_what_a_request_draws_does_not_depend_on_its_company(make_model: Callable[..., Transformer]):
    model = make_model()
    options = [Sampling(1.0), Sampling(0.7, top_k=9), Sampling(1.0, repetition_penalty=1.5), Sampling()]

    def requests() -> list[Request]:
        return [Request([5, number, 9], 8, options[number % 4], seed=(number,)) for number in range(8)]

    apart, together = requests(), requests()
    for request in apart:
        alone = ContinuousBatch(model, 1, 48)
        alone.submit(request)
        run_to_end(alone)
    batch = ContinuousBatch(model, 3, 48)
    for request in together:
        batch.submit(request)
    run_to_end(batch)
    assert [request.tokens for request in together] == [request.tokens for request in apart]


def test_each_ending_has_its_reason(make_model: Callable[..., Transformer]):
    model = make_model()
    expected = greedy_by_full_forward(model, [1, 2, 3], 6)
    stop = next(place for place in range(1, 6) if expected[place] not in expected[:place])
    batch = ContinuousBatch(model, 3, 10)
    stopped = Request([1, 2, 3], 20, stop_ids={expected[stop]})
    short, full = Request([1, 2, 3], 2), Request([1, 2, 3], 20)
    for request in (stopped, short, full):
        batch.submit(request)
    finished = {id(one.request): one.finish for one in run_to_end(batch) if one.finish}
    assert [finished[id(request)] for request in (stopped, short, full)] == ["stop", "length", "length"]
    assert stopped.tokens == expected[:stop]
    assert [len(short.tokens), len(full.tokens)] == [2, 7]


def test_log_probabilities_are_the_models_own(make_model: Callable[..., Transformer]):
    model = make_model()
    batch = ContinuousBatch(model, 1, 48)
    batch.submit(Request([4, 5, 6], 3, Sampling(temperature=3.0), n_alternatives=4))
    ids = [4, 5, 6]
    for one in run_to_end(batch):
        with torch.inference_mode():
            exact = model.logits(model(torch.tensor([ids])))[0, -1].log_softmax(-1)
        assert one.token is not None
        assert one.log_probability == pytest.approx(exact[one.token].item(), abs=1e-4)
        assert [token for token, _ in one.alternatives] == exact.topk(4).indices.tolist()
        assert [value for _, value in one.alternatives] == pytest.approx(exact.topk(4).values.tolist(), abs=1e-4)
        ids.append(one.token)


@pytest.mark.parametrize(("prompt", "complaint"), [([], "prompt is empty"), ([1] * 10, "has 10 tokens, but")])
def test_a_prompt_that_cannot_be_continued_is_refused(
    prompt: list[int], complaint: str, make_model: Callable[..., Transformer]
):
    with pytest.raises(UserError, match=complaint):
        ContinuousBatch(make_model(), 1, 10).submit(Request(prompt, 5))
