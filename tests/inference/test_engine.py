from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers

from hornbook.errors import UserError
from hornbook.inference.engine import Engine
from hornbook.model.huggingface import save_pretrained
from hornbook.model.transformer import Transformer

EVERY_SHAPE = pytest.mark.parametrize(
    "shape",
    [
        {"preset": "gpt2"},
        {"preset": "llama", "n_kv_heads": 2},
        {"preset": "qwen3", "n_kv_heads": 1},
        {"preset": "qwen3", "sliding_window": 6, "full_attention_every": 2},
    ],
    ids=["gpt2", "llama", "qwen3", "qwen3 with a sliding window"],
)
NEVER_STOP = -1


def greedy_without_cache(model: Transformer, prompt: list[int], n_tokens: int) -> list[int]:
    ids = list(prompt)
    with torch.inference_mode():
        for _ in range(n_tokens):
            ids.append(model.logits(model(torch.tensor([ids])))[0, -1].argmax().item())
    return ids[len(prompt) :]


@EVERY_SHAPE
@pytest.mark.parametrize("max_batch_tokens", [8192, 50], ids=["one batch", "several batches"])
def test_batched_generation_equals_one_by_one_and_reading_everything_again(
    shape: dict[str, str | int],
    max_batch_tokens: int,
    make_engine: Callable[..., Engine],
    prompts: list[list[int]],
):
    engine = make_engine(max_batch_tokens, end_of_text_id=NEVER_STOP, **shape)
    expected = [greedy_without_cache(engine.model, prompt, 16) for prompt in prompts]
    assert len({tuple(tokens) for tokens in expected}) == len(prompts)
    assert engine.generate(prompts, 16) == expected
    assert [engine.generate([prompt], 16)[0] for prompt in prompts] == expected
    assert [list(engine.stream(prompt, 16)) for prompt in prompts] == expected


@EVERY_SHAPE
def test_greedy_generation_is_that_of_transformers(
    shape: dict[str, str | int], make_engine: Callable[..., Engine], tmp_path: Path
):
    engine = make_engine(end_of_text_id=NEVER_STOP, **shape)
    save_pretrained(engine.model, tmp_path, end_of_text_id=60, pad_id=59)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    prompt = [5, 17, 2]
    expected = theirs.generate(torch.tensor([prompt]), max_new_tokens=32, do_sample=False, eos_token_id=None)
    assert engine.generate([prompt], 32) == [expected[0, 3:].tolist()]


def test_a_drawn_continuation_does_not_depend_on_its_company(
    make_engine: Callable[..., Engine], prompts: list[list[int]]
):
    together = make_engine().generate(prompts, 16, temperature=1.0, seed=3)
    apart = make_engine(max_batch_tokens=1).generate(prompts, 16, temperature=1.0, seed=3)
    assert together == apart
    assert together[:3] == make_engine().generate(prompts[:3], 16, temperature=1.0, seed=3)
    assert together != make_engine().generate(prompts, 16, temperature=1.0, seed=4)


def test_the_same_prompt_twice_is_drawn_twice(make_engine: Callable[..., Engine]):
    first, second = make_engine().generate([[1, 2], [1, 2]], 16, temperature=1.0)
    assert first != second


def test_the_stream_is_what_generate_returns(make_engine: Callable[..., Engine]):
    engine = make_engine()
    options = {"temperature": 0.8, "top_k": 20, "top_p": 0.9, "seed": 5}
    assert list(engine.stream([4, 5], 20, **options)) == engine.generate([[4, 5]], 20, **options)[0]


def test_generation_ends_before_a_stop_token_and_the_other_rows_go_on(
    make_engine: Callable[..., Engine], prompts: list[list[int]]
):
    endless = make_engine(end_of_text_id=NEVER_STOP).generate(prompts, 16)
    stop_id, end_of_text_id = endless[2][6], endless[0][4]
    expected = []
    for tokens in endless:
        ends = [place for place, token in enumerate(tokens) if token in (stop_id, end_of_text_id)]
        expected.append(tokens[: ends[0]] if ends else tokens)
    assert len({len(tokens) for tokens in expected}) > 1
    engine = make_engine(end_of_text_id=end_of_text_id)
    assert engine.generate(prompts, 16, stop_ids={stop_id}) == expected


def test_generation_ends_where_the_context_is_full(make_engine: Callable[..., Engine]):
    engine = make_engine(preset="gpt2", end_of_text_id=NEVER_STOP)
    long, short = engine.generate([[1] * 20, [1] * 3], 100)
    assert (len(long), len(short)) == (28, 45)


