from collections.abc import Callable
from typing import Any

import pytest
import torch

from hornbook.inference.cache import RowCache, shared_tokens
from hornbook.model.transformer import Transformer
from hornbook.runtime import torch_generator


def make_cache(model: Transformer, n_rows: int = 3) -> RowCache:
    return RowCache(model.config, n_rows, 40, torch.float32, torch.device("cpu"))


def ids(*shape: int) -> list[list[int]]:
    return torch.randint(60, shape, generator=torch_generator("ids")).tolist()


def read(model: Transformer, cache: RowCache, tokens: list[list[int]], first_row: int = 0) -> torch.Tensor:
    padded = [row + [0] * (max(map(len, tokens)) - len(row)) for row in tokens]
    with torch.inference_mode():
        return model(torch.tensor(padded), cache=cache.view(first_row, tokens))


def test_the_cache_has_room_for_the_kv_heads_only(make_model: Callable[..., Transformer]):
    cache = make_cache(make_model(n_kv_heads=2))
    new = torch.zeros(1, 2, 3, 8)
    keys, values = cache.view(0, [[1, 2, 3]]).store(0, new, new)
    assert keys.shape == values.shape == (1, 2, 3, 8)


def test_positions_count_on_from_a_rows_text_and_padding_stands_where_its_last_token_does(
    make_model: Callable[..., Transformer],
):
    cache = make_cache(make_model())
    cache.texts[:2] = [[1, 2, 3, 4], [1]]
    assert cache.view(0, [[7, 8], [9]]).position_ids(2).tolist() == [[4, 5], [1, 1]]


def test_the_mask_hides_what_comes_later_and_what_other_rows_have_more(make_model: Callable[..., Transformer]):
    cache = make_cache(make_model())
    cache.texts[:2] = [[1, 2], [1]]
    mask = cache.view(0, [[7, 8], [9]]).mask(2)
    assert mask is not None
    assert mask[0, 0].int().tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert mask[1, 0, 0].int().tolist() == [1, 1, 0, 0]


def test_no_mask_is_made_where_causal_attention_will_do(make_model: Callable[..., Transformer]):
    cache = make_cache(make_model())
    assert cache.view(0, [[1] * 5, [1] * 3]).mask(5) is None
    cache.texts[:2] = [[1] * 5, [1] * 5]
    assert cache.view(0, [[1], [1]]).mask(1) is None
    assert cache.view(0, [[1, 2], [1]]).mask(2) is not None


@pytest.mark.parametrize(
    "shape",
    [{"n_kv_heads": 2}, {"preset": "qwen3", "sliding_window": 3, "full_attention_every": 2}],
    ids=["full attention", "a sliding window"],
)
def test_reading_in_pieces_of_different_length_equals_reading_at_once(
    shape: dict[str, Any], make_model: Callable[..., Transformer]
):
    model = make_model(**shape)
    first, second = ids(2, 12)
    cache = make_cache(model)
    cache.join(first)
    cache.join(second)
    pieces = [([0, 5], [0, 2]), ([5, 6], [2, 8]), ([6, 12], [8, 12])]
    got: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    for (a, b), (c, d) in pieces:
        hidden = read(model, cache, [first[a:b], second[c:d]])
        got[0].append(hidden[0, : b - a])
        got[1].append(hidden[1, : d - c])
    with torch.inference_mode():
        whole = model(torch.tensor([first, second]))
    torch.testing.assert_close(torch.stack([torch.cat(got[0]), torch.cat(got[1])]), whole)


def test_a_sliding_layer_is_handed_only_what_its_new_tokens_see(make_model: Callable[..., Transformer]):
    model = make_model(preset="qwen3", n_kv_heads=2, sliding_window=3, full_attention_every=2)
    cache = make_cache(model)
    cache.texts[0] = [1] * 8
    new = torch.zeros(1, 2, 2, 8)
    view = cache.view(0, [[2, 3]])
    (windowed, _), (full, _) = view.store(0, new, new), view.store(1, new, new)
    assert (windowed.shape[2], full.shape[2]) == (4, 10)
    mask = view.mask(2, window_tokens=3)
    assert mask is not None
    assert mask[0, 0].int().tolist() == [[1, 1, 1, 0], [0, 1, 1, 1]]


def test_a_row_that_leaves_gives_its_number_to_the_last_one(make_model: Callable[..., Transformer]):
    model = make_model()
    texts = ids(3, 6)
    cache = make_cache(model)
    for text in texts:
        cache.join(text)
    read(model, cache, texts)
    cache.leave(0)
    assert cache.texts[:2] == [texts[2], texts[1]]
    with torch.inference_mode():
        alone = model(torch.tensor([[*texts[2], 7]]))
    torch.testing.assert_close(read(model, cache, [[7], [8]])[:1], alone[:, -1:])


def test_a_text_takes_over_what_it_shares_with_one_that_is_there_or_has_ended(make_model: Callable[..., Transformer]):
    model = make_model()
    first, other = ids(2, 10)
    cache = make_cache(model)
    cache.join(first)
    read(model, cache, [first])
    assert cache.join([*first[:6], 1, 2]) == 6
    read(model, cache, [[1, 2]], first_row=1)
    cache.leave(0)
    assert cache.join([*first, 3]) == 10
    assert cache.join(other) == 0
    with torch.inference_mode():
        alone = model(torch.tensor([[*first, 3]]))
    torch.testing.assert_close(read(model, cache, [[3]], first_row=1), alone[:, -1:])


def test_one_token_of_a_text_is_always_left_to_read(make_model: Callable[..., Transformer]):
    cache = make_cache(make_model())
    cache.texts[1] = [1, 2, 3, 4, 5, 6]
    assert cache.join([1, 2, 3, 4, 5, 6]) == 5


def test_the_text_that_ended_first_gives_way(make_model: Callable[..., Transformer]):
    cache = make_cache(make_model())
    texts = ids(4, 6)
    for text in texts[:3]:
        cache.texts[cache.n_active] = []
        cache.join(text)
        cache.texts[cache.n_active - 1] = list(text)
    for row in (1, 1, 0):
        cache.leave(row)
    cache.join(texts[3])
    assert texts[1] not in cache.texts
    assert texts[0] in cache.texts
    assert texts[2] in cache.texts


def test_shared_tokens_are_counted_from_the_beginning():
    assert shared_tokens([1, 2, 3], [1, 2, 4, 3]) == 2
    assert shared_tokens([1, 2], [1, 2, 3]) == 2
    assert shared_tokens([], [1]) == 0
