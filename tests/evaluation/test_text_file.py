import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hornbook.errors import UserError
from hornbook.evaluation.harness import rolling_nats
from hornbook.evaluation.text_file import measure_text, text_bits_per_byte
from hornbook.inference.engine import Engine
from hornbook.model.huggingface import save_pretrained
from hornbook.model.transformer import Transformer
from hornbook.tokenizer.tokenizer import Tokenizer

TEXT = "The lamp stands in the kitchen. Who has the lamp? Émile has it."


def test_a_short_text_is_measured_as_the_plain_forward_measures_it(
    make_model: Callable[..., Transformer], tokenizer: Tokenizer
):
    model = make_model()
    ids = [tokenizer.end_of_text_id, *tokenizer.encode(TEXT)]
    with torch.inference_mode():
        scores = model.logits(model(torch.tensor([ids[:-1]])))[0].double().log_softmax(-1)
    nats = -scores.gather(1, torch.tensor(ids[1:])[:, None]).sum().item()
    engine = Engine(model, tokenizer)
    found = text_bits_per_byte(engine, TEXT)
    assert found["bytes"] == len(TEXT.encode())
    assert found["bits_per_byte"] == pytest.approx(nats / math.log(2) / len(TEXT.encode()), rel=1e-5)
    assert rolling_nats(engine, TEXT) == pytest.approx(-nats, rel=1e-5)


def test_every_token_of_a_long_text_counts_once(make_model: Callable[..., Transformer], tokenizer: Tokenizer):
    # All tokens are as likely for a model of zeros, so the count of tokens decides.
    engine = Engine(make_model(std=0.0, max_seq_len=16), tokenizer)
    n_tokens = len(tokenizer.encode(TEXT * 3))
    per_token = math.log(engine.model.config.vocab_size)
    found = text_bits_per_byte(engine, TEXT * 3)
    assert found["tokens"] == n_tokens
    assert found["loss_nats"] == pytest.approx(per_token)
    assert rolling_nats(engine, TEXT * 3) == pytest.approx(-n_tokens * per_token)


def test_an_empty_text_is_refused(make_model: Callable[..., Transformer], tokenizer: Tokenizer):
    with pytest.raises(UserError, match="empty"):
        text_bits_per_byte(Engine(make_model(), tokenizer), "")


def test_a_file_is_measured_byte_by_byte_with_its_own_line_ends(
    make_model: Callable[..., Transformer], tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    save_pretrained(make_model(), tmp_path / "model", tokenizer.end_of_text_id, tokenizer.pad_id)
    tokenizer.save(tmp_path / "model")
    path = tmp_path / "windows.txt"
    path.write_bytes(b"The lamp.\r\nThe cat.\r\n")
    measure_text(tmp_path / "model", path, int8=False, as_json=True)
    assert json.loads(capsys.readouterr().out)["bytes"] == path.stat().st_size
