import math
from collections.abc import Callable

import torch

from hornbook.model.feed_forward import GeluFeedForward, SwigluFeedForward
from hornbook.model.transformer import Transformer
from hornbook.runtime import torch_generator


def test_gelu_is_the_tanh_approximation(make_model: Callable[..., Transformer]):
    feed_forward = make_model(preset="gpt2").model.layers[0].mlp
    assert isinstance(feed_forward, GeluFeedForward)
    x = torch.randn(3, 32, generator=torch_generator("x"))
    wide = feed_forward.up_proj(x)
    bent = 0.5 * wide * (1 + torch.tanh(math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)))
    torch.testing.assert_close(feed_forward(x), feed_forward.down_proj(bent))


def test_swiglu_multiplies_the_gate_with_its_own_sigmoid_and_the_other_half(
    make_model: Callable[..., Transformer],
):
    feed_forward = make_model(preset="llama").model.layers[0].mlp
    assert isinstance(feed_forward, SwigluFeedForward)
    x = torch.randn(3, 32, generator=torch_generator("x"))
    gate = feed_forward.gate_proj(x)
    bent = gate * torch.sigmoid(gate) * feed_forward.up_proj(x)
    torch.testing.assert_close(feed_forward(x), feed_forward.down_proj(bent))


def test_the_gates_gradient_is_exact_and_the_gate_is_not_kept_twice(make_model: Callable[..., Transformer]):
    feed_forward = make_model(preset="llama").model.layers[0].mlp.double()
    x = torch.randn(3, 32, generator=torch_generator("x"), dtype=torch.float64, requires_grad=True)

    assert torch.autograd.gradcheck(feed_forward, (x,))

    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        feed_forward(x)
    wide = {tensor.data_ptr() for tensor in kept if tensor.shape == (3, feed_forward.up_proj.out_features)}
    assert len(wide) == 3  # gate, up and their product