def test_more_tokens_than_any_context_holds_can_be_asked_for(make_engine: Callable[..., Engine]):
    engine = make_engine(end_of_text_id=NEVER_STOP)
    written = engine.generate([[1] * 20], 10**11, temperature=1.0, seed=3)
    assert len(written[0]) == 28
    assert written == engine.generate([[1] * 20], 28, temperature=1.0, seed=3)


def test_a_prompt_that_leaves_no_room_loses_its_beginning(make_engine: Callable[..., Engine]):
    engine = make_engine(end_of_text_id=NEVER_STOP)
    prompt = torch.randint(60, (100,)).tolist()
    assert engine.generate([prompt], 10) == engine.generate([prompt[-38:]], 10)
    assert engine.generate([prompt], 40) == engine.generate([prompt[-24:]], 24)
    assert len(engine.generate([prompt], 40)[0]) == 24


def test_nothing_to_do_gives_nothing(make_engine: Callable[..., Engine]):
    engine = make_engine()
    assert engine.generate([], 5) == []
    assert engine.generate([[1]], 0) == [[]]
    assert engine.score([], []) == []


def test_an_empty_prompt_is_the_users_mistake(make_engine: Callable[..., Engine]):
    with pytest.raises(UserError, match="the prompt is empty"):
        make_engine().generate([[1], []], 5)


@EVERY_SHAPE
@pytest.mark.parametrize("max_batch_tokens", [8192, 30], ids=["one batch", "several batches"])
def test_a_score_is_the_sum_of_the_continuations_log_probabilities(
    shape: dict[str, str | int],
    max_batch_tokens: int,
    make_engine: Callable[..., Engine],
    prompts: list[list[int]],
):
    engine = make_engine(max_batch_tokens, **shape)
    continuations = [prompt[: 1 + number] for number, prompt in enumerate(reversed(prompts))]
    expected = []
    with torch.inference_mode():
        for prompt, continuation in zip(prompts, continuations, strict=True):
            logits = engine.model.logits(engine.model(torch.tensor([prompt + continuation])))[0]
            log_probabilities = logits.log_softmax(-1)
            expected.append(
                sum(
                    log_probabilities[len(prompt) + place - 1, token].item() for place, token in enumerate(continuation)
                )
            )
    assert engine.score(prompts, continuations) == pytest.approx(expected, rel=1e-5)


@EVERY_SHAPE
def test_choices_that_share_a_row_score_as_each_does_alone(
    shape: dict[str, str | int], make_engine: Callable[..., Engine], prompts: list[list[int]]
):
    engine = make_engine(**shape)
    choices = [[7, 7, 30, 2], [11], [7, 7, 31], [4, 4, 4, 4, 4, 4, 4, 4]]
    pairs = [(prompt, choice) for prompt in prompts for choice in choices[: 1 + len(prompt) % 4]]
    alone = [engine.score([prompt], [choice])[0] for prompt, choice in pairs]
    assert engine.score([p for p, _ in pairs], [c for _, c in pairs]) == pytest.approx(alone, rel=1e-5)


def test_a_prompt_is_read_once_for_all_of_its_choices(make_engine: Callable[..., Engine]):
    engine = make_engine()
    n_read = []
    engine.model.register_forward_pre_hook(lambda model, given: n_read.append(given[0].numel()))
    engine.score([[1, 2, 3, 4, 5]] * 4, [[6, 7]] * 4)
    assert n_read == [5 + 4]


def test_the_scores_of_all_next_tokens_are_a_distribution(make_engine: Callable[..., Engine]):
    scores = make_engine().score([[3, 1, 4]] * 61, [[token] for token in range(61)])
    assert torch.tensor(scores).exp().sum().item() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("prompt", "continuation", "complaint"),
    [
        ([], [1], "empty"),
        ([1], [], "empty"),
        ([1] * 40, [1] * 10, "has 50 tokens, but the model's context holds 48"),
    ],
)
def test_what_cannot_be_scored_is_the_users_mistake(
    prompt: list[int], continuation: list[int], complaint: str, make_engine: Callable[..., Engine]
):
    with pytest.raises(UserError, match=f"text 1 to score.* {complaint}"):
        make_engine().score([[1], prompt], [[2], continuation])


def test_an_engine_in_another_dtype_leaves_the_model_as_it_is(make_model: Callable[..., Transformer]):
    model = make_model()
    engine = Engine(model, tokenizer=None, dtype=torch.bfloat16)
    assert engine.model.head_weight.dtype == torch.bfloat16
    assert model.head_weight.dtype == torch.float32
    assert Engine(model, tokenizer=None).model is model


def test_bfloat16_scores_stay_near_those_of_float32(make_model: Callable[..., Transformer], prompts: list[list[int]]):
    model = make_model()
    exact = Engine(model, tokenizer=None).score(prompts, prompts)
    rounded = Engine(model, tokenizer=None, dtype=torch.bfloat16).score(prompts, prompts)
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=0.05)
