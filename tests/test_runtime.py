"""Seeds, device and arithmetic."""

import numpy
import pytest
import torch

from hornbook.errors import UserError
from hornbook.runtime import (
    Precision,
    derive_seed,
    measured_flops_per_second,
    numpy_generator,
    pick_device,
    pick_dtype,
    precision_note,
    torch_generator,
)


def test_a_seed_is_the_same_on_every_machine() -> None:
    assert derive_seed(1, "pretrain", 7) == 6806119159566354005


def test_seeds_of_different_purposes_differ() -> None:
    purposes = [
        (1,),
        ("1",),
        (1, 0),
        ("ab", "c"),
        ("a", "bc"),
        ("abc",),
        (),
        (1, "pretrain"),
        (1, "finetune"),
    ]
    assert len({derive_seed(*purpose) for purpose in purposes}) == len(purposes)


def test_a_number_gives_the_same_seed_whatever_library_holds_it() -> None:
    assert derive_seed(numpy.int64(7)) == derive_seed(7)


def test_a_seed_fits_a_signed_64_bit_integer_and_uses_its_range() -> None:
    seeds = [derive_seed(number) for number in range(1000)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 0.99 * 2**63


def test_generators_repeat_and_leave_global_state_alone() -> None:
    before_torch, before_numpy = torch.get_rng_state(), numpy.random.get_state()[1].copy()
    draws = [torch.rand(3, generator=torch_generator(1, "a")) for _ in range(2)]
    numbers = [numpy_generator(1, "a").random(3) for _ in range(2)]
    assert torch.equal(*draws)
    assert numpy.array_equal(*numbers)
    assert not torch.equal(draws[0], torch.rand(3, generator=torch_generator(1, "b")))
    assert torch.equal(before_torch, torch.get_rng_state())
    assert numpy.array_equal(before_numpy, numpy.random.get_state()[1])


def test_automatic_device_is_one_that_computes() -> None:
    assert torch.ones(2, device=pick_device("auto")).sum().item() == 2


def test_a_device_that_is_not_there_is_a_users_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no cuda on this machine"):
        pick_device("cuda")


def test_precision_is_never_float16_and_follows_the_recipe_where_it_decides() -> None:
    cpu = torch.device("cpu")
    assert pick_dtype("float32", cpu) is torch.float32
    assert pick_dtype("bfloat16", cpu) is torch.bfloat16
    assert pick_dtype("auto", cpu) in (torch.float32, torch.bfloat16)


@pytest.mark.parametrize(("has_it", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_automatic_precision_is_bfloat16_only_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, has_it: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_it)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert pick_dtype("auto", torch.device("cpu")) is expected


@pytest.mark.parametrize(
    ("precision", "has_bfloat16", "said"),
    [
        ("float32", False, None),
        ("auto", True, None),
        ("bfloat16", True, None),
        ("auto", False, "Computing in float32"),
        ("bfloat16", False, "emulated"),
    ],
)
def test_falling_back_for_want_of_hardware_is_said(
    precision: Precision, has_bfloat16: bool, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_bfloat16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)

    note = precision_note(precision, torch.device("cpu"))

    assert note is None if said is None else note is not None and said in note


def test_the_measured_speed_is_that_of_a_computer() -> None:
    assert 1e8 < measured_flops_per_second("float32", seconds=0.05) < 1e17
