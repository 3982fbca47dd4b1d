import pytest
import torch
from torch import nn

from hornbook.model.normalization import LayerNorm, RMSNorm
from hornbook.runtime import torch_generator


@pytest.fixture
def x() -> torch.Tensor:
    return 3 * torch.randn(5, 16, generator=torch_generator("x")) + 1


def test_rms_norm_brings_every_vector_to_a_root_mean_square_of_one(x: torch.Tensor):
    torch.testing.assert_close(RMSNorm(16, 0.0)(x).square().mean(-1), torch.ones(5))


@pytest.mark.parametrize(("ours", "theirs"), [(RMSNorm, nn.RMSNorm), (LayerNorm, nn.LayerNorm)])
def test_a_norm_agrees_with_torchs(ours: type[nn.Module], theirs: type[nn.Module], x: torch.Tensor):
    norm, judge = ours(16, 1e-5), theirs(16, 1e-5)
    for number, parameter in enumerate(norm.parameters()):
        nn.init.normal_(parameter, generator=torch_generator(number))
    judge.load_state_dict(norm.state_dict())
    torch.testing.assert_close(norm(x), judge(x))


@pytest.mark.parametrize(("ours", "theirs"), [(RMSNorm, nn.RMSNorm), (LayerNorm, nn.LayerNorm)])
def test_a_norm_of_float64_computes_in_float64(ours: type[nn.Module], theirs: type[nn.Module], x: torch.Tensor):
    found = ours(16, 1e-5).double()(x.double())
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, theirs(16, 1e-5).double()(x.double()), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("kind", [RMSNorm, LayerNorm])
def test_a_norm_of_bfloat16_computes_in_float32_and_rounds_once(kind: type[nn.Module], x: torch.Tensor):
    norm = kind(16, 1e-5)
    rounded = norm(x.bfloat16())
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded, norm(x.bfloat16().float()).bfloat16(), rtol=0, atol=0)
