"""The C functions give torch's numbers: products from weights of each kind, norms, gates."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from hornbook.inference.fast_linear import int8_rows
from hornbook.inference.kernels.library import Kernels, load_kernels
from hornbook.runtime import torch_generator


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    """The compiled functions; what needs them is skipped where there is no compiler."""
    found = load_kernels()
    if found is None:
        pytest.skip("no C compiler here")
    return found


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch_generator("kernels", *shape))


@pytest.mark.parametrize("n_vectors", [1, 2, 3, 7, 33, 100])
@pytest.mark.parametrize(("n_rows", "n_columns"), [(64, 48), (37, 83), (3, 5), (9, 4200), (75, 192)])
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
def test_products_are_those_of_float64(kernels: Kernels, kind: str, n_rows: int, n_columns: int, n_vectors: int):
    weight, vectors, scales = normal(n_rows, n_columns), normal(n_vectors, n_columns), None
    held = weight.to(getattr(torch, kind)) if kind != "int8" else weight
    as_counted = held.double()
    if kind == "int8":
        held, scales = int8_rows(weight)
        as_counted = held.double() * scales.double()[:, None]
    exact = vectors.double() @ as_counted.T
    # What a vector is off by: with int8 half of a step of largest / 32767 in each number; with bfloat16, where the
    # processor multiplies tiles, 2^-9 of each number; with float32 nothing.
    off = {
        "int8": (vectors.abs().amax(1, keepdim=True) / 65534).expand(vectors.shape),
        "bfloat16": vectors.abs() * 2.0**-9,
        "float32": torch.zeros_like(vectors),
    }[kind]
    bound = 1.02 * off.double() @ as_counted.abs().T + 1e-5 * n_columns**0.5
    assert ((kernels.multiply(held, scales, vectors) - exact).abs() <= bound).all()


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
def test_what_a_vector_gets_does_not_depend_on_the_others_to_the_bit(kernels: Kernels, kind: str):
    weight, vectors = normal(70, 192), normal(60, 192)
    held, scales = int8_rows(weight) if kind == "int8" else (weight.to(getattr(torch, kind)), None)
    together = kernels.multiply(held, scales, vectors)
    for size in (1, 2, 5):
        apart = torch.cat([kernels.multiply(held, scales, part) for part in vectors.split(size)])
        assert torch.equal(apart, together)


def test_the_largest_weights_and_vectors_do_not_overflow(kernels: Kernels):
    weight, vectors = torch.ones(8, 8192), torch.full((1, 8192), -3.0)
    held, scales = int8_rows(weight)
    assert kernels.multiply(held, scales, vectors)[0].tolist() == pytest.approx([-3.0 * 8192] * 8, rel=1e-6)


def test_rows_of_zeros_and_vectors_of_zeros_give_zeros(kernels: Kernels):
    held, scales = int8_rows(torch.zeros(9, 40))
    assert not kernels.multiply(held, scales, normal(2, 40)).any()
    held, scales = int8_rows(normal(9, 40))
    assert not kernels.multiply(held, scales, torch.zeros(2, 40)).any()


@pytest.mark.parametrize("n_vectors", [1, 40])
def test_norms_are_those_of_torch(kernels: Kernels, n_vectors: int):
    vectors, weight = 3 * normal(n_vectors, 83), normal(83)
    expected = F.rms_norm(vectors.double(), (83,), weight.double(), 1e-5)
    torch.testing.assert_close(kernels.normalise_rms(vectors, weight, 1e-5).double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("n_vectors", [1, 40])
def test_gates_are_those_of_torch_whatever_their_size(kernels: Kernels, n_vectors: int):
    gate, up = 30 * normal(n_vectors, 83), normal(n_vectors, 83)
    gate[0, :6] = torch.tensor([0.0, -0.0, 1e4, -1e4, 88.5, -88.5])
    expected = F.silu(gate.double()) * up.double()
    torch.testing.assert_close(
        kernels.gate_silu(torch.cat((gate, up), dim=1)).double(), expected, rtol=1e-6, atol=1e-30
    )


def test_vectors_of_another_kind_are_refused(kernels: Kernels):
    for vectors in (normal(3, 8).bfloat16(), normal(8, 3).T):
        with pytest.raises(TypeError, match="float32"):
            kernels.normalise_rms(vectors, normal(8), 1e-5)


def test_a_compiler_that_is_not_there_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", "no-such-compiler")
    assert load_kernels() is None


def test_the_library_is_built_once(kernels: Kernels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert load_kernels() is not None
    monkeypatch.setenv("CC", "no-such-compiler")
    assert load_kernels() is not None
    assert len(list((tmp_path / "hornbook").iterdir())) == 1
