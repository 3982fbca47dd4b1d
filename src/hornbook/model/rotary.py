"""Rotary position embedding: a token's position is the angle by which its queries and keys are turned.

The head_dim numbers of a query or key are taken as head_dim/2 pairs, and pair i at position p is turned by
the angle p * theta^(-2i/head_dim). The product of a turned query and a turned key then depends on the
distance of their positions alone (Su et al., arXiv 2104.09864). A pair is the numbers i and i + head_dim/2,
as in Hugging Face's Llama, not the neighbours 2i and 2i + 1 of the paper; the two differ by the order of the
projections' rows only.

Shapes: B rows, T tokens of a row, N heads of either kind, E head_dim, F = E/2 pairs.
"""

import torch
from torch import Tensor


def rotary_angles(position_ids_BT: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every position's angles, each (B,1,T,F) float32.

    Computed from the positions at each forward pass and shared by all layers. There is no stored table: it
    would be cast along with the weights to bfloat16, where the positions 256 and 257 are the same number.
    """
    pairs_F = torch.arange(0, head_dim, 2, dtype=torch.float32, device=position_ids_BT.device)
    frequencies_F = 1.0 / theta ** (pairs_F / head_dim)
    angles_B1TF = position_ids_BT[:, None, :, None].float() * frequencies_F
    return angles_B1TF.cos(), angles_B1TF.sin()


def rotate(x_BNTE: Tensor, cos_B1TF: Tensor, sin_B1TF: Tensor) -> Tensor:
    """Turn each pair of numbers of each head by its angle, in float32; the result has the input's dtype."""
    first_BNTF, second_BNTF = x_BNTE.chunk(2, dim=-1)
    turned_BNTE = torch.cat(
        (
            first_BNTF * cos_B1TF - second_BNTF * sin_B1TF,
            second_BNTF * cos_B1TF + first_BNTF * sin_B1TF,
        ),
        dim=-1,
    )
    return turned_BNTE.to(x_BNTE.dtype)
