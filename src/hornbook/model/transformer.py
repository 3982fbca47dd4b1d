"""The Transformer: token ids in, one vector for each token out, and from it the scores of the next token.

The weights carry the names of Hugging Face's Llama (`model.layers.0.self_attn.q_proj.weight`), so saving in
that layout renames next to nothing; that is why the layers stand in a part of their own called `model`.

`forward` stops before the scores. The vocabulary is the widest thing in a small model: (B,T,V) scores of a
training batch can need more memory than everything else together. So the objective takes the vectors and
`head_weight`, and computes the scores piece by piece; generation asks `logits` for the last token alone.

The forward pass has no branch on the data, so torch.compile makes one graph of each layer. Whether attention needs a
mask is decided by whether document ids are given: without them each row is one document, and attention is
plainly causal, but for layers whose sliding window is shorter than the row.

Shapes: B rows, T tokens of a row, S tokens that are looked at, D d_model, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hornbook.model.attention import Attention, KeyValueCache, Mask, masks_by_window
from hornbook.model.config import ModelConfig
from hornbook.model.feed_forward import make_feed_forward
from hornbook.model.normalization import make_norm
from hornbook.model.rotary import rotary_angles


class Layer(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x)): normalised before each half, as in GPT-2."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.input_layernorm = make_norm(config, config.d_model)
        self.self_attn = Attention(config, index)
        self.post_attention_layernorm = make_norm(config, config.d_model)
        self.mlp = make_feed_forward(config)

    def forward(
        self,
        x_BTD: Tensor,
        rotary: tuple[Tensor, Tensor] | None,
        mask_B1TS: Mask | None,
        cache: KeyValueCache | None,
    ) -> Tensor:
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), rotary, mask_B1TS, cache)
        return x_BTD + self.mlp(self.post_attention_layernorm(x_BTD))


class Decoder(nn.Module):
    """Embeddings, layers and final norm: everything but the scores."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.embed_positions = (
            nn.Embedding(config.max_seq_len, config.d_model) if config.positions == "learned" else None
        )
        self.layers = nn.ModuleList(Layer(config, index) for index in range(config.n_layers))
        self.norm = make_norm(config, config.d_model)
        self.make_masks = masks_by_window  # or what a training attaches (hornbook.parallel.compiled)

    def forward(
        self,
        input_ids_BT: Tensor,
        position_ids_BT: Tensor | None,
        document_ids_BT: Tensor | None,
        cache: KeyValueCache | None,
    ) -> Tensor:
        n_tokens = input_ids_BT.shape[1]
        if cache is not None:
            position_ids_BT = cache.position_ids(n_tokens)
            masks: dict[int | None, Mask | None]
            masks = {window: cache.mask(n_tokens, window) for window in dict.fromkeys(self.config.window_tokens)}
        else:
            masks = self.make_masks(self.config, n_tokens, input_ids_BT.device, document_ids_BT)
        if position_ids_BT is None:
            position_ids_BT = torch.arange(n_tokens, device=input_ids_BT.device)[None]

        x_BTD, rotary = self.embedded(input_ids_BT, position_ids_BT)
        for layer, window_tokens in zip(self.layers, self.config.window_tokens, strict=True):
            x_BTD = layer(x_BTD, rotary, masks[window_tokens], cache)
        if cache is not None:
            cache.advance(n_tokens)
        return self.norm(x_BTD)

    def embedded(self, input_ids_BT: Tensor, position_ids_BT: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """What the first layer is given: the vectors (B,T,D), and the rotary angles where positions are such."""
        x_BTD = self.embed_tokens(input_ids_BT)
        if self.embed_positions is not None:
            return x_BTD + self.embed_positions(position_ids_BT), None
        return x_BTD, rotary_angles(position_ids_BT, self.config)


class Transformer(nn.Module):
    """A decoder-only language model of the shape `config`; `init_weights` or a load gives it its weights."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        # With tied embeddings there is no second matrix, so a checkpoint cannot hold two that disagree.
        self.lm_head = None if config.tie_embeddings else nn.Linear(config.d_model, config.vocab_size, bias=False)

    def forward(
        self,
        input_ids_BT: Tensor,
        position_ids_BT: Tensor | None = None,
        document_ids_BT: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """The vectors (B,T,D) after the final norm.

        input_ids_BT, position_ids_BT, document_ids_BT: (B,T) int64. Positions count from 0 in each row when
        not given. With document ids, several documents share a row and none sees another; each document of a
        row, and its padding, has an id of its own there. With a cache, the tokens follow those it holds, and
        it says where they stand; positions and document ids are then not read.
        """
        return self.model(input_ids_BT, position_ids_BT, document_ids_BT, cache)

    @property
    def head_weight(self) -> Tensor:
        """(V,D): the matrix whose rows are compared with a vector to score each token of the vocabulary."""
        return self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores (...,V) of the next token from the vectors (...,D)."""
        return F.linear(hidden, self.head_weight)
