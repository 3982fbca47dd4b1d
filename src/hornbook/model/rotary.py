"""Rotary position embedding: a token's position is the angle by which its queries and keys are turned.

The head_dim numbers of a query or key are taken as head_dim/2 pairs, and pair i at position p is turned by
the angle p * theta^(-2i/head_dim). The product of a turned query and a turned key then depends on the
distance of their positions alone (Su et al., arXiv 2104.09864). A pair is the numbers i and i + head_dim/2,
as in Hugging Face's Llama, not the neighbours 2i and 2i + 1 of the paper; the two differ by the order of the
projections' rows only.

A model trained on texts of one length meets angles on longer ones that it has never seen, in the pairs that
turn so slowly that they never came round. Both rules of stretching slow these pairs down by `factor`, leave
fast ones alone, since they tell neighbours apart, and pass over between the two:

- Llama 3.1's (Llama Team, arXiv 2407.21783; the rule is in their published code): pairs are sorted by how
  often they turn within the original length.
- YaRN (Peng et al., arXiv 2309.00071, section 3.2): the limits are the same, but the passage runs over the
  number of the pair; and queries and keys grow a little, because attention over more tokens is flatter.

Shapes: B rows, T tokens of a row, N heads of either kind, E head_dim, F = E/2 pairs.
"""

import math

import torch
from torch import Tensor

from hornbook.model.config import ModelConfig
from hornbook.recipe_data import RopeScalingSection


def rotary_angles(position_ids_BT: Tensor, config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every position's angles, each (B,1,T,F) float32, times YaRN's factor where it is used.

    Computed from the positions at each forward pass and shared by all layers. There is no stored table: it
    would be cast along with the weights to bfloat16, where the positions 256 and 257 are the same number.
    """
    frequencies_F = rotary_frequencies(config, position_ids_BT.device)
    angles_B1TF = position_ids_BT[:, None, :, None].float() * frequencies_F
    length = query_key_factor(config.rope_scaling)
    return angles_B1TF.cos() * length, angles_B1TF.sin() * length


def rotary_frequencies(config: ModelConfig, device: torch.device) -> Tensor:
    """By how many radians each pair is turned from one position to the next: (F,) float32."""
    twice_pairs_F = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device=device)
    frequencies_F = 1.0 / config.rope_theta ** (twice_pairs_F / config.head_dim)
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies_F
    rule = _llama3_share if scaling.type == "llama3" else _yarn_share
    kept_F = rule(frequencies_F, config, scaling)
    return frequencies_F * kept_F + frequencies_F / scaling.factor * (1 - kept_F)


def query_key_factor(scaling: RopeScalingSection | None) -> float:
    """What turned queries and keys are multiplied with: 0.1 ln(factor) + 1 in YaRN (its equation 22), else 1."""
    if scaling is None or scaling.type != "yarn":
        return 1.0
    return scaling.attention_factor or 0.1 * math.log(scaling.factor) + 1


def _llama3_share(frequencies_F: Tensor, config: ModelConfig, scaling: RopeScalingSection) -> Tensor:
    """How much of each pair's own frequency is kept: 1 for fast ones, 0 for slow ones."""
    turns_F = scaling.original_max_seq_len * frequencies_F / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    return ((turns_F - low) / (high - low)).clamp(0, 1)


def _yarn_share(frequencies_F: Tensor, config: ModelConfig, scaling: RopeScalingSection) -> Tensor:
    """The same with YaRN's passage: straight over the pairs between those that turn beta_fast and beta_slow times."""

    def pair_that_turns(times: float) -> float:
        wavelength = scaling.original_max_seq_len / (2 * math.pi * times)
        return config.head_dim * math.log(wavelength) / (2 * math.log(config.rope_theta))

    first = max(math.floor(pair_that_turns(scaling.beta_fast)), 0)
    last = min(math.ceil(pair_that_turns(scaling.beta_slow)), config.head_dim - 1)
    pairs_F = torch.arange(len(frequencies_F), dtype=torch.float32, device=frequencies_F.device)
    # Where the two fall together there is no passage; the small number keeps the division possible.
    return 1 - ((pairs_F - first) / max(last - first, 0.001)).clamp(0, 1)


def rotate(x_BNTE: Tensor, cos_B1TF: Tensor, sin_B1TF: Tensor) -> Tensor:
    """Turn each pair of numbers of each head by its angle, in float32; the result has the input's dtype."""
    first_BNTF, second_BNTF = x_BNTE.chunk(2, dim=-1)
    # Each half is rounded before they are joined: what is joined the compiler would keep in float32 and go over again.
    halves = (
        first_BNTF * cos_B1TF - second_BNTF * sin_B1TF,
        second_BNTF * cos_B1TF + first_BNTF * sin_B1TF,
    )
    return torch.cat([half_BNTF.to(x_BNTE.dtype) for half_BNTF in halves], dim=-1)
