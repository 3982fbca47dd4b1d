import torch

from hornbook.model.rotary import rotary_angles, rotate
from hornbook.runtime import torch_generator


def turned(vector_E: torch.Tensor, position: int) -> torch.Tensor:
    angles = rotary_angles(torch.tensor([[position]]), len(vector_E), theta=10_000.0)
    return rotate(vector_E.view(1, 1, 1, -1), *angles).flatten()


def test_a_product_depends_on_the_distance_of_two_positions_alone():
    q, k = torch.randn(2, 16, generator=torch_generator("q and k"))
    near, far_along = turned(q, 3) @ turned(k, 1), turned(q, 203) @ turned(k, 201)
    torch.testing.assert_close(near, far_along, rtol=0, atol=1e-4)
    assert not torch.isclose(near, turned(q, 4) @ turned(k, 1), atol=1e-2)


def test_the_first_position_turns_nothing_and_no_position_changes_a_length():
    vector = torch.randn(16, generator=torch_generator("vector"))
    torch.testing.assert_close(turned(vector, 0), vector)
    torch.testing.assert_close(turned(vector, 1000).norm(), vector.norm())


def test_the_first_pair_turns_by_one_radian_a_position():
    vector = torch.tensor([1.0, 0.0, 0.0, 0.0])  # the pairs are the numbers 0 and 2, and 1 and 3
    angle = torch.tensor(5.0)
    torch.testing.assert_close(turned(vector, 5), torch.tensor([angle.cos(), 0.0, angle.sin(), 0.0]))


def test_neighbouring_positions_stay_apart_in_bfloat16():
    vector = torch.ones(16, dtype=torch.bfloat16)
    assert turned(vector, 256).dtype == torch.bfloat16
    assert not torch.equal(turned(vector, 256), turned(vector, 257))
