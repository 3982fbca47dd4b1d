"""How likely a model finds each label: some at a time, and what comes of it as of all at once."""

import torch

from hornbook.batching.packing import IGNORE_INDEX, Batch
from hornbook.model.config import config_from_recipe
from hornbook.model.init import init_weights
from hornbook.model.transformer import Transformer
from hornbook.objectives.log_probabilities import token_log_probabilities
from hornbook.recipe_data import ModelSection

VOCAB_SIZE, ROWS, ROW_TOKENS = 9_000, 12, 64


def test_many_tokens_over_a_large_vocabulary_are_the_softmax_of_all_their_scores():
    """Three chunks, the last not full; values and gradients in float64."""
    generator = torch.Generator().manual_seed(1)
    section = ModelSection(n_layers=1, d_model=16, n_heads=2, max_seq_len=ROW_TOKENS)
    model = Transformer(config_from_recipe(section, VOCAB_SIZE))
    init_weights(model, seed=1)
    model.double()
    input_ids_BT = torch.randint(VOCAB_SIZE, (ROWS, ROW_TOKENS), generator=generator)
    labels_BT = torch.randint(VOCAB_SIZE, (ROWS, ROW_TOKENS), generator=generator)
    labels_BT[torch.rand(labels_BT.shape, generator=generator) < 0.1] = IGNORE_INDEX
    position_ids_BT = torch.arange(ROW_TOKENS).expand(ROWS, -1)
    document_ids_BT = torch.zeros_like(labels_BT)
    batch = Batch(input_ids_BT, labels_BT, position_ids_BT, document_ids_BT)
    weights_BT = torch.randn(labels_BT.shape, generator=generator, dtype=torch.float64)

    found_BT = token_log_probabilities(model, batch)
    (found_BT * weights_BT).sum().backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    model.zero_grad()

    all_BTV = model.logits(model(input_ids_BT, position_ids_BT, document_ids_BT)).log_softmax(-1)
    expected_BT = all_BTV.gather(2, labels_BT.clamp_min(0)[..., None]).squeeze(2) * (labels_BT != IGNORE_INDEX)
    (expected_BT * weights_BT).sum().backward()
    torch.testing.assert_close(found_BT, expected_BT)
    torch.testing.assert_close(gradients, [parameter.grad for parameter in model.parameters()])
