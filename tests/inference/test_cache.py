from collections.abc import Callable
from typing import Any

import pytest
import torch

from hornbook.inference.cache import PaddedCache
from hornbook.model.transformer import Transformer
from hornbook.runtime import torch_generator


def make_cache(model: Transformer, padding_tokens: list[int]) -> PaddedCache:
    return PaddedCache(model.config, padding_tokens, 40, torch.float32, torch.device("cpu"))


def test_the_cache_has_room_for_the_kv_heads_only(make_model: Callable[..., Transformer]):
    model = make_model(n_kv_heads=2)
    cache = make_cache(model, [0])
    new = torch.zeros(1, 2, 3, 8)
    keys, values = cache.store(0, new, new)
    assert keys.shape == values.shape == (1, 2, 3, 8)


def test_positions_count_from_the_end_of_the_padding(make_model: Callable[..., Transformer]):
    cache = make_cache(make_model(), [0, 2])
    assert cache.position_ids(4).tolist() == [[0, 1, 2, 3], [0, 0, 0, 1]]
    cache.advance(4)
    assert cache.position_ids(1).tolist() == [[4], [2]]


def test_the_mask_hides_padding_and_what_comes_later(make_model: Callable[..., Transformer]):
    cache = make_cache(make_model(), [0, 2])
    mask = cache.mask(3)
    assert mask is not None
    assert mask[0, 0].int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert mask[1, 0].int().tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    cache.advance(3)
    mask = cache.mask(1)
    assert mask is not None
    assert mask[:, 0, 0].int().tolist() == [[1, 1, 1, 1], [0, 0, 1, 1]]


def test_no_mask_is_made_where_causal_attention_will_do(make_model: Callable[..., Transformer]):
    cache = make_cache(make_model(), [0, 0])
    assert cache.mask(5) is None
    cache.advance(5)
    assert cache.mask(1) is None
    assert cache.mask(3) is not None


@pytest.mark.parametrize(
    "shape",
    [{"n_kv_heads": 2}, {"preset": "qwen3", "sliding_window": 3, "full_attention_every": 2}],
    ids=["full attention", "a sliding window"],
)
def test_reading_in_pieces_equals_reading_at_once(shape: dict[str, Any], make_model: Callable[..., Transformer]):
    model = make_model(**shape)
    ids = torch.randint(60, (2, 12), generator=torch_generator("ids"))
    cache = make_cache(model, [0, 0])
    pieces = [model(piece, cache=cache) for piece in ids.split([5, 1, 4, 2], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(ids))


def test_a_sliding_layer_is_handed_only_what_its_new_tokens_see(make_model: Callable[..., Transformer]):
    model = make_model(preset="qwen3", n_kv_heads=2, sliding_window=3, full_attention_every=2)
    cache = make_cache(model, [0])
    cache.advance(8)
    new = torch.zeros(1, 2, 2, 8)
    (windowed, _), (full, _) = cache.store(0, new, new), cache.store(1, new, new)
    assert (windowed.shape[2], full.shape[2]) == (4, 10)
    mask = cache.mask(2, window_tokens=3)
    assert mask is not None
    assert mask[0, 0].int().tolist() == [[1, 1, 1, 0], [0, 1, 1, 1]]


@pytest.mark.parametrize(
    "shape", [{}, {"preset": "qwen3", "sliding_window": 3}], ids=["full attention", "a sliding window"]
)
def test_the_kept_rows_go_on_as_if_they_had_been_alone(shape: dict[str, Any], make_model: Callable[..., Transformer]):
    model = make_model(**shape)
    ids = torch.randint(60, (3, 6), generator=torch_generator("ids"))
    cache = make_cache(model, [0, 2, 1])
    model(ids, cache=cache)
    cache.keep_rows([1])
    token = torch.tensor([[7]])
    alone = model(torch.cat([ids[1:2, 2:], token], dim=1))
    torch.testing.assert_close(model(token, cache=cache), alone[:, -1:])
